"""Pods that are made on each way into the cluster, and what is to become of them."""

from dataclasses import dataclass

ASKS = {"larder.dev/inject": "enabled"}
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
APP = {"name": "app", "image": "registry.example/model:1"}
STEP = {"name": "download", "image": "registry.example/download:1"}
ISTIO = [
    {"name": "istio-init", "image": "registry.example/istio:1"},
    {"name": "istio-proxy", "image": "registry.example/istio:1", "restartPolicy": "Always"},
]
LINKERD = [
    {"name": "linkerd-init", "image": "registry.example/linkerd:1"},
    {"name": "linkerd-network-validator", "image": "registry.example/linkerd:1"},
    {"name": "linkerd-proxy", "image": "registry.example/linkerd:1", "restartPolicy": "Always"},
]
LOCKED = {
    "allowPrivilegeEscalation": False,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
ADDRESS = {"name": "LARDER_ADDRESS", "value": "unix:/elsewhere.sock"}
HOST = {
    "name": "LARDER_URL",
    "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP", "apiVersion": "v1"}},
}
MOUNT = {"name": "own", "mountPath": "/run/larder"}
OWN_RUN = {"name": "larder-run", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}}
OWN_CONFIG = {
    "name": "larder-config",
    "projected": {"sources": [{"secret": {"name": "larder"}}, {"configMap": {"name": "more"}}]},
}
VARIABLES = [{"name": f"VARIABLE_{number}", "value": "1"} for number in range(100)]
LARGE = [{**APP, "name": f"app-{number}", "env": VARIABLES} for number in range(30)]
THREE = [{**APP, "name": name} for name in "abc"]


@dataclass
class Case:
    """A pod, its annotations that are not valid, and what becomes of it.

    Larder is added, unless the pod is `left` as it is; `why` is a word of what is said of that.
    It may also be `refused`, by a namespace's rule that the message names.
    """

    pod: dict
    bad: tuple = ()
    left: bool = False
    why: str = ""
    namespace: str = "default"
    refused: str = ""


def pod(annotations=None, labels=ASKS, metadata=None, **spec):
    about = {"name": "model", "labels": labels} | (metadata or {})
    if annotations is not None:
        about["annotations"] = {
            key if "/" in key else f"larder.dev/{key}": value for key, value in annotations.items()
        }
    return {"metadata": about, "spec": {"containers": [APP], **spec}}


def resources(limits=None, requests=None):
    both = {"limits": limits, "requests": requests}
    return {"resources": {name: value for name, value in both.items() if value}}


def app(**more):
    return [{**APP, **more}]


FULL = resources({"cpu": "1", "memory": "1Gi"})
OWNER = {
    "apiVersion": "apps/v1",
    "kind": "ReplicaSet",
    "name": "model-7c9d",
    "uid": "7d8c9a5e-0000-4000-8000-000000000000",
    "controller": True,
}
EVERYTHING = {
    "image": "registry.example:5000/team/larder@sha256:" + "a" * 64,
    "config": "features.v2",
    "env-from": "store-password",
    "cpu-request": "250m",
    "cpu-limit": "2",
    "memory-request": "128Mi",
    "memory-limit": "1Gi",
    "disk": "64Mi",
    "store-ports": "6379,9042",
    "log-level": "debug",
    "containers": "app",
}

