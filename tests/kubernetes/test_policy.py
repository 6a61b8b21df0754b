"""The policies on a real API server: what becomes of pods, and what is said of them."""

import json

import pytest

import pods
from pods import APP, BAD, CASES, FULL, ISTIO, STEP
from release import API, PATIENCE, in_force, installed, sidecar
from world import until

POLICY = f"{API}/mutatingadmissionpolicies/larder-sidecar"


@pytest.fixture(scope="module")
def policy(cluster):
    with installed(cluster):
        in_force(cluster)
        yield cluster


def names(answer):
    return [container["name"] for container in answer.object["spec"].get("initContainers", [])]


def app(answer, index=0):
    return answer.object["spec"]["containers"][index]


def variables(container):
    return {one["name"]: one.get("value") for one in container.get("env", [])}


def test_a_pod_that_asks_gets_larder_and_the_way_to_it(policy):
    made = policy.pod(pods.pod())
    larder = sidecar(made)
    assert not made.warnings
    assert names(made) == ["larder"] and larder["restartPolicy"] == "Always"
    assert larder["image"].startswith("larder:")
    assert larder["resources"] == {
        "requests": {"cpu": "100m", "memory": "64Mi"},
        "limits": {"memory": "256Mi"},
    }
    assert larder["startupProbe"]["exec"]["command"][:2] == ["/larder", "ready"]
    assert variables(app(made)) == {
        "LARDER_ADDRESS": "127.0.0.1:6566",
        "LARDER_URL": "http://127.0.0.1:6566",
        "LARDER_SOCKET": "/run/larder/larder.sock",
        "LARDER_ABSTRACT": "unix-abstract:larder",
    }
    mount = {"name": "larder-run", "mountPath": "/run/larder", "readOnly": True}
    assert mount in app(made)["volumeMounts"]
    assert made.object["metadata"]["annotations"] == {"larder.dev/injected": "policy"}


def test_a_pod_that_does_not_ask_is_left_alone(policy):
    made = policy.pod(pods.pod(labels={}))
    assert sidecar(made) is None and not variables(app(made)) and not made.warnings


def test_larder_starts_behind_a_mesh_and_before_everything_else(policy):
    made = policy.pod(pods.pod(initContainers=[*ISTIO, STEP]))
    assert names(made) == ["istio-init", "istio-proxy", "larder", "download"]


def test_what_the_author_set_stays(policy):
    env = [{"name": "A", "value": "1"}, pods.ADDRESS, pods.HOST, {"name": "A", "value": "2"}]
    made = policy.pod(pods.pod(containers=[{**APP, "env": env}], volumes=[pods.OWN_RUN]))
    assert app(made)["env"][:4] == env and len(app(made)["env"]) == 6
    volumes = [one for one in made.object["spec"]["volumes"] if one["name"] == "larder-run"]
    assert volumes == [pods.OWN_RUN]


def test_only_the_named_containers_are_told(policy):
    made = policy.pod(pods.pod({"containers": " c, a"}, containers=pods.THREE))
    assert [bool(variables(app(made, index))) for index in range(3)] == [True, False, True]


def test_a_guaranteed_pod_stays_guaranteed(policy):
    made = policy.pod(pods.pod(containers=[{**APP, **FULL}]))
    same = {"cpu": "100m", "memory": "256Mi"}
    assert made.object["status"]["qosClass"] == "Guaranteed"
    assert sidecar(made)["resources"] == {"requests": same, "limits": same}


def test_annotations_override_the_settings(policy):
    made = policy.pod(pods.pod(pods.EVERYTHING))
    larder, spec = sidecar(made), made.object["spec"]
    assert not made.warnings
    assert larder["image"] == pods.EVERYTHING["image"]
    assert larder["resources"] == {
        "requests": {"cpu": "250m", "memory": "128Mi"},
        "limits": {"cpu": "2", "memory": "1Gi"},
    }
    secret = {"secretRef": {"name": "store-password", "optional": True}}
    assert larder["envFrom"] == [secret]
    assert variables(larder)["LARDER_LOG__LEVEL"] == "debug"
    assert variables(larder)["LARDER_REGISTRY__DISK_COPY"] == "/var/lib/larder/registry.pb"
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["larder-config"]["configMap"]["name"] == "features.v2"
    assert volumes["larder-disk"]["emptyDir"] == {"sizeLimit": "64Mi"}
    annotations = made.object["metadata"]["annotations"]
    assert annotations["traffic.sidecar.istio.io/excludeOutboundPorts"] == "6379,9042"
    assert annotations["config.linkerd.io/skip-outbound-ports"] == "6379,9042"


@pytest.mark.parametrize("key", BAD)
def test_a_bad_annotation_is_said_and_the_setting_used(policy, key):
    usual = sidecar(policy.pod(pods.pod()))
    for value in BAD[key]:
        made = policy.pod(pods.pod({key: value}))
        larder = sidecar(made)
        larder["volumeMounts"] = usual["volumeMounts"]  # the token's has a name of its own
        assert larder == usual, value
        assert len(made.warnings) == 1, (value, made.warnings)
        assert f"larder.dev/{key}=" in made.warnings[0]
        assert json.dumps(value[:20], ensure_ascii=False)[:-1] in made.warnings[0]


def test_an_annotation_that_means_nothing_is_said(policy):
    said = policy.pod(pods.pod({"memory-limt": "1Gi"})).warnings
    assert len(said) == 1 and said[0].endswith(
        "annotations that mean nothing: larder.dev/memory-limt"
    )


