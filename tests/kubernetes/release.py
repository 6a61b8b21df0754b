"""larder's chart, installed by Helm."""

import contextlib
from pathlib import Path

import pods
from world import until

CHART = Path(__file__).resolve().parents[2] / "config" / "kubernetes" / "chart"
NAMESPACE = "larder-system"
API = "/apis/admissionregistration.k8s.io/v1"
PATIENCE = 30


def helm(cluster, verb, *options, check=True):
    words = ["--namespace", NAMESPACE, *options]
    return cluster.helm(
        verb, "larder", *([CHART] if verb != "uninstall" else []), *words, check=check
    )


def values(*settings):
    """Helm's options for values such as `check=deny`."""
    return [word for setting in settings for word in ("--set", setting)]


@contextlib.contextmanager
def installed(cluster, *options):
    """What is installed is in force a moment after it is stored, and so is that it is gone."""
    cluster.namespace(NAMESPACE)
    helm(cluster, "install", *options)
    try:
        yield
    finally:
        helm(cluster, "uninstall")
        until(lambda: not injects(cluster) and not checks(cluster), "larder is gone", PATIENCE)


def injects(cluster):
    made = cluster.pod(pods.pod())
    return bool(made) and sidecar(made) is not None


def checks(cluster):
    made = cluster.pod(pods.pod(hostNetwork=True))
    return not made or bool(made.warnings)


def sidecar(answer):
    """larder's container of a pod that was made."""
    assert answer, answer.message
    containers = answer.object["spec"].get("initContainers", [])
    return next((one for one in containers if one["name"] == "larder"), None)


def in_force(cluster):
    until(lambda: injects(cluster) and checks(cluster), "policy and check are in force", PATIENCE)
