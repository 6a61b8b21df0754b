//! The names that larder has in a pod. They are an interface: changing one breaks manifests.

/// Labels and annotations of larder's begin with this.
pub const PREFIX: &str = "larder.dev/";
/// The label by which a pod asks for larder.
pub const ASK_LABEL: &str = "larder.dev/inject";
/// The value that the label must have.
pub const ASK_VALUE: &str = "enabled";
/// The annotation that says by which way larder came into the pod.
pub const INJECTED: &str = "larder.dev/injected";
/// The annotation that names the containers that are to be larder's clients.
pub const CONTAINERS: &str = "larder.dev/containers";

/// The image, unless the settings name one.
pub const DEFAULT_IMAGE: &str = concat!("larder:", env!("CARGO_PKG_VERSION"));
/// The container.
pub const CONTAINER: &str = "larder";
/// The container's port for health and metrics.
pub const ADMIN_PORT_NAME: &str = "larder-admin";
/// Its number.
pub const ADMIN_PORT: u64 = 6567;
/// The container's user: one that is not root.
pub const USER: u64 = 65532;

/// The volume with the socket.
pub const RUN_VOLUME: &str = "larder-run";
/// Where it is mounted.
pub const RUN_PATH: &str = "/run/larder";
/// The socket in it.
pub const SOCKET: &str = "/run/larder/larder.sock";
/// The abstract socket, which needs no volume.
pub const ABSTRACT_SOCKET: &str = "unix-abstract:larder";
/// Where features are served over TCP, within the pod.
pub const ADDRESS: &str = "127.0.0.1:6566";
/// The volume with `feature_store.yaml` and `larder.yaml`.
pub const CONFIG_VOLUME: &str = "larder-config";
/// Where it is mounted.
pub const CONFIG_PATH: &str = "/etc/larder";
/// The volume that keeps the registry.
pub const DISK_VOLUME: &str = "larder-disk";
/// Where it is mounted.
pub const DISK_PATH: &str = "/var/lib/larder";

/// Init containers of meshes: larder starts behind the last of them, so that it is in the mesh.
pub const MESH_CONTAINERS: [&str; 6] = [
    "istio-init",
    "istio-validation",
    "istio-proxy",
    "linkerd-init",
    "linkerd-network-validator",
    "linkerd-proxy",
];
/// Annotations of meshes that list ports which bypass their proxies.
pub const MESH_PORT_ANNOTATIONS: [&str; 2] =
    ["traffic.sidecar.istio.io/excludeOutboundPorts", "config.linkerd.io/skip-outbound-ports"];
