//! larder into pods, on what an API server sent: `tests/golden/kubernetes` has reviews as
//! kube-apiserver 1.37 sent them to a webhook.

use std::{fs, path::Path};

use larder::injector::{
    Outcome, Patch, Reason, Settings, Way, asks, inject, inject_manifest, names,
};
use serde_json::{Value, json};

fn review(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/kubernetes").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn pod(name: &str) -> Value {
    review(name)["request"]["object"].clone()
}

fn patch(pod: &Value, settings: &Settings) -> (Patch, Vec<String>) {
    match inject(pod, settings, Way::Webhook) {
        Outcome::Injected { patch, warnings } => (patch, warnings),
        Outcome::Unchanged(reason) => panic!("{reason}"),
    }
}

fn injected(pod: &Value, settings: &[(&str, &str)]) -> Value {
    let settings = Settings::from_pairs(settings.iter().copied()).unwrap();
    let (patch, warnings) = patch(pod, &settings);
    assert_eq!(warnings, [""; 0]);
    let mut pod = pod.clone();
    // Through its JSON: that is what the API server applies.
    patch.apply(&mut pod).unwrap();
    pod
}

fn reason(pod: &Value) -> Reason {
    match inject(pod, &Settings::default(), Way::Webhook) {
        Outcome::Unchanged(reason) => reason,
        Outcome::Injected { patch, .. } => panic!("{patch:?}"),
    }
}

fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    let list = list.as_array().unwrap();
    list.iter().find(|entry| entry["name"] == name).unwrap_or(&Value::Null)
}

fn annotated(annotations: Value) -> Value {
    let mut pod = pod("create.json");
    pod["metadata"]["annotations"] = annotations;
    pod
}

const CREATED: [&str; 6] = [
    "create.json",
    "create-dry-run.json",
    "create-ephemeral-volume.json",
    "create-generate-name.json",
    "create-init-containers-duplicate-env.json",
    "create-minimal.json",
];

#[test]
fn every_pod_that_asks_gets_larder_once() {
    for name in CREATED {
        let before = pod(name);
        assert!(asks(&before), "{name}");
        let after = injected(&before, &[]);
        assert_eq!(after["metadata"]["annotations"][names::INJECTED], "webhook", "{name}");
        let mut expected = sidecar();
        if name == "create-generate-name.json" {
            let limit = json!("512Mi");
            assert_eq!(before["metadata"]["annotations"]["larder.dev/memory-limit"], limit);
            expected["resources"]["limits"]["memory"] = limit;
        }
        assert_eq!(after["spec"]["initContainers"][0], expected, "{name}");
        assert_eq!(
            named(&after["spec"]["volumes"], "larder-run"),
            &json!({"name": "larder-run", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})
        );
        assert_eq!(
            named(&after["spec"]["volumes"], "larder-config"),
            &json!({"name": "larder-config", "configMap": {"name": "larder", "optional": true}})
        );
        for container in after["spec"]["containers"].as_array().unwrap() {
            for (variable, value) in [
                ("LARDER_ADDRESS", "127.0.0.1:6566"),
                ("LARDER_URL", "http://127.0.0.1:6566"),
                ("LARDER_SOCKET", "/run/larder/larder.sock"),
                ("LARDER_ABSTRACT", "unix-abstract:larder"),
            ] {
                let expected = json!({"name": variable, "value": value});
                assert_eq!(named(&container["env"], variable), &expected, "{name}");
            }
            assert_eq!(
                container["volumeMounts"].as_array().unwrap().last().unwrap(),
                &json!({"name": "larder-run", "mountPath": "/run/larder", "readOnly": true})
            );
        }
        assert_eq!(reason(&after), Reason::AlreadyThere, "{name}");
        assert_eq!(without_larder(after), before_without_lists(before), "{name}: the rest stays");
    }
}

