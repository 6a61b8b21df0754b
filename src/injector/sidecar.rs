//! larder into a pod: the one description that the command line and the webhook share.
//!
//! ```text
//!  pod + settings of the platform + annotations of the pod -> patch + what is to be said
//! ```

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::{
    names,
    patch::{Patch, Path, Tree},
    pod::{self, Malformed, Pod},
    quantity::Quantity,
    settings::{Key, Settings, shortened, suggestion},
    stale,
};

/// By which way larder comes into the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `larder inject`.
    Cli,
    /// `larder injector`.
    Webhook,
}

/// What is to be done with a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is to have larder.
    Injected {
        /// The changes; none if larder is in it as it should be.
        patch: Patch,
        /// What of the pod's annotations could not be followed, a sentence each.
        warnings: Vec<String>,
    },
    /// It is left as it is.
    Unchanged(Reason),
}

/// Why a pod is left as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Nothing to say: this is what a second pass meets.
    #[error("it has a container `larder` already")]
    AlreadyThere,
    /// larder's image is for Linux.
    #[error("its operating system is `{0}`, and larder needs linux")]
    NotLinux(String),
    /// larder's ports would collide with those of the next pod.
    #[error("it is on the network of its node (hostNetwork), where larder's ports may be taken")]
    OnHostNetwork,
    /// Its requests and limits are the pod's, where the API server takes no container for which
    /// there is no room. Whether there is cannot be told: by the time that a webhook sees the pod,
    /// requests that it did not have are the sum of its containers'.
    #[error(
        "it has resources of its own (spec.resources), in which there may be no room for larder"
    )]
    OwnResources,
    /// The API server would not take it.
    #[error("it is no pod that Kubernetes would take: {0}")]
    Malformed(#[from] Malformed),
}

/// Of things that mean nothing so many are named; whoever wrote the pod decides how many there are.
const MAX_NAMED: usize = 16;

/// What is longer, in bytes, was not meant to be one of larder's keys.
const MAX_LIKE_A_KEY: usize = 64;

/// Whether a pod, or a pod template, has the label by which it asks for larder.
pub fn asks(pod: &Value) -> bool {
    let label =
        pod.get("metadata").and_then(|metadata| metadata.get("labels")?.get(names::ASK_LABEL));
    label.and_then(Value::as_str) == Some(names::ASK_VALUE)
}

/// Decides what to change in a pod, or a pod template, whether it [`asks`] or not.
///
/// What the command line injected before is brought up to date by it; what came in by another way
/// is left alone.
pub fn inject(pod: &Value, settings: &Settings, way: Way) -> Outcome {
    try_inject(pod, settings, way).unwrap_or_else(Outcome::Unchanged)
}

fn try_inject(pod: &Value, settings: &Settings, way: Way) -> Result<Outcome, Reason> {
    let pod = Pod::read(pod)?;
    let mine = pod.annotation(names::INJECTED) == Some(Ok(Way::Cli.name())) && way == Way::Cli;
    let known = pod.larder();
    let taken = pod.containers.iter().any(|container| pod::name(container) == names::CONTAINER);
    if taken || (known.is_some() && !mine) {
        return Err(Reason::AlreadyThere);
    }
    if let Some(os) = pod.os().filter(|os| *os != "linux") {
        return Err(Reason::NotLinux(shortened(os)));
    }
    if pod.is_on_host_network() {
        return Err(Reason::OnHostNetwork);
    }
    if pod.has_resources() {
        return Err(Reason::OwnResources);
    }

    let (wanted, mut warnings) = wanted(&pod, settings);
    let mut patch = Patch::default();
    let metadata = Path::default().key("metadata");
    let spec = Path::default().key("spec");
    add_annotations(&mut patch, &pod, &metadata, annotations(&pod, &wanted, way));
    let sidecar = container(&wanted, pod.is_guaranteed());
    match known {
        Some(place) if Value::Object(pod.init_containers()[place].clone()) == sidecar.to_json() => {
        }
        Some(place) => patch.replace(spec.key("initContainers").index(place), sidecar),
        None => {
            let path = spec.key("initContainers");
            match &pod.init_containers {
                Some(containers) => patch.add(path.index(behind_meshes(containers)), sidecar),
                None => patch.add(path, Tree::List(vec![sidecar])),
            }
        }
    }
    let volumes = volumes(&wanted);
    if known.is_some() {
        warnings.extend(stale::annotations(&pod, &wanted));
        warnings.extend(stale::volumes(&pod, &volumes));
    }
    append(&mut patch, &spec.key("volumes"), pod.volumes.is_some(), missing(&pod, volumes));
    let clients = clients(&pod, &mut warnings);
    for (place, client) in pod.containers.iter().enumerate() {
        if clients.is_empty() || clients.contains(pod::name(client)) {
            connect(&mut patch, client, &spec.key("containers").index(place))?;
        }
    }
    Ok(Outcome::Injected { patch, warnings })
}

