"""Whichever way larder comes into a pod, it is the same pod, but for the name of the way."""

import json
import re
from collections import Counter

import pytest

from pods import CASES
from release import sidecar
from ways import by_hand, comparable, inject, make, manifest, policy, prepare, read, webhook

WAYS = ("cli", "policy", "webhook")


class Made:
    """The cases' pods, by way; and what `larder inject` said."""

    def __init__(self, cluster, folder):
        prepare(cluster)
        self.pods = {"cli": {}}
        objects, self.said = by_hand(cluster, map(manifest, CASES.values()))
        for name, one in zip(CASES, objects, strict=True):
            self.pods["cli"][name] = cluster.pod(one, CASES[name].namespace)
        with policy(cluster):
            self.pods["policy"] = make(cluster, CASES)
        with webhook(cluster, folder):
            self.pods["webhook"] = make(cluster, CASES)


@pytest.fixture(scope="module")
def made(cluster, tmp_path_factory):
    return Made(cluster, tmp_path_factory.mktemp("injector"))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CASES)
def test_a_pod_gets_what_it_is_to_get(made, name, way):
    case, answer = CASES[name], made.pods[way][name]
    if case.refused:
        assert answer.status == 403 and case.refused in answer.message
        return
    assert answer, answer.message
    marked = answer.object["metadata"].get("annotations", {}).get("larder.dev/injected")
    assert marked == (None if case.left else way)
    assert case.left or sidecar(answer)


@pytest.mark.parametrize("way", ("policy", "webhook"))
@pytest.mark.parametrize("name", CASES)
def test_it_is_the_same_pod_on_each_way(made, name, way):
    assert comparable(made.pods[way][name]) == comparable(made.pods["cli"][name])


@pytest.mark.parametrize("way", ("policy", "webhook"))
@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_said_and_nothing_else(made, name, way):
    case, answer = CASES[name], made.pods[way][name]
    said = [warning for warning in answer.warnings if "larder" in warning]
    # Nobody reads the annotations of a pod that is left alone, but the check.
    bad = case.bad if way == "policy" or not case.left else ()
    for key in bad:
        assert any(f"larder.dev/{key}" in warning for warning in said), said
    assert any(case.why in warning.lower() for warning in said) or not case.why, said
    assert bool(said) == bool(bad or case.why), said


def test_the_command_line_says_what_is_wrong(made):
    wrong = Counter(key for case in CASES.values() if not case.left for key in case.bad)
    assert Counter(re.findall(r"annotation larder\.dev/([-a-z]+):", made.said)) == wrong
    for why in {case.why for case in CASES.values() if case.why}:
        assert why in made.said.lower()


def workload(kind, template):
    """An object that makes pods of a template."""
    one = {"kind": kind, "metadata": {"name": "model", "namespace": "default"}}
    labels = template["metadata"]["labels"]
    if kind == "Job":
        return {"apiVersion": "batch/v1", **one, "spec": {"template": template}}
    if kind == "CronJob":
        job = {"spec": {"template": template}}
        return {
            "apiVersion": "batch/v1",
            **one,
            "spec": {"schedule": "0 * * * *", "jobTemplate": job},
        }
    spec = {"selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", **one, "spec": spec}


def template_of(made):
    spec = made["spec"]
    return spec.get("jobTemplate", {}).get("spec", spec)["template"]


@pytest.mark.parametrize("name", ["behind Istio, before the rest", "everything"])
@pytest.mark.parametrize(
    "kind", ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob"]
)
def test_a_template_gets_what_its_pods_would(cluster, made, kind, name):
    """The API server takes what is printed, and its pods are those of the other ways."""
    case = CASES[name]
    policy = "Never" if "Job" in kind else "Always"
    metadata = {
        key: case.pod["metadata"][key]
        for key in ("labels", "annotations")
        if key in case.pod["metadata"]
    }
    template = {"metadata": metadata, "spec": case.pod["spec"] | {"restartPolicy": policy}}
    printed, said = inject(stdin=json.dumps(workload(kind, template)))
    cluster.kubectl("create", "--dry-run=server", "-f", "-", stdin=printed)
    template = template_of(*read(cluster, printed))
    pod = {"metadata": template["metadata"] | {"name": "model"}, "spec": template["spec"]}
    found, expected = comparable(cluster.pod(pod)), comparable(made.pods["policy"][name])
    expected["spec"]["restartPolicy"] = policy
    assert found == expected
