//! However a manifest is laid out: what is not larder's stays, and all of it means what it should.

use serde_json::Value;

use super::{added, assert_has_larder, deployment, document, documents, inject, injected};

#[test]
fn comments_order_and_quotes_stay() {
    let manifest = r#"# the ranker
apiVersion: apps/v1
kind: Deployment
spec:
  replicas: 02
  template:
    metadata:
      labels:
        larder.dev/inject: enabled # opts in
        version: "1e3"
        # the end of the labels
    spec:
      # starts first
      initContainers:
        # downloads
        - name: load
          command: ["sh", '-c', "yes"]
      containers:
        # the server
        - name: server
          env:
            - {name: OCTAL, value: "0644"} # octal
            - name: SCRIPT
              value: |+
                a
                  b

        - name: exporter # reports
          env:
            - name: DATE
              value: 2024-01-01
          volumeMounts: []
      volumes: # none yet

      # after the volumes
      terminationGracePeriodSeconds: 30
---
kind: Service
"#;
    let after = injected(manifest);
    let before = manifest.replace("          volumeMounts: []", "          volumeMounts:");
    let added = added(&before, &after);
    assert!(!added.contains('#'), "{added}");
    let pod = &documents(&after)[0]["spec"]["template"];
    assert_has_larder(pod);
    let names = |list: &str| -> Vec<Value> {
        pod["spec"][list].as_array().unwrap().iter().map(|entry| entry["name"].clone()).collect()
    };
    assert_eq!(names("initContainers"), ["larder", "load"]);
    assert_eq!(names("volumes"), ["larder-run", "larder-config"]);
    assert_eq!(pod["spec"]["containers"][0]["env"][1]["value"], "a\n  b\n\n");
    let place = |text: &str| after.find(text).unwrap_or_else(|| panic!("{text}\n{after}"));
    assert!(place("- name: larder\n") < place("# downloads"), "the comment is load's");
}

#[test]
fn comments_behind_a_text_stay_with_what_follows() {
    let manifest = deployment()
        + "        env:\n        - name: SCRIPT\n          value: |\n            a\n\n      # the second\n      \
           - name: second\n";
    let after = injected(&manifest);
    assert!(after.contains("\n\n      # the second\n      - name: second\n"), "{after}");
    assert!(after.contains("            a\n        - name: LARDER_ADDRESS\n"), "{after}");
}

#[test]
fn the_layout_of_lists_is_taken_up() {
    let shallow = injected(&deployment());
    assert!(shallow.contains("\n      initContainers:\n      - name: larder\n"), "{shallow}");
    let deep = deployment().replace(
        "      - name: server\n        image:",
        "          - name: server\n            image:",
    );
    let deep = injected(&deep);
    assert!(deep.contains("\n      initContainers:\n        - name: larder\n"), "{deep}");
    assert!(deep.contains("\n            env:\n              - name: LARDER_ADDRESS\n"), "{deep}");
}

#[test]
fn brackets_and_json_are_changed_in_place() {
    let flow = "{apiVersion: v1, kind: Pod, metadata: {labels: {larder.dev/inject: enabled}},\n  \
                spec: {containers: [{name: a, env: []}, {name: b, env: [{name: X}], },]}} # end\n";
    assert_has_larder(&document(&injected(flow)));

    let pretty = r#"{
  "apiVersion": "v1",
  "kind": "Pod",
  "metadata": {
    "labels": {
      "larder.dev/inject": "enabled"
    }
  },
  "spec": {
    "initContainers": [
      {
        "name": "load"
      }
    ],
    "volumes": null,
    "containers": [
      {
        "name": "a",
        "env": []
      }
    ]
  }
}
"#;
    let after = injected(pretty);
    let read: Value = serde_json::from_str(&after).expect("JSON stays JSON");
    assert_has_larder(&read);
    assert!(after.contains("\n        \"name\": \"larder\",\n"), "{after}");
    let compact = serde_json::to_string(&serde_json::from_str::<Value>(pretty).unwrap()).unwrap();
    let after = injected(&compact);
    assert!(!after.contains('\n'));
    assert_has_larder(&serde_json::from_str(&after).unwrap());
    let newer = inject(&after, &["--set", "image=x:2"]);
    let read: Value = serde_json::from_str(&newer.out).unwrap();
    assert_eq!(read["spec"]["initContainers"][0]["image"], "x:2");
}