/// The settings, with the pod's annotations over them.
fn wanted(pod: &Pod<'_>, settings: &Settings) -> (Settings, Vec<String>) {
    let mut wanted = settings.clone();
    let mut warnings = Vec::new();
    for key in Key::ALL {
        let annotation = format!("{}{}", names::PREFIX, key.name());
        let bad = match pod.annotation(&annotation) {
            None => continue,
            Some(Ok(text)) if wanted.set(key, text) => continue,
            Some(Ok(text)) => format!("`{}`", shortened(text)),
            Some(Err(_)) => "something that is no text".to_owned(),
        };
        let instead = match settings.get(key) {
            Some(value) => format!("`{}` is used", shortened(value)),
            None => "it is left out".to_owned(),
        };
        let expected = key.expected();
        warnings
            .push(format!("annotation {annotation}: expected {expected}, got {bad}; {instead}"));
    }
    warnings.extend(unknown_annotations(pod));
    (wanted, warnings)
}

fn unknown_annotations(pod: &Pod<'_>) -> Vec<String> {
    let mut known = Key::ALL.map(Key::name).to_vec();
    known.push(&names::CONTAINERS[names::PREFIX.len()..]);
    let injected = &names::INJECTED[names::PREFIX.len()..];
    let ask = &names::ASK_LABEL[names::PREFIX.len()..];
    let annotations = pod.annotations.into_iter().flat_map(Map::keys);
    let ours = annotations.filter_map(|name| name.strip_prefix(names::PREFIX));
    ours.filter(|name| !known.contains(name) && *name != injected)
        .take(MAX_NAMED)
        .map(|name| {
            let hint = if name == ask {
                "; it is a label by which a pod asks for larder".to_owned()
            } else if name.len() > MAX_LIKE_A_KEY {
                String::new()
            } else {
                suggestion(name, &known)
            };
            format!("annotation {}{}: it means nothing{hint}", names::PREFIX, shortened(name))
        })
        .collect()
}

/// The names of the containers that are to be clients; none means all.
///
/// The list may be as long as a pod: it is gone through once, and nothing is kept of it but names
/// of containers, and what is to be said.
fn clients<'a>(pod: &Pod<'a>, warnings: &mut Vec<String>) -> HashSet<&'a str> {
    let list = match pod.annotation(names::CONTAINERS) {
        None => return HashSet::new(),
        Some(Ok(list)) => list,
        Some(Err(_)) => {
            let name = names::CONTAINERS;
            warnings.push(format!("annotation {name}: expected names, got something that is no text; all containers are larder's clients"));
            return HashSet::new();
        }
    };
    let containers: HashSet<_> =
        pod.containers.iter().map(|container| pod::name(container)).collect();
    let (mut known, mut unknown) = (HashSet::new(), Vec::new());
    for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if containers.contains(name) {
            known.insert(name);
        } else if unknown.len() < MAX_NAMED {
            unknown.push(format!("`{}`", shortened(name)));
        }
    }
    if !unknown.is_empty() {
        let otherwise = if known.is_empty() { "; all containers are larder's clients" } else { "" };
        warnings.push(format!(
            "annotation {}: the pod has no container {}{otherwise}",
            names::CONTAINERS,
            unknown.join(", "),
        ));
    }
    known
}

fn annotations(pod: &Pod<'_>, wanted: &Settings, way: Way) -> Vec<(String, Tree)> {
    let mut annotations = Vec::new();
    if pod.annotation(names::INJECTED) != Some(Ok(way.name())) {
        annotations.push((names::INJECTED.to_owned(), way.name().into()));
    }
    if let Some(ports) = wanted.get(Key::StorePorts) {
        let unset =
            names::MESH_PORT_ANNOTATIONS.iter().filter(|name| pod.annotation(name).is_none());
        annotations.extend(unset.map(|name| ((*name).to_owned(), ports.into())));
    }
    annotations
}

fn add_annotations(
    patch: &mut Patch,
    pod: &Pod<'_>,
    metadata: &Path,
    annotations: Vec<(String, Tree)>,
) {
    if annotations.is_empty() {
        return;
    }
    let path = metadata.key("annotations");
    if pod.annotations.is_some() {
        for (name, value) in annotations {
            patch.add(path.key(&name), value);
        }
    } else if pod.has_metadata {
        patch.add(path, Tree::Map(annotations));
    } else {
        patch.add(metadata.clone(), Tree::map([("annotations", Tree::Map(annotations))]));
    }
}