fn sidecar() -> Value {
    json!({
        "name": "larder",
        "image": names::DEFAULT_IMAGE,
        "restartPolicy": "Always",
        "args": [
            "serve", "--chdir", "/etc/larder", "--on-bad-config", "wait",
            "--listen", "127.0.0.1:6566", "--listen", "unix:/run/larder/larder.sock",
            "--listen", "unix-abstract:larder", "--admin", ":6567",
        ],
        "env": [
            {"name": "LARDER_CPU", "valueFrom": {"resourceFieldRef":
                {"containerName": "larder", "resource": "requests.cpu"}}},
            {"name": "LARDER_MEMORY", "valueFrom": {"resourceFieldRef":
                {"containerName": "larder", "resource": "limits.memory"}}},
            {"name": "LARDER_UNIX_SOCKET_MODE", "value": "0666"},
        ],
        "ports": [{"name": "larder-admin", "containerPort": 6567}],
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "startupProbe": {
            "exec": {"command": ["/larder", "ready", "--socket", "/run/larder/larder.sock"]},
            "periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": 120,
        },
        "securityContext": {
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "runAsNonRoot": true, "runAsUser": 65532,
            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "larder-run", "mountPath": "/run/larder"},
            {"name": "larder-config", "mountPath": "/etc/larder", "readOnly": true},
        ],
    })
}

/// The pod with all that is larder's taken out, and without lists that are empty then.
fn without_larder(mut pod: Value) -> Value {
    let spec = &mut pod["spec"];
    let drop = |list: &mut Value| {
        if let Some(list) = list.as_array_mut() {
            list.retain(|entry| {
                let name = entry["name"].as_str().unwrap_or_default().to_lowercase();
                !name.starts_with("larder")
            });
        }
    };
    drop(&mut spec["initContainers"]);
    drop(&mut spec["volumes"]);
    for container in spec["containers"].as_array_mut().unwrap() {
        drop(&mut container["env"]);
        drop(&mut container["volumeMounts"]);
    }
    let annotations = pod["metadata"]["annotations"].as_object_mut().unwrap();
    annotations.remove(names::INJECTED);
    before_without_lists(pod)
}

fn before_without_lists(mut pod: Value) -> Value {
    fn prune(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.values_mut().for_each(prune);
                map.retain(|key, value| {
                    let list = ["initContainers", "volumes", "env", "volumeMounts", "annotations"];
                    !list.contains(&key.as_str())
                        || !(value.is_null() || *value == json!([]) || *value == json!({}))
                });
            }
            Value::Array(list) => list.iter_mut().for_each(prune),
            _ => {}
        }
    }
    prune(&mut pod);
    pod
}

#[test]
fn what_is_injected_or_updated_is_left_alone() {
    assert_eq!(reason(&pod("create-already-injected.json")), Reason::AlreadyThere);
    for name in ["update.json", "update-ephemeral-containers.json"] {
        assert_eq!(reason(&pod(name)), Reason::AlreadyThere, "{name}");
    }
}

#[test]
fn lists_that_are_not_there_are_made() {
    let (patch, _) = patch(&pod("create-minimal.json"), &Settings::default());
    let patch = serde_json::to_value(&patch).unwrap();
    let paths: Vec<_> =
        patch.as_array().unwrap().iter().map(|change| change["path"].as_str().unwrap()).collect();
    assert_eq!(
        paths,
        [
            "/metadata/annotations",
            "/spec/initContainers",
            "/spec/volumes",
            "/spec/containers/0/env",
            "/spec/containers/0/volumeMounts",
        ]
    );
    assert!(patch.as_array().unwrap().iter().all(|change| change["op"] == "add"));
}

