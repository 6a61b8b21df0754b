"""Whichever way larder comes into a pod, it is the same pod, but for the name of the way."""


import pytest

from pods import CASES
from release import sidecar
from ways import by_hand, comparable, make, manifest, policy, prepare, webhook

WAYS = ("cli", "policy", "webhook")


class Made:
    """The cases' pods, by way; and what `larder inject` said."""

    def __init__(self, cluster, folder):
        prepare(cluster)
        objects, self.said = by_hand(cluster, map(manifest, CASES.values()))
        self.pods = {"cli": {}}
        for name, one in zip(CASES, objects, strict=True):
            self.pods["cli"][name] = cluster.pod(one, CASES[name].namespace)
        with policy(cluster):
            self.pods["policy"] = make(cluster, CASES)
        with webhook(cluster, folder):
            self.pods["webhook"] = make(cluster, CASES)


@pytest.fixture(scope="module")
def made(cluster, tmp_path_factory):
    return Made(cluster, tmp_path_factory.mktemp("injector")).pods


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CASES)
def test_a_pod_gets_what_it_is_to_get(made, name, way):
    case, answer = CASES[name], made[way][name]
    if case.refused:
        assert answer.status == 403 and case.refused in answer.message
        return
    marked = answer.object["metadata"].get("annotations", {}).get("larder.dev/injected")
    assert marked == (None if case.left else way)
    assert case.left or sidecar(answer)


@pytest.mark.parametrize("way", ("policy", "webhook"))
@pytest.mark.parametrize("name", CASES)
def test_it_is_the_same_pod_on_each_way(made, name, way):
    assert comparable(made[way][name]) == comparable(made["cli"][name])


@pytest.mark.parametrize("way", ("policy", "webhook"))
@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_said_and_nothing_else(made, name, way):
    case, answer = CASES[name], made[way][name]
    said = [warning for warning in answer.warnings if "larder" in warning]
    for key in case.bad:
        assert any(f"larder.dev/{key}" in warning for warning in said), said
    assert any(case.why in warning for warning in said) or not case.why, said
    assert bool(said) == bool(case.bad or case.why), said