def test_what_is_bad_and_what_was_not_added_are_both_said_and_audited(policy):
    case = CASES["bad, and not there"]
    made = policy.pod(case.pod)
    assert sidecar(made) is None
    assert any('larder.dev/cpu-request="lots"' in said for said in made.warnings)
    assert any("network" in said for said in made.warnings) and len(made.warnings) == 2
    last = json.loads(policy.audit.read_text().splitlines()[-1])
    assert "network" in last["annotations"]["larder-sidecar-check/not-added"]
    assert last["annotations"]["larder-sidecar-check/bad-annotations"] == "larder.dev/cpu-request"


def test_a_pod_that_is_changed_is_not_touched(policy):
    """Labels, ephemeral containers: there is no second injection, and nothing is said."""
    path = "/api/v1/namespaces/default/pods/changed"
    assert policy.pod(pods.pod(metadata={"name": "changed"}, labels={}), dry_run=False)
    try:
        changes = [
            policy.merge(path, {"metadata": {"labels": pods.ASKS}}),
            policy.merge(
                path + "/ephemeralcontainers",
                {
                    "spec": {
                        "ephemeralContainers": [{"name": "debug", "image": "registry.example/sh"}]
                    }
                },
            ),
        ]
        for changed in changes:
            assert changed and sidecar(changed) is None and not changed.warnings, changed.message
    finally:
        policy.delete(path)


def test_a_pod_is_injected_once(policy):
    """What came out, put in again, is left as it is."""
    path = "/api/v1/namespaces/default/pods/again"
    first = policy.pod(pods.pod(metadata={"name": "again"}), dry_run=False)
    try:
        spec = {k: first.object["spec"][k] for k in ("containers", "initContainers", "volumes")}
        second = policy.pod(pods.pod(metadata={"name": "second"}, **spec))
        assert not second.warnings
        assert {k: second.object["spec"][k] for k in spec} == spec
    finally:
        policy.delete(path)


@pytest.fixture
def settings(policy):
    """Changes the platform's settings as one would by `kubectl edit`, and puts them back."""
    variables = policy.get(POLICY).object["spec"]["variables"]
    platform = json.loads(next(one["expression"] for one in variables if one["name"] == "platform"))

    def set_to(changed):
        text = json.dumps(changed)
        found = [
            one | {"expression": text} if one["name"] == "platform" else one for one in variables
        ]
        assert policy.merge(POLICY, {"spec": {"variables": found}}, "merge-patch")

    yield lambda change: set_to(platform | change)
    set_to(platform)
    until(lambda: made_with(policy, "64Mi"), "the settings are back", PATIENCE)


def made_with(cluster, memory_request):
    larder = sidecar(cluster.pod(pods.pod()))
    return larder and larder["resources"]["requests"]["memory"] == memory_request


def test_a_changed_setting_counts_from_the_next_pod(policy, settings):
    settings({"memory-request": "32Mi", "env-from": "everyone", "store-ports": "6379"})
    until(lambda: made_with(policy, "32Mi"), "the setting counts", PATIENCE)
    made = policy.pod(pods.pod({"env-from": ""}))
    assert "envFrom" not in sidecar(made), "an annotation may switch off what is optional"
    assert "config.linkerd.io/skip-outbound-ports" in made.object["metadata"]["annotations"]
    assert not made.warnings


@pytest.mark.parametrize(
    "bad",
    [
        {"cpu-request": "lots"},
        {"image": " "},
        {"memory-limit": ""},
        {"config": "a..b"},
        # Misspelt: not what was meant, though the value would do.
        {"memory-limt": "1Gi"},
    ],
    ids=str,
)
def test_a_bad_setting_costs_larder_and_no_pod(policy, settings, bad):
    settings(bad)
    passes_and_is_said(policy)


def test_a_policy_that_is_gone_costs_larder_and_no_pod(policy):
    path = f"{API}/mutatingadmissionpolicybindings/larder-sidecar"
    binding = policy.get(path).object
    assert policy.delete(path)
    try:
        passes_and_is_said(policy)
    finally:
        binding["metadata"] = {
            key: binding["metadata"][key] for key in ("name", "labels", "annotations")
        }
        assert policy.create(path.rsplit("/", 1)[0], binding)
        in_force(policy)


def passes_and_is_said(cluster):
    until(lambda: sidecar(cluster.pod(pods.pod())) is None, "larder is not added", PATIENCE)
    made = cluster.pod(pods.pod())
    assert made and len(made.warnings) == 1
    assert "see that MutatingAdmissionPolicy larder-sidecar is there" in made.warnings[0]


def test_with_deny_no_pod_starts_without_larder(policy):
    """The binding decides; an annotation that is not valid is refused as well."""
    path = f"{API}/validatingadmissionpolicybindings/larder-sidecar-check"

    def act(*actions):
        assert policy.merge(path, {"spec": {"validationActions": actions}}, "merge-patch")

    act("Deny", "Audit")
    try:
        lonely = pods.pod(hostNetwork=True)
        until(lambda: not policy.pod(lonely), "the pod is refused", PATIENCE)
        assert "larder was not added" in policy.pod(lonely).message
        assert "larder.dev/disk" in policy.pod(pods.pod({"disk": "big"})).message
        assert policy.pod(pods.pod())
    finally:
        act("Warn", "Audit")
        until(lambda: policy.pod(lonely), "the pod passes", PATIENCE)
