"""The ways on which pods get larder, and what becomes of the same pods on each."""

import base64
import contextlib
import copy
import json
import subprocess

import yaml

import pods
import registries
from release import API, PATIENCE, helm, in_force, injects, installed, values
from world import LARDER, Process, answers, free_port, until

WEBHOOK = f"{API}/mutatingwebhookconfigurations"
QUOTA = {"limits.cpu": "20"}
LIMITS = {
    "type": "Container",
    "default": {"cpu": "1", "memory": "512Mi"},
    "defaultRequest": {"cpu": "100m", "memory": "64Mi"},
}


def prepare(cluster):
    """The namespaces of the cases."""
    cluster.namespace("restricted", pods.RESTRICTED)
    quota, limits = cluster.namespace("quota"), cluster.namespace("limited")
    path = f"/api/v1/namespaces/{quota}/resourcequotas"
    cluster.create(path, {"metadata": {"name": "cpu"}, "spec": {"hard": QUOTA}})
    # A controller would count what there is.
    status = {"status": {"hard": QUOTA, "used": {"limits.cpu": "0"}}}
    assert cluster.merge(f"{path}/cpu/status", status)
    body = {"metadata": {"name": "default"}, "spec": {"limits": [LIMITS]}}
    cluster.create(f"/api/v1/namespaces/{limits}/limitranges", body)


def make(cluster, cases):
    return {name: cluster.pod(case.pod, case.namespace) for name, case in cases.items()}


@contextlib.contextmanager
def policy(cluster, *options):
    """Helm's release with the policies."""
    with installed(cluster, *values("injection=policy"), *options):
        in_force(cluster)
        yield


@contextlib.contextmanager
def webhook(cluster, folder, *options):
    """`larder injector`, called as the chart's webhook is."""
    certificate = registries.certificate(folder / "tls")
    text = helm(cluster, "template", *values("injection=webhook"), *options).stdout
    made = {one["kind"]: one for one in yaml.safe_load_all(text) if one}
    settings = folder / "settings"
    settings.mkdir()
    for name, value in made["ConfigMap"]["data"].items():
        (settings / name).write_text(value)
    injector = Injector(settings, certificate)
    registered = made["MutatingWebhookConfiguration"]
    bundle = base64.b64encode(certificate.with_name("ca.crt").read_bytes()).decode()
    registered["webhooks"][0]["clientConfig"] = {"url": injector.url, "caBundle": bundle}
    try:
        assert cluster.create(WEBHOOK, registered)
        until(lambda: injects(cluster), "the webhook is called", PATIENCE)
        yield injector
    finally:
        cluster.delete(f"{WEBHOOK}/larder-injector")
        until(lambda: not injects(cluster), "the webhook is not called", PATIENCE)
        injector.stop()


class Injector(Process):
    def __init__(self, settings, certificate):
        port, admin = free_port(), free_port()
        self.url = f"https://127.0.0.1:{port}/mutate"
        flags = {
            "--settings": settings,
            "--listen": f"127.0.0.1:{port}",
            "--admin": f"127.0.0.1:{admin}",
            "--tls-cert": certificate,
            "--tls-key": certificate.with_name("server.key"),
        }
        super().__init__([LARDER, "injector", *(word for flag in flags.items() for word in flag)])
        self.wait_until(
            lambda: answers(f"http://127.0.0.1:{admin}/readyz"), "the injector is ready"
        )


def inject(*options, stdin):
    """What `larder inject` prints, and what it says."""
    command = [LARDER, "inject", *options, "-f", "-"]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def by_hand(cluster, objects, *options):
    """Objects as `larder inject` prints them and kubectl reads that."""
    printed, said = inject(*options, stdin="\n---\n".join(map(json.dumps, objects)))
    return read(cluster, printed), said


def read(cluster, text):
    """YAML as kubectl understands it."""
    text = cluster.kubectl("create", "--dry-run=client", "-o", "json", "-f", "-", stdin=text).stdout
    decoder, found = json.JSONDecoder(), []
    while text := text.lstrip():
        one, end = decoder.raw_decode(text)
        found.append(one)
        text = text[end:]
    return found


def manifest(case):
    metadata = case.pod["metadata"] | {"namespace": case.namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": case.pod["spec"]}


def comparable(answer):
    """A pod without what differs from one making to the next; a refusal, without the pod's name."""
    if not answer:
        return answer.status, answer.message
    found = copy.deepcopy(answer.object)
    metadata, spec = found["metadata"], found["spec"]
    for key in ("uid", "creationTimestamp", "managedFields"):
        metadata.pop(key, None)
    if "generateName" in metadata:
        metadata.pop("name")
    # Which containers a limit range filled in: larder's is there before on one way, and after on others.
    metadata["annotations"] = {
        key: value
        for key, value in metadata.get("annotations", {}).items()
        if key not in ("larder.dev/injected", "kubernetes.io/limit-ranger")
    }
    # The token's volume has a name of its own each time, and is put behind what is there by then.
    for volume in spec.get("volumes", []):
        volume["name"] = token(volume["name"])
    spec.get("volumes", []).sort(key=lambda volume: volume["name"])
    for container in spec["containers"] + spec.get("initContainers", []):
        for mount in container.get("volumeMounts", []):
            mount["name"] = token(mount["name"])
        container.get("volumeMounts", []).sort(key=lambda mount: mount["mountPath"])
    return found


def token(name):
    return "kube-api-access" if name.startswith("kube-api-access-") else name