#[test]
fn ends_of_lines_and_files_are_kept() {
    let windows = deployment().replace('\n', "\r\n");
    let after = injected(&windows);
    assert_eq!(after.matches('\n').count(), after.matches("\r\n").count());
    assert_eq!(after.replace("\r\n", "\n"), injected(&deployment()));

    let json = serde_json::to_string_pretty(&document(&deployment())).unwrap();
    let after = injected(&json.replace('\n', "\r\n"));
    assert_eq!(after.matches('\n').count(), after.matches("\r\n").count(), "{after:?}");
    assert_eq!(after.replace("\r\n", "\n"), injected(&json));

    let unended = deployment().trim_end().to_owned();
    assert_eq!(injected(&unended), injected(&deployment()));

    let marked = format!("\u{feff}{}", deployment());
    assert_eq!(injected(&marked), format!("\u{feff}{}", injected(&deployment())));

    let framed = format!("%YAML 1.2\n---\n{}...\n", deployment());
    let after = injected(&framed);
    assert!(after.starts_with("%YAML 1.2\n---\n") && after.ends_with("\n...\n"), "{after}");
    assert_has_larder(&document(&after)["spec"]["template"]);

    let commented = format!("{}# the end\n# of it", deployment());
    assert!(injected(&commented).ends_with("# the end\n# of it"));
}

#[test]
fn nothing_and_null_are_filled() {
    for nothing in ["", " null", " ~", " []", " [] # none", " # none", " [\n      ]"] {
        let text =
            deployment() + &format!("      volumes:{nothing}\n      initContainers:{nothing}\n");
        assert_has_larder(&document(&injected(&text))["spec"]["template"]);
        let text = deployment() + &format!("        env:{nothing}\n");
        assert_has_larder(&document(&injected(&text))["spec"]["template"]);
    }
    for nothing in ["", " {}", " null # none"] {
        let text = deployment()
            .replace("      labels:", &format!("      annotations:{nothing}\n      labels:"));
        assert_has_larder(&document(&injected(&text))["spec"]["template"]);
    }
}

#[test]
fn texts_that_look_like_something_else_stay_texts() {
    for (key, value) in [
        ("cpu-request", "2"),
        ("cpu-request", "1e3"),
        ("memory-limit", "1E"),
        ("config", "yes"),
        ("config", "2024-01-01"),
        ("config", "1.5"),
        ("config", "null"),
        ("image", "12:30"),
        ("image", "0x10"),
        ("log-level", "off"),
        ("store-ports", "6379"),
        ("store-ports", "1,2"),
        ("env-from", "0644"),
    ] {
        let ran = inject(&deployment(), &["--set", &format!("{key}={value}")]);
        assert_eq!((ran.code, &*ran.err), (0, ""), "{key}={value}");
        let text = serde_json::to_string(&document(&ran.out)).unwrap();
        assert!(text.contains(&format!("\"{value}\"")), "{key}={value}\n{}", ran.out);
        let quoted = ran.out.contains(&format!("\"{value}\""));
        assert!(quoted || value == "1E", "{key}={value} is not in quotes:\n{}", ran.out);
    }
}

#[test]
fn anchors_elsewhere_are_no_matter() {
    let text = deployment()
        .replace("  template:\n", "  selector: &labels {app: ranker}\n  template:\n")
        .replace("labels: {app: ranker, ", "labels: {<<: *labels, ");
    let after = injected(&text);
    assert!(after.contains("labels: {<<: *labels, larder.dev/inject: enabled}"), "{after}");
}
