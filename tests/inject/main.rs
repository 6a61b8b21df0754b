//! `larder inject` as it is run: manifests in, manifests out.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

mod layout;
mod refusals;

/// What a run left.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

/// Runs `larder inject -f -` with more arguments.
fn inject(manifest: &str, arguments: &[&str]) -> Ran {
    let arguments: Vec<_> = ["-f", "-"].iter().chain(arguments).copied().collect();
    run(manifest.as_bytes(), &arguments)
}

fn run(input: &[u8], arguments: &[&str]) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_larder"))
        .arg("inject")
        .args(arguments)
        // Of no concern to it.
        .env("LARDER_CONFIG", "/nowhere/larder.yaml")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // It may end without having read everything.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Injects where nothing is to be complained of, and checks that a second pass changes nothing.
fn injected(manifest: &str) -> String {
    let ran = inject(manifest, &[]);
    assert_eq!((ran.code, &*ran.err), (0, ""), "{}", ran.out);
    let again = inject(&ran.out, &[]);
    assert_eq!((again.code, &*again.err), (0, ""), "{}", ran.out);
    assert_eq!(again.out, ran.out, "a second pass changes nothing");
    ran.out
}

/// What a manifest means to a reader that is not larder's own.
fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn document(text: &str) -> Value {
    let mut documents = documents(text);
    assert_eq!(documents.len(), 1, "{text}");
    documents.remove(0)
}

/// The lines of `before` are in `after`, in their order, and these are new.
fn added(before: &str, after: &str) -> String {
    let mut old = before.lines().peekable();
    let mut added = String::new();
    for line in after.lines() {
        if old.peek() == Some(&line) {
            old.next();
        } else {
            writeln!(added, "{line}").unwrap();
        }
    }
    assert_eq!(old.next(), None, "gone from\n{after}");
    added
}

fn assert_has_larder(pod: &Value) {
    let spec = &pod["spec"];
    let larder: Vec<_> = spec["initContainers"]
        .as_array()
        .unwrap_or_else(|| panic!("{spec}"))
        .iter()
        .filter(|container| container["name"] == "larder")
        .collect();
    assert_eq!(larder.len(), 1, "{spec}");
    assert_eq!(larder[0]["restartPolicy"], "Always");
    assert_eq!(larder[0]["env"][2], json!({"name": "LARDER_UNIX_SOCKET_MODE", "value": "0666"}));
    assert_eq!(larder[0]["args"].as_array().unwrap().last().unwrap(), ":6567");
    for container in spec["containers"].as_array().unwrap() {
        let env = container["env"].as_array().unwrap();
        assert_eq!(
            env.iter().find(|variable| variable["name"] == "LARDER_ADDRESS").unwrap()["value"],
            "127.0.0.1:6566"
        );
        let mounts = container["volumeMounts"].as_array().unwrap();
        assert!(mounts.iter().any(|mount| mount["mountPath"] == "/run/larder"));
    }
    let volumes = spec["volumes"].as_array().unwrap();
    for name in ["larder-run", "larder-config"] {
        assert_eq!(volumes.iter().filter(|volume| volume["name"] == name).count(), 1, "{spec}");
    }
    assert_eq!(pod["metadata"]["annotations"]["larder.dev/injected"], "cli");
}

const TEMPLATE: &str = "\
metadata:
  labels: {app: ranker, larder.dev/inject: enabled}
spec:
  containers:
  - name: server
    image: registry.example/model:1
";

fn indented(text: &str, depth: usize) -> String {
    text.lines().map(|line| format!("{}{line}\n", " ".repeat(depth))).collect()
}

fn deployment() -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: ranker\nspec:\n  template:\n{}",
        indented(TEMPLATE, 4)
    )
}

#[test]
fn every_kind_that_makes_pods_is_known() {
    let pod = format!("apiVersion: v1\nkind: Pod\n{TEMPLATE}");
    assert_has_larder(&document(&injected(&pod)));
    for (version, kind) in [
        ("v1", "ReplicationController"),
        ("apps/v1", "Deployment"),
        ("apps/v1", "StatefulSet"),
        ("apps/v1", "DaemonSet"),
        ("apps/v1", "ReplicaSet"),
        ("batch/v1", "Job"),
    ] {
        let template = indented(TEMPLATE, 4);
        let text = format!("apiVersion: {version}\nkind: {kind}\nspec:\n  template:\n{template}");
        assert_has_larder(&document(&injected(&text))["spec"]["template"]);
    }
    let template = indented(TEMPLATE, 8);
    let cron = format!(
        "apiVersion: batch/v1\nkind: CronJob\nspec:\n  jobTemplate:\n    spec:\n      template:\n{template}"
    );
    let cron = document(&injected(&cron));
    assert_has_larder(&cron["spec"]["jobTemplate"]["spec"]["template"]);
    let list = format!(
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n- apiVersion: v1\n  kind: Pod\n{}",
        indented(TEMPLATE, 2)
    );
    let list = document(&injected(&list));
    assert_eq!(list["items"][0], json!({"apiVersion": "v1", "kind": "Service"}));
    assert_has_larder(&list["items"][1]);
}