CASES = {
    "plain": Case(pod()),
    "without volumes and mounts": Case(pod(automountServiceAccountToken=False)),
    "made by a ReplicaSet": Case(
        pod(metadata={"name": None, "generateName": "model-7c9d-", "ownerReferences": [OWNER]})
    ),
    "not asked for": Case(pod(labels={}), left=True),
    "asked for by another word": Case(pod(labels={"larder.dev/inject": "yes"}), left=True),
    "with the author's annotations": Case(
        pod({"example.com/team": "rides", "injected": "long ago"})
    ),
    # Place.
    "with init containers": Case(pod(initContainers=[STEP])),
    "behind Istio": Case(pod(initContainers=ISTIO)),
    "behind Istio, before the rest": Case(pod(initContainers=[*ISTIO, STEP])),
    "behind Linkerd": Case(pod(initContainers=[STEP, *LINKERD, {**STEP, "name": "last"}])),
    # What the author brings.
    "own volumes": Case(pod(volumes=[OWN_RUN, OWN_CONFIG])),
    "own volumes and disk": Case(
        pod(
            {"disk": "1Gi"},
            volumes=[{"name": "larder-disk", "emptyDir": {}}, {"name": "other", "emptyDir": {}}],
        )
    ),
    "own mount": Case(
        pod(containers=app(volumeMounts=[MOUNT]), volumes=[{"name": "own", "emptyDir": {}}])
    ),
    "own variables": Case(pod(containers=app(env=[{"name": "A", "value": "1"}, ADDRESS, HOST]))),
    "a variable twice": Case(
        pod(containers=app(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]))
    ),
    "init container called like a volume": Case(
        pod(initContainers=[{**STEP, "name": "larder-run"}])
    ),
    # Containers.
    "several containers": Case(pod(containers=THREE)),
    "a large pod": Case(pod(EVERYTHING | {"containers": "app-29,app-3"}, containers=LARGE)),
    "a large pod, all of it": Case(pod(containers=LARGE, initContainers=[STEP, *ISTIO])),
    "one of several": Case(pod({"containers": "b"}, containers=THREE)),
    "some of several": Case(pod({"containers": " c, ,a ,"}, containers=THREE)),
    "no container named": Case(pod({"containers": ""}, containers=THREE)),
    "an unknown container": Case(pod({"containers": "a,z"}, containers=THREE), bad=("containers",)),
    "unknown containers only": Case(
        pod({"containers": "y,z"}, containers=THREE), bad=("containers",)
    ),
    # Guaranteed pods stay so.
    "Guaranteed": Case(pod(containers=app(**FULL))),
    "Guaranteed, spelled otherwise": Case(
        pod(
            containers=app(
                **resources({"cpu": "1", "memory": "1Gi"}, {"cpu": "1000m", "memory": "1024Mi"})
            )
        )
    ),
    "Guaranteed with init containers": Case(
        pod(containers=app(**FULL), initContainers=[{**STEP, **FULL}])
    ),
    "Guaranteed with its own limits": Case(
        pod({"cpu-limit": "2", "memory-limit": "1Gi"}, containers=app(**FULL))
    ),
    "Guaranteed but for an init container": Case(
        pod(containers=app(**FULL), initContainers=[STEP])
    ),
    "Guaranteed but for a request": Case(
        pod(containers=app(**resources({"cpu": "1", "memory": "1Gi"}, {"cpu": "500m"})))
    ),
    "limited in memory only": Case(pod(containers=app(**resources({"memory": "1Gi"})))),
    "limited to nothing": Case(pod(containers=app(**resources({"cpu": "0", "memory": "0"})))),
    # Settings.
    "everything": Case(pod(EVERYTHING)),
    "everything optional switched off": Case(
        pod({key: "" for key in ("env-from", "cpu-limit", "disk", "store-ports", "log-level")})
    ),
    "limits below requests": Case(pod({"cpu-limit": "10m", "memory-limit": "16Mi"})),
    "requests above limits": Case(
        pod({"cpu-request": "3", "cpu-limit": "2", "memory-request": "1Gi"})
    ),
    "an annotation that means nothing": Case(pod({"memory-limt": "1Gi"}), bad=("memory-limt",)),
    "store ports beside the author's": Case(
        pod({"store-ports": "6379", "traffic.sidecar.istio.io/excludeOutboundPorts": "80"})
    ),
    # Not there.
    "injected already": Case(
        pod({"cpu-request": "200m"}, initContainers=[{**STEP, "name": "larder"}]), left=True
    ),
    "a container of the name": Case(pod(containers=[APP, {**APP, "name": "larder"}]), left=True),
    "on the node's network": Case(pod(hostNetwork=True), left=True, why="network"),
    "on Windows": Case(pod(os={"name": "windows"}), left=True, why="linux"),
    "on Linux": Case(pod(os={"name": "linux"})),
    "with requests of its own": Case(
        pod(resources={"requests": {"cpu": "1", "memory": "1Gi"}}), left=True, why="spec.resources"
    ),
    # The API server adds requests for it, as far as its containers have none.
    "with limits of its own": Case(
        pod(
            resources={"limits": {"memory": "1Gi"}},
            containers=app(**resources(requests={"memory": "1Gi"})),
        ),
        left=True,
        why="spec.resources",
    ),
    "with no resources of its own": Case(pod(resources={})),
    "bad, and not there": Case(
        pod({"cpu-request": "lots"}, hostNetwork=True),
        bad=("cpu-request",),
        left=True,
        why="network",
    ),
    # What a namespace demands.
    "restricted": Case(
        pod({"disk": "1Gi"}, containers=app(securityContext=LOCKED)), namespace="restricted"
    ),
    "over the quota": Case(
        pod(containers=app(**FULL), initContainers=[{**STEP, **resources({"cpu": "1"})}]),
        namespace="quota",
        refused="limits.cpu",
    ),
    "within the quota": Case(
        pod(
            {"cpu-limit": "1"},
            containers=app(**FULL),
            initContainers=[{**STEP, **resources({"cpu": "1"})}],
        ),
        namespace="quota",
    ),
    "filled in by a limit range": Case(pod(), namespace="limited"),
}