#[test]
fn the_authors_own_wins() {
    let mut pod = pod("create.json");
    let volume = json!({"name": "larder-run", "emptyDir": {"sizeLimit": "5Mi"}});
    pod["spec"]["volumes"].as_array_mut().unwrap().push(volume.clone());
    pod["spec"]["containers"][0]["env"] = json!([
        {"name": "LARDER_ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "LARDER_URL", "value": "x"},
        {"name": "LARDER_URL", "value": "again"},
    ]);
    let mount = json!({"name": "other", "mountPath": "/run/larder"});
    pod["spec"]["containers"][0]["volumeMounts"] = json!([mount]);
    let after = injected(&pod, &[]);
    assert_eq!(named(&after["spec"]["volumes"], "larder-run"), &volume);
    let container = &after["spec"]["containers"][0];
    assert_eq!(container["volumeMounts"], json!([mount]));
    let variables: Vec<_> =
        container["env"].as_array().unwrap().iter().map(|v| &v["name"]).collect();
    assert_eq!(
        variables,
        ["LARDER_ADDRESS", "LARDER_URL", "LARDER_URL", "LARDER_SOCKET", "LARDER_ABSTRACT"]
    );
}

#[test]
fn annotations_win_over_settings() {
    let pod = annotated(json!({
        "larder.dev/image": "example.org/larder:2",
        "larder.dev/config": "features",
        "larder.dev/env-from": "credentials",
        "larder.dev/cpu-request": "2",
        "larder.dev/cpu-limit": "1500m",
        "larder.dev/memory-request": "1Gi",
        "larder.dev/memory-limit": "512Mi",
        "larder.dev/disk": "1Gi",
        "larder.dev/store-ports": "6379,9042",
        "larder.dev/log-level": "debug",
        "larder.dev/containers": " exporter ,",
        "config.linkerd.io/skip-outbound-ports": "1",
    }));
    let after = injected(&pod, &[("image", "example.org/larder:1"), ("log-level", "warn")]);
    let larder = &after["spec"]["initContainers"][0];
    assert_eq!(larder["image"], "example.org/larder:2");
    let secret = json!([{"secretRef": {"name": "credentials", "optional": true}}]);
    assert_eq!(larder["envFrom"], secret);
    assert_eq!(
        larder["resources"],
        json!({"requests": {"cpu": "1500m", "memory": "512Mi"}, "limits": {"cpu": "1500m", "memory": "512Mi"}}),
        "requests are lowered to the limits"
    );
    let env = &larder["env"];
    assert_eq!(named(env, "LARDER_REGISTRY__DISK_COPY")["value"], "/var/lib/larder/registry.pb");
    assert_eq!(named(env, "LARDER_LOG__LEVEL")["value"], "debug");
    assert_eq!(
        named(&larder["volumeMounts"], "larder-disk"),
        &json!({"name": "larder-disk", "mountPath": "/var/lib/larder"})
    );
    let volumes = &after["spec"]["volumes"];
    assert_eq!(named(volumes, "larder-config")["configMap"]["name"], "features");
    assert_eq!(named(volumes, "larder-disk")["emptyDir"], json!({"sizeLimit": "1Gi"}));
    let annotations = &after["metadata"]["annotations"];
    assert_eq!(annotations["traffic.sidecar.istio.io/excludeOutboundPorts"], "6379,9042");
    assert_eq!(annotations["config.linkerd.io/skip-outbound-ports"], "1", "the author's");
    let containers = &after["spec"]["containers"];
    assert_eq!(named(containers, "exporter")["env"].as_array().unwrap().len(), 4);
    assert_eq!(named(&named(containers, "server")["env"], "LARDER_URL"), &Value::Null);
}

#[test]
fn a_bad_annotation_is_said_and_not_followed() {
    let pod = annotated(json!({
        "larder.dev/memory-limit": "lots",
        "larder.dev/cpu-request": "0",
        "larder.dev/config": "",
        "larder.dev/disk": "-1Gi",
        "larder.dev/log-level": "",
        "larder.dev/image": 5,
        "larder.dev/containers": "sever, exporter",
        "larder.dev/memory": "1Gi",
        "larder.dev/memory-limt": "1Gi",
        "larder.dev/inject": "enabled",
    }));
    let settings = Settings::from_pairs([("log-level", "warn")]).unwrap();
    let (patch, warnings) = patch(&pod, &settings);
    assert_eq!(
        warnings,
        [
            "annotation larder.dev/image: expected an image such as registry.example/larder:1.2.3, got something that is no text; `IMAGE` is used",
            "annotation larder.dev/config: expected the name of a ConfigMap, such as larder, got ``; `larder` is used",
            "annotation larder.dev/cpu-request: expected an amount above 0, such as 100m or 2, got `0`; `100m` is used",
            "annotation larder.dev/memory-limit: expected an amount above 0, such as 256Mi, got `lots`; `256Mi` is used",
            "annotation larder.dev/disk: expected an amount above 0, such as 256Mi, got `-1Gi`; it is left out",
            "annotation larder.dev/inject: it means nothing; it is a label by which a pod asks for larder",
            "annotation larder.dev/memory: it means nothing; there are image, config, env-from, cpu-request, cpu-limit, memory-request, memory-limit, disk, store-ports, log-level, containers",
            "annotation larder.dev/memory-limt: it means nothing; did you mean `memory-limit`?",
            "annotation larder.dev/containers: the pod has no container `sever`",
        ]
        .map(|warning| warning.replace("IMAGE", names::DEFAULT_IMAGE))
    );
    let mut after = pod.clone();
    patch.apply(&mut after).unwrap();
    assert_eq!(after["spec"]["initContainers"][0], sidecar(), "an empty log-level unsets it");
}

/// What takes time in the square of its size would take minutes.
#[test]
fn a_pod_as_large_as_it_may_be_is_decided_at_once() {
    let began = std::time::Instant::now();
    let mut pod = annotated(json!({ format!("larder.dev/x{}", "é".repeat(1_400_000)): "" }));
    let (_, warnings) = patch(&pod, &Settings::default());
    assert!(matches!(&warnings[..], [one] if one.len() < 300), "{warnings:?}");

    let many = (0..100_000).map(|number| (format!("larder.dev/a{number}"), json!("")));
    pod["metadata"]["annotations"] = Value::Object(many.collect());
    let (_, warnings) = patch(&pod, &Settings::default());
    assert_eq!(warnings.len(), 16);

    let names: Vec<_> = (0..10_000).map(|number| format!("c{number}")).collect();
    let named = names.iter().map(|name| json!({ "name": name }));
    pod["spec"]["containers"] = named.collect();
    for (more, connected) in [("c1,", 1), ("x,", 0)] {
        let list = names[5_000..].join(",") + "," + &more.repeat(500_000);
        pod["metadata"]["annotations"] = json!({ "larder.dev/containers": list });
        let (patch, warnings) = patch(&pod, &Settings::default());
        let clients = patch.0.iter().filter(|change| change.path.to_string().ends_with("/env"));
        assert_eq!(clients.count(), 5_000 + connected);
        assert!(warnings.iter().all(|warning| warning.len() < 300), "{warnings:?}");
    }
    assert!(began.elapsed() < std::time::Duration::from_secs(30), "{:?}", began.elapsed());
}

#[test]
fn a_guaranteed_pod_stays_guaranteed() {
    let mut pod = pod("create-minimal.json");
    for (limits, requests, guaranteed) in [
        (json!({"cpu": "1", "memory": "1Gi"}), json!({"cpu": "1000m", "memory": "1024Mi"}), true),
        (json!({"cpu": 1, "memory": 1024}), json!({"cpu": "1", "memory": "1Ki"}), true),
        (json!({"cpu": "1", "memory": "1Gi"}), Value::Null, true),
        (json!({"cpu": "1", "memory": "1Gi"}), json!({"memory": "1Gi"}), true),
        (json!({"cpu": "1", "memory": "1Gi"}), json!({"cpu": "900m"}), false),
        (json!({"memory": "1Gi"}), Value::Null, false),
        (json!({"cpu": "0", "memory": "1Gi"}), Value::Null, false),
        (json!({"cpu": "x", "memory": "1Gi"}), json!({"cpu": "x", "memory": "1Gi"}), false),
        (Value::Null, Value::Null, false),
    ] {
        pod["spec"]["containers"][0]["resources"] = json!({"limits": limits, "requests": requests});
        let after = injected(&pod, &[]);
        let resources = &after["spec"]["initContainers"][0]["resources"];
        let both = json!({"cpu": "100m", "memory": "256Mi"});
        let expected = if guaranteed {
            json!({"requests": both, "limits": both})
        } else {
            sidecar()["resources"].clone()
        };
        assert_eq!(resources, &expected, "{limits} {requests}");
    }
    // An init container counts, too.
    pod["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
    pod["spec"]["initContainers"] = json!([{"name": "load"}]);
    let after = injected(&pod, &[]);
    assert_eq!(after["spec"]["initContainers"][0]["resources"], sidecar()["resources"]);
    pod["spec"]["initContainers"] = Value::Null;
    let after = injected(&pod, &[("cpu-limit", "2")]);
    let both = json!({"cpu": "2", "memory": "256Mi"});
    let resources = &after["spec"]["initContainers"][0]["resources"];
    assert_eq!(resources, &json!({"requests": both, "limits": both}));
}

#[test]
fn larder_starts_behind_meshes_and_before_the_rest() {
    let mut pod = pod("create-minimal.json");
    for (before, place) in [
        (vec![], 0),
        (vec!["load"], 0),
        (vec!["istio-init", "load"], 1),
        (vec!["load", "linkerd-proxy", "more"], 2),
        (vec!["istio-init", "load", "istio-proxy"], 3),
    ] {
        let containers: Vec<_> = before.iter().map(|name| json!({"name": name})).collect();
        pod["spec"]["initContainers"] = json!(containers);
        let after = injected(&pod, &[]);
        assert_eq!(after["spec"]["initContainers"][place]["name"], "larder", "{before:?}");
    }
}

#[test]
fn pods_where_larder_cannot_be_are_left_alone() {
    let with = |key: &str, value: Value| {
        let mut pod = pod("create.json");
        pod["spec"][key] = value;
        pod
    };
    assert_eq!(reason(&with("hostNetwork", json!(true))), Reason::OnHostNetwork);
    let windows = with("os", json!({"name": "windows"}));
    assert_eq!(reason(&windows), Reason::NotLinux("windows".to_owned()));
    injected(&with("hostNetwork", json!(false)), &[]);
    injected(&with("os", json!({"name": "linux"})), &[]);
    for resources in
        [json!({"requests": {"memory": "1Gi"}}), json!({"limits": {"cpu": 1}, "requests": {}})]
    {
        assert_eq!(reason(&with("resources", resources)), Reason::OwnResources);
    }
    for none in [json!(null), json!({}), json!({"requests": {}, "limits": null, "claims": []})] {
        injected(&with("resources", none), &[]);
    }
    let taken = with("containers", json!([{"name": "a"}, {"name": "larder"}]));
    assert_eq!(reason(&taken), Reason::AlreadyThere);
}

#[test]
fn what_is_no_pod_is_said_to_be_none() {
    for (spec, expected) in [
        (json!(5), "`spec` is a number, not a mapping"),
        (json!(null), "`spec` is missing"),
        (json!({}), "`spec.containers` is missing"),
        (json!({"containers": 5}), "`spec.containers` is a number, not a list"),
        (json!({"containers": [null]}), "`spec.containers[0]` is empty, not a mapping"),
        (json!({"containers": [{"env": {}}]}), "`spec.containers[0].env` is a mapping, not a list"),
        (json!({"containers": [{}], "volumes": "x"}), "`spec.volumes` is text, not a list"),
    ] {
        let pod = json!({"spec": spec});
        let text = reason(&pod).to_string();
        assert!(text.ends_with(expected), "{text}");
    }
    assert!(matches!(reason(&json!([])), Reason::Malformed(_)));
}

#[test]
fn null_is_as_absent() {
    let pod = json!({"metadata": null, "spec": {
        "initContainers": null, "volumes": null,
        "containers": [{"name": "a", "env": null, "volumeMounts": null}],
    }});
    let after = injected(&pod, &[]);
    assert_eq!(after["spec"]["initContainers"], json!([sidecar()]));
    assert_eq!(after["spec"]["containers"][0]["env"].as_array().unwrap().len(), 4);
    assert_eq!(after["metadata"], json!({"annotations": {names::INJECTED: "webhook"}}));
}

#[test]
fn the_command_line_brings_its_own_up_to_date() {
    let through_cli = |pod: &Value, settings: &[(&str, &str)]| {
        let settings = Settings::from_pairs(settings.iter().copied()).unwrap();
        match inject(pod, &settings, Way::Cli) {
            Outcome::Injected { patch, warnings } => {
                let mut after = pod.clone();
                patch.apply(&mut after).unwrap();
                (after, patch, warnings)
            }
            Outcome::Unchanged(reason) => panic!("{reason}"),
        }
    };
    let mut pod = pod("create.json");
    pod["spec"]["initContainers"] = json!([{"name": "istio-proxy"}, {"name": "load"}]);
    let (once, ..) = through_cli(&pod, &[]);
    let (twice, patch, _) = through_cli(&once, &[]);
    assert!(patch.is_empty() && twice == once);

    let (newer, patch, warnings) =
        through_cli(&once, &[("image", "x:2"), ("disk", "1Gi"), ("config", "other")]);
    assert_eq!(patch.0.len(), 2, "the container, and the disk's volume");
    assert_eq!(newer["spec"]["initContainers"][1]["image"], "x:2");
    assert!(matches!(&warnings[..], [one] if one.starts_with("volume larder-config: ")));
    let (back, ..) = through_cli(&newer, &[]);
    assert_eq!(back["spec"]["initContainers"], once["spec"]["initContainers"]);

    // As an API server gives them back.
    let mut from_cluster = newer.clone();
    for volume in from_cluster["spec"]["volumes"].as_array_mut().unwrap() {
        match volume["name"].as_str().unwrap() {
            "larder-config" => volume["configMap"]["defaultMode"] = json!(420),
            "larder-disk" => volume["emptyDir"]["sizeLimit"] = json!("1Gi"),
            _ => {}
        }
    }
    let asked = [("image", "x:2"), ("disk", "1024Mi"), ("config", "larder")];
    let (_, _, warnings) = through_cli(&from_cluster, &asked);
    assert_eq!(warnings, [""; 0]);
    let (_, _, warnings) = through_cli(&from_cluster, &[("disk", "2Gi"), ("config", "other")]);
    assert_eq!(warnings.len(), 2, "{warnings:?}");

    let (meshed, _, warnings) = through_cli(&once, &[("store-ports", "6379")]);
    assert_eq!(warnings, [""; 0]);
    let (same, _, warnings) = through_cli(&meshed, &[("store-ports", "6379")]);
    assert_eq!((&same, warnings), (&meshed, vec![]));
    let (same, _, warnings) = through_cli(&meshed, &[("store-ports", "9042")]);
    assert_eq!(same, meshed);
    for (warning, name) in warnings.iter().zip(names::MESH_PORT_ANNOTATIONS) {
        let start = format!("annotation {name}: it differs from what the settings ask for");
        assert!(warning.starts_with(&start), "{warning}");
    }
    assert_eq!(warnings.len(), 2);

    let mut guaranteed = once.clone();
    guaranteed["spec"]["initContainers"] = json!([once["spec"]["initContainers"][1]]);
    for container in guaranteed["spec"]["containers"].as_array_mut().unwrap() {
        container["resources"] = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
    }
    let (guaranteed, ..) = through_cli(&guaranteed, &[]);
    let resources = &guaranteed["spec"]["initContainers"][0]["resources"];
    assert_eq!(
        resources["limits"],
        json!({"cpu": "100m", "memory": "256Mi"}),
        "larder's own do not count"
    );

    for way in ["policy", "webhook"] {
        let mut other = once.clone();
        other["metadata"]["annotations"][names::INJECTED] = json!(way);
        let outcome = inject(&other, &Settings::default(), Way::Cli);
        assert_eq!(outcome, Outcome::Unchanged(Reason::AlreadyThere));
    }
    assert_eq!(reason(&once), Reason::AlreadyThere, "the webhook leaves it alone");
}

mod hostile {
    use proptest::prelude::*;

    use super::*;

    fn anything() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "\\PC{0,8}".prop_map(Value::from),
            Just(json!("enabled")),
            Just(json!("larder")),
            Just(json!("cli")),
        ];
        let key = prop_oneof![
            Just("metadata"),
            Just("labels"),
            Just("annotations"),
            Just("larder.dev/inject"),
            Just("larder.dev/injected"),
            Just("larder.dev/containers"),
            Just("larder.dev/disk"),
            Just("spec"),
            Just("containers"),
            Just("initContainers"),
            Just("volumes"),
            Just("volumeMounts"),
            Just("mountPath"),
            Just("env"),
            Just("name"),
            Just("resources"),
            Just("limits"),
            Just("cpu"),
            Just("os"),
        ];
        leaf.prop_recursive(6, 64, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(key.clone().prop_map(str::to_owned), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    const MANIFEST: &str = "\u{feff}# é\r
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Pod
  metadata: {labels: {larder.dev/inject: enabled}}
  spec:
    initContainers: &unused
    -  name: istio-init # ü
    containers: [{name: a, env: [ {name: b} ,]}, ]
    volumes: ~
- apiVersion: batch/v1
  kind: Job
  spec:
    template:
      metadata:
        labels:
          larder.dev/inject: enabled
      spec:
        containers:
          - name: x
            env:
              - {name: A, value: c}
              - name: T
                value: |+
                  text

          -
            name: y
        volumes: []
...
---
a: b";

    #[test]
    fn the_manifest_that_is_broken_below_is_good() {
        let manifest = inject_manifest(MANIFEST, &Settings::default(), false).unwrap();
        assert_eq!((manifest.changed.len(), manifest.asked), (2, 2));
    }

    proptest! {
        #[test]
        fn no_manifest_breaks_it(
            edits in prop::collection::vec(
                (any::<prop::sample::Index>(), 0_usize..12, "[-:#&*|>{}\\[\\]'\"\r\n ,~?!%é]{0,3}"),
                0..5,
            ),
            text in "[-:#&*|>{}\\[\\]'\"\r\n ,~?!%éab<]{0,60}",
        ) {
            let mut manifest: Vec<char> = MANIFEST.chars().collect();
            for (place, length, new) in edits {
                let start = place.index(manifest.len() + 1);
                let end = (start + length).min(manifest.len());
                manifest.splice(start..end, new.chars());
            }
            let manifest: String = manifest.into_iter().collect();
            let settings = Settings::default();
            for text in [manifest, text] {
                if let Ok(once) = inject_manifest(&text, &settings, false) {
                    let again = inject_manifest(&once.text, &settings, false);
                    let again = again.map(|again| again.text);
                    prop_assert_eq!(again.as_ref(), Ok(&once.text));
                }
            }
        }

        #[test]
        fn no_pod_breaks_it(
            value in anything(),
            metadata in anything(),
            containers in prop::collection::vec(anything(), 0..3),
            init_containers in anything(),
        ) {
            let likely = json!({
                "metadata": metadata,
                "spec": {"containers": containers, "initContainers": init_containers},
            });
            for pod in [value, likely] {
                asks(&pod);
                for way in [Way::Cli, Way::Webhook] {
                    let outcome = inject(&pod, &Settings::default(), way);
                    if let Outcome::Injected { patch, .. } = outcome {
                        let mut after = pod.clone();
                        prop_assert!(patch.apply(&mut after).is_ok());
                        // Once is enough.
                        match inject(&after, &Settings::default(), way) {
                            Outcome::Injected { patch, .. } => prop_assert!(patch.is_empty()),
                            Outcome::Unchanged(reason) => {
                                prop_assert_eq!(reason, Reason::AlreadyThere);
                            }
                        }
                    }
                }
            }
        }
    }
}