#[test]
fn what_does_not_ask_stays_byte_for_byte() {
    let others = "\
# one
apiVersion: v1
kind:   ConfigMap
metadata: {name: \"yes\"}   # quoted
data:
    text: |+
      0644

---
---
apiVersion: batch.volcano.sh/v1alpha1
kind: Job
spec: {template: {metadata: {labels: {larder.dev/inject: enabled}}}}
...
---
apiVersion: apps/v1
kind: Deployment
spec:
    template: {metadata: {labels: {larder.dev/inject: \"no\"}}, spec: {containers: [{name: a}]}}
";
    let ran = inject(others, &[]);
    assert_eq!((ran.code, &ran.out), (0, &others.to_owned()));
    assert!(ran.err.contains("no pod template has the label"), "{}", ran.err);

    let both = format!("{others}---\n{}", deployment());
    let after = injected(&both);
    assert!(after.starts_with(others), "{after}");
    assert_has_larder(&documents(&after).last().unwrap()["spec"]["template"]);

    let all = inject(others, &["--all"]);
    assert_eq!(all.code, 0, "{}", all.err);
    assert_has_larder(&documents(&all.out).last().unwrap()["spec"]["template"]);
}

#[test]
fn a_newer_image_replaces_the_container_in_its_place() {
    let manifest = deployment()
        + "      # loads the model\n      initContainers:\n      - name: istio-proxy\n      - name: load # it\n";
    let first = injected(&manifest);
    let newer = inject(&first, &["--set", "image=x:2", "--set", "disk=1Gi"]);
    assert_eq!((newer.code, &*newer.err), (0, ""));
    let old_line = "        image: larder:";
    let without = |text: &str| -> String {
        text.lines().filter(|line| !line.starts_with(old_line)).collect::<Vec<_>>().join("\n")
    };
    let added = added(&without(&first), &newer.out);
    assert_eq!(
        added,
        "        image: x:2\n        - name: LARDER_REGISTRY__DISK_COPY\n          \
         value: /var/lib/larder/registry.pb\n        - name: larder-disk\n          \
         mountPath: /var/lib/larder\n      - name: larder-disk\n        emptyDir:\n          \
         sizeLimit: 1Gi\n"
    );
    let names: Vec<_> = document(&newer.out)["spec"]["template"]["spec"]["initContainers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|container| container["name"].clone())
        .collect();
    assert_eq!(names, ["istio-proxy", "larder", "load"]);

    for way in ["policy", "webhook"] {
        let other =
            first.replace("larder.dev/injected: cli", &format!("larder.dev/injected: {way}"));
        let ran = inject(&other, &["--set", "image=x:2"]);
        assert_eq!((ran.code, &ran.out, &*ran.err), (0, &other, ""));
    }
}

#[test]
fn check_names_what_would_change_and_writes_nothing_else() {
    let manifest = format!("kind: Service\napiVersion: v1\n---\n{}", deployment());
    let ran = inject(&manifest, &["--check"]);
    assert_eq!((ran.code, &*ran.out), (1, "<stdin>:4 (Deployment/ranker) would change\n"));
    let ran = inject(&injected(&manifest), &["--check"]);
    assert_eq!((ran.code, &*ran.out, &*ran.err), (0, "", ""));
}

#[test]
fn settings_come_from_a_file_and_from_flags_and_annotations_win() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let map = "kind: Namespace\n---\nkind: ConfigMap\ndata:\n  image: a:1\n  cpu-request: \"1\"\n  disk: ''\n";
    let flat = "image: a:1\ncpu-request: 1\ndisk:\n";
    let annotated = deployment().replace(
        "      labels:",
        "      annotations: {larder.dev/memory-limit: 1Gi, larder.dev/config: \"\"}\n      labels:",
    );
    for settings in [map, flat] {
        let settings = file("settings.yaml", settings);
        let arguments = ["--settings", &settings, "--set", "image=b:2"];
        let ran = inject(&annotated, &arguments);
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert_eq!(
            ran.err,
            "<stdin>:1 (Deployment/ranker): annotation larder.dev/config: expected the name of a \
             ConfigMap, such as larder, got ``; `larder` is used\n"
        );
        let larder = &document(&ran.out)["spec"]["template"]["spec"]["initContainers"][0];
        assert_eq!(larder["image"], "b:2");
        assert_eq!(
            larder["resources"],
            json!({"requests": {"cpu": "1", "memory": "64Mi"}, "limits": {"memory": "1Gi"}})
        );
    }

    let bad = file("bad.yaml", "image: ''\ncpu-limits: 1\n");
    let ran = inject(&annotated, &["--settings", &bad, "--set", "disk=x", "--set", "no=1"]);
    assert_eq!((ran.code, &*ran.out), (64, ""));
    let lines: Vec<_> = ran.err.lines().collect();
    assert_eq!(lines.len(), 4, "{}", ran.err);
    assert!(lines[0].starts_with(&format!("{bad}:1: image: expected an image")), "{}", lines[0]);
    assert!(
        lines[1].ends_with(":2: cpu-limits: there is no such setting; did you mean `cpu-limit`?")
    );
    assert!(lines[2].starts_with("--set disk: expected an amount above 0"), "{}", lines[2]);
    assert!(lines[3].starts_with("--set no: there is no such setting"), "{}", lines[3]);
}

#[test]
fn several_files_become_one_stream_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let first = file("a.yaml", deployment().trim_end());
    let second = file("b.yaml", "---\napiVersion: v1\nkind: Service\n");
    let ran = run(
        b"{\"apiVersion\": \"v1\", \"kind\": \"Secret\"}",
        &["-f", &first, "-f", &second, "-f", "-"],
    );
    assert_eq!((ran.code, &*ran.err), (0, ""));
    let kinds: Vec<_> =
        documents(&ran.out).iter().map(|document| document["kind"].clone()).collect();
    assert_eq!(kinds, ["Deployment", "Service", "Secret"]);

    let bad = file("c.yaml", "a: [1\nb: 2\n");
    let ran = run(b"", &["-f", &first, "-f", &bad, "-f", "/nowhere/d.yaml"]);
    assert_eq!((ran.code, &*ran.out), (1, ""), "nothing half written");
    assert!(ran.err.contains(&format!("{bad}:")), "{}", ran.err);
    assert!(ran.err.contains("/nowhere/d.yaml: "), "{}", ran.err);
}

#[test]
fn a_label_where_nobody_looks_is_said() {
    for (value, said) in [("\"true\"", "`true`"), ("yes", "`true`"), ("enable", "`enable`")] {
        let text = deployment().replace("inject: enabled", &format!("inject: {value}"));
        let ran = inject(&text, &[]);
        let expected = format!("the label larder.dev/inject is {said}, not `enabled`");
        assert!(ran.code == 0 && ran.err.contains(&expected), "{}", ran.err);
    }
    let text = deployment()
        .replace("      labels: {app: ranker, larder.dev/inject: enabled}\n", "")
        .replace("  name: ranker\n", "  name: ranker\n  labels: {larder.dev/inject: enabled}\n")
        .replace("    metadata:\n    spec:", "    spec:");
    let ran = inject(&text, &[]);
    assert_eq!((ran.code, &ran.out), (0, &text));
    assert!(
        ran.err.starts_with(
            "<stdin>:1 (Deployment/ranker): the label larder.dev/inject is on the object"
        ),
        "{}",
        ran.err
    );
}

#[test]
fn what_cannot_have_larder_is_left_alone_and_said() {
    for (field, reason) in [
        ("hostNetwork: yes", "it is on the network of its node"),
        ("os: {name: windows}", "its operating system is `windows`"),
        ("initContainers: 5", "`spec.initContainers` is a number, not a list"),
    ] {
        let text = format!("{}      {field}\n", deployment());
        let ran = inject(&text, &[]);
        assert_eq!((ran.code, &ran.out), (0, &text));
        assert!(
            ran.err.starts_with("<stdin>:1 (Deployment/ranker): nothing was injected: ")
                && ran.err.contains(reason),
            "{}",
            ran.err
        );
    }
}