/// Behind what a mesh needs to be up, before everything else.
fn behind_meshes(init_containers: &[&Map<String, Value>]) -> usize {
    let is_mesh =
        |container: &&Map<String, Value>| names::MESH_CONTAINERS.contains(&pod::name(container));
    init_containers.iter().rposition(is_mesh).map_or(0, |last| last + 1)
}

/// The container, its fields in the order in which one would write them.
fn container(wanted: &Settings, guaranteed: bool) -> Tree {
    let mut fields: Vec<(&str, Tree)> = vec![
        ("name", names::CONTAINER.into()),
        ("image", wanted.required(Key::Image).into()),
        ("restartPolicy", "Always".into()),
        (
            "args",
            Tree::texts([
                "serve",
                "--chdir",
                names::CONFIG_PATH,
                "--on-bad-config",
                "wait",
                "--listen",
                names::ADDRESS,
                "--listen",
                &format!("unix:{}", names::SOCKET),
                "--listen",
                names::ABSTRACT_SOCKET,
                "--admin",
                &format!(":{}", names::ADMIN_PORT),
            ]),
        ),
        ("env", Tree::List(own_env(wanted))),
    ];
    if let Some(secret) = wanted.get(Key::EnvFrom) {
        let secret = Tree::map([("name", secret.into()), ("optional", true.into())]);
        fields.push(("envFrom", Tree::List(vec![Tree::map([("secretRef", secret)])])));
    }
    fields.extend([
        (
            "ports",
            Tree::List(vec![Tree::map([
                ("name", names::ADMIN_PORT_NAME.into()),
                ("containerPort", names::ADMIN_PORT.into()),
            ])]),
        ),
        ("resources", resources(wanted, guaranteed)),
        (
            "startupProbe",
            Tree::map([
                (
                    "exec",
                    Tree::map([(
                        "command",
                        Tree::texts(["/larder", "ready", "--socket", names::SOCKET]),
                    )]),
                ),
                ("periodSeconds", 1.into()),
                ("timeoutSeconds", 2.into()),
                ("failureThreshold", 120.into()),
            ]),
        ),
        (
            "securityContext",
            Tree::map([
                ("allowPrivilegeEscalation", false.into()),
                ("readOnlyRootFilesystem", true.into()),
                ("runAsNonRoot", true.into()),
                ("runAsUser", names::USER.into()),
                ("capabilities", Tree::map([("drop", Tree::texts(["ALL"]))])),
                ("seccompProfile", Tree::map([("type", "RuntimeDefault".into())])),
            ]),
        ),
        ("terminationMessagePolicy", "FallbackToLogsOnError".into()),
        ("volumeMounts", Tree::List(own_mounts(wanted))),
    ]);
    Tree::Map(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn own_env(wanted: &Settings) -> Vec<Tree> {
    let resource = |name: &str, resource: &str| {
        let field =
            Tree::map([("containerName", names::CONTAINER.into()), ("resource", resource.into())]);
        Tree::map([("name", name.into()), ("valueFrom", Tree::map([("resourceFieldRef", field)]))])
    };
    let mut env = vec![
        // Whole cores, rounded up by the kubelet; bytes.
        resource("LARDER_CPU", "requests.cpu"),
        resource("LARDER_MEMORY", "limits.memory"),
        // Containers have users of their own: who mounts the volume is the boundary.
        variable("LARDER_UNIX_SOCKET_MODE", "0666"),
    ];
    if wanted.get(Key::Disk).is_some() {
        let copy = format!("{}/registry.pb", names::DISK_PATH);
        env.push(variable("LARDER_REGISTRY__DISK_COPY", &copy));
    }
    if let Some(level) = wanted.get(Key::LogLevel) {
        env.push(variable("LARDER_LOG__LEVEL", level));
    }
    env
}

fn own_mounts(wanted: &Settings) -> Vec<Tree> {
    let mut mounts = vec![
        Tree::map([("name", names::RUN_VOLUME.into()), ("mountPath", names::RUN_PATH.into())]),
        Tree::map([
            ("name", names::CONFIG_VOLUME.into()),
            ("mountPath", names::CONFIG_PATH.into()),
            ("readOnly", true.into()),
        ]),
    ];
    if wanted.get(Key::Disk).is_some() {
        mounts.push(Tree::map([
            ("name", names::DISK_VOLUME.into()),
            ("mountPath", names::DISK_PATH.into()),
        ]));
    }
    mounts
}

fn variable(name: &str, value: &str) -> Tree {
    Tree::map([("name", name.into()), ("value", value.into())])
}

fn resources(wanted: &Settings, guaranteed: bool) -> Tree {
    let memory_limit = wanted.required(Key::MemoryLimit);
    let cpu_request = wanted.required(Key::CpuRequest);
    let cpu_limit = wanted.get(Key::CpuLimit);
    if guaranteed {
        let cpu = cpu_limit.unwrap_or(cpu_request);
        let both = || Tree::map([("cpu", cpu.into()), ("memory", memory_limit.into())]);
        return Tree::map([("requests", both()), ("limits", both())]);
    }
    let cpu_request = cpu_limit.map_or(cpu_request, |limit| smaller(cpu_request, limit));
    let memory_request = smaller(wanted.required(Key::MemoryRequest), memory_limit);
    let requests = Tree::map([("cpu", cpu_request.into()), ("memory", memory_request.into())]);
    let limits = match cpu_limit {
        Some(cpu) => Tree::map([("cpu", cpu.into()), ("memory", memory_limit.into())]),
        None => Tree::map([("memory", memory_limit.into())]),
    };
    Tree::map([("requests", requests), ("limits", limits)])
}

/// The smaller of two amounts, as it was written; the first if they are equal.
fn smaller<'a>(a: &'a str, b: &'a str) -> &'a str {
    if Quantity::parse(b) < Quantity::parse(a) { b } else { a }
}

/// The volumes, each with its name.
fn volumes(wanted: &Settings) -> Vec<(&'static str, Tree)> {
    let named = |name: &'static str, kind, source| {
        (name, Tree::map([("name", name.into()), (kind, source)]))
    };
    let memory = Tree::map([("medium", "Memory".into()), ("sizeLimit", "1Mi".into())]);
    let config =
        Tree::map([("name", wanted.required(Key::Config).into()), ("optional", true.into())]);
    let mut volumes = vec![
        named(names::RUN_VOLUME, "emptyDir", memory),
        named(names::CONFIG_VOLUME, "configMap", config),
    ];
    if let Some(size) = wanted.get(Key::Disk) {
        let disk = Tree::map([("sizeLimit", size.into())]);
        volumes.push(named(names::DISK_VOLUME, "emptyDir", disk));
    }
    volumes
}

/// Those that the pod does not bring itself.
fn missing(pod: &Pod<'_>, volumes: Vec<(&'static str, Tree)>) -> Vec<Tree> {
    let has = |name: &str| pod.volumes.iter().flatten().any(|volume| pod::name(volume) == name);
    volumes.into_iter().filter(|(name, _)| !has(name)).map(|(_, volume)| volume).collect()
}