GOOD = {
    "image": ["a", "larder:1", "9.9.9.9:5000/x/y_z:1.0-rc.1", "a" * 512],
    "config": ["a", "a-b.c0", "9", "a--b.0", "a" * 253],
    "env-from": ["a", "a.b-c"],
    "cpu-request": ["1", "0.1", ".5", "+1", "1e-1", "1500m", "1.5"],
    "cpu-limit": ["1", "250m"],
    "memory-request": ["1", "1k", "1Ki", "1e6", "1E3", "12345678", "32.5Mi", "1048576".zfill(32)],
    "memory-limit": ["1Gi", "64M", "1.5Gi", "268435456", "2e9"],
    "disk": ["1", "1Gi", "500M"],
    "store-ports": ["1", "65535,1,99999"],
    "log-level": ["off", "error", "warn", "info", "debug", "trace"],
}
BAD = {
    "image": ["", " larder", "larder:1 ", "-x", "a b", "a\nb", "ü", "a" * 513],
    "config": ["", "A", "a_b", "-a", "a-", "a.", "a b", "a/b", "a..b", "a.-b", "a-.b", "a" * 254],
    "env-from": ["A", "a_b", " a", "a..b"],
    "cpu-request": [
        "",
        "lots",
        "0",
        "-1",
        "0m",
        "1 ",
        " 1",
        "1M i",
        "1mi",
        "m",
        "1e",
        "0x10",
        "1,5",
        "٣",
        "1e100",
        "1e-030",
        "1".zfill(33),
    ],
    "cpu-limit": ["x", "0", "-100m"],
    "memory-request": ["", "64MB", "64 Mi", "0Mi", "-64Mi", "64mi", "1KI", "1ki", "Mi"],
    "memory-limit": ["", "1GB", "0", "1g", "infinity", "NaN", "1e30000000", "1E+1000000000"],
    "disk": ["big", "0", "-1Gi"],
    "store-ports": ["80;90", "80, 90", ",", "80,", ",80", "123456", "a", "-1", "6379\n"],
    "log-level": ["loud", "INFO", " info"],
}


def each(table, bad):
    return {
        f"{key}={value[:20]!r}{' and more' * (len(value) > 20)}": Case(
            pod({key: value}), bad=(key,) if bad else ()
        )
        for key, column in table.items()
        for value in column
    }


CASES |= each(GOOD, bad=False) | each(BAD, bad=True)