/// Makes a container a client: variables that say where larder is, and the volume with its socket.
fn connect(patch: &mut Patch, client: &Map<String, Value>, at: &Path) -> Result<(), Malformed> {
    let env = pod::objects(client, "env", at)?;
    let mounts = pod::objects(client, "volumeMounts", at)?;
    let variables = [
        ("LARDER_ADDRESS", names::ADDRESS.to_owned()),
        ("LARDER_URL", format!("http://{}", names::ADDRESS)),
        ("LARDER_SOCKET", names::SOCKET.to_owned()),
        ("LARDER_ABSTRACT", names::ABSTRACT_SOCKET.to_owned()),
    ];
    let has = |name: &str| env.iter().flatten().any(|variable| pod::name(variable) == name);
    let unset = variables.iter().filter(|(name, _)| !has(name));
    let unset = unset.map(|(name, value)| variable(name, value)).collect();
    append(patch, &at.key("env"), env.is_some(), unset);

    let is_run = |mount: &&Map<String, Value>| {
        mount.get("mountPath").and_then(Value::as_str) == Some(names::RUN_PATH)
    };
    if !mounts.iter().flatten().any(is_run) {
        let mount = Tree::map([
            ("name", names::RUN_VOLUME.into()),
            ("mountPath", names::RUN_PATH.into()),
            ("readOnly", true.into()),
        ]);
        append(patch, &at.key("volumeMounts"), mounts.is_some(), vec![mount]);
    }
    Ok(())
}

/// Puts values behind those of a list, which is made if it is not there.
fn append(patch: &mut Patch, list: &Path, exists: bool, values: Vec<Tree>) {
    if exists {
        values.into_iter().for_each(|value| patch.add(list.end(), value));
    } else if !values.is_empty() {
        patch.add(list.clone(), Tree::List(values));
    }
}

impl Way {
    /// Its name in the annotation.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cli => "cli",
            Self::Webhook => "webhook",
        }
    }
}
