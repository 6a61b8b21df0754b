"""The chart: what it installs where, what an upgrade changes, and what is left when it is gone."""

import base64
import json
import subprocess

import pytest
import yaml

import pods
from release import API, CHART, NAMESPACE, PATIENCE, helm, in_force, installed, sidecar, values
from world import until

WEBHOOK = f"{API}/mutatingwebhookconfigurations/larder-injector"
SETTINGS = f"/api/v1/namespaces/{NAMESPACE}/configmaps/larder-sidecar"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:larder-injector"
BY_POLICY, BY_WEBHOOK = "MutatingAdmissionPolicy", "MutatingWebhookConfiguration"


def rendered(cluster, *options):
    """The chart's objects, by kind and name."""
    return objects(helm(cluster, "template", *options).stdout)


def objects(text):
    return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(text) if one}


def kinds(made):
    return {kind for kind, _ in made}


def test_helm_finds_nothing_to_complain_of(cluster):
    for way in ("policy", "webhook", "none"):
        cluster.helm("lint", "--strict", CHART, *values(f"injection={way}"))


def test_the_manifests_are_the_charts(tmp_path):
    script = CHART.parents[2] / "scripts" / "manifests"
    subprocess.run([script, tmp_path], check=True)
    for name in ("policy.yaml", "webhook.yaml"):
        kept = (CHART.parent / name).read_text()
        assert (tmp_path / name).read_text() == kept, f"{name}: run scripts/manifests"


def test_the_versions_are_larders():
    root = CHART.parents[2]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    cargo = (root / "Cargo.toml").read_text()
    assert f'\nversion = "{chart["appVersion"]}"' in cargo


def rounds(table):
    """One value of each setting at a time."""
    for number in range(max(map(len, table.values()))):
        yield {key: column[number] for key, column in table.items() if number < len(column)}


def test_the_schema_takes_what_larder_takes(cluster, tmp_path):
    """A platform's setting is refused by Helm where it would be refused as an annotation."""
    path = tmp_path / "values.yaml"

    def complaint(sidecar):
        path.write_text(yaml.safe_dump({"sidecar": sidecar}))
        return helm(cluster, "template", "-f", path, check=False).stderr

    for good in rounds(pods.GOOD):
        assert not complaint(good), good
    for bad in rounds(pods.BAD):
        said = complaint(bad)
        # An empty image is the chart's.
        unsaid = {key for key in bad if f"at '/sidecar/{key}'" not in said and bad[key] != ""}
        assert not unsaid, (bad, said)


def test_a_value_that_is_bad_or_unknown_is_refused_by_name(cluster):
    def refused(*settings):
        done = helm(cluster, "template", *values(*settings), check=False)
        assert done.returncode != 0
        return done.stderr

    assert "/sidecar/cpu-request" in refused("sidecar.cpu-request=lots")
    assert "additional properties 'cpu' not allowed" in refused("sidecar.cpu=1")
    assert "/injector/caBundle" in refused(
        "injector.certificate=existingSecret", "injector.secret=a"
    )
    assert "/features/feature_store_yaml" in refused("features.namespaces[0]=models")


@pytest.mark.parametrize(
    "release, kind", [("1.34", BY_WEBHOOK), ("1.35", BY_WEBHOOK), ("1.36", BY_POLICY)]
)
def test_auto_is_what_the_cluster_can(older, release, kind):
    cluster = older[release]
    cluster.namespace(NAMESPACE)
    done = helm(cluster, "install", "--dry-run=server", "--output", "json")
    made = objects(json.loads(done.stdout)["manifest"])
    assert kinds(made) & {BY_POLICY, BY_WEBHOOK} == {kind}
    assert "ValidatingAdmissionPolicy" in kinds(made)


def test_the_policies_hold_on_the_oldest_release_that_has_them(older):
    cluster = older["1.36"]
    with installed(cluster):
        in_force(cluster)
        made = cluster.pod(
            pods.pod(pods.EVERYTHING, containers=pods.THREE, initContainers=pods.ISTIO)
        )
        assert sidecar(made)["resources"]["limits"] == {"cpu": "2", "memory": "1Gi"}
        said = cluster.pod(pods.pod({"disk": "big"})).warnings
        assert len(said) == 1 and 'larder.dev/disk="big"' in said[0]


def test_the_manifest_may_be_applied_again(older):
    """By a release without the policy; the certificate stays, as with Helm."""
    cluster = older["1.35"]
    cluster.namespace(NAMESPACE)
    manifest = (CHART.parent / "webhook.yaml").read_text()
    try:
        cluster.kubectl("apply", "-f", "-", stdin=manifest)
        assert trust(cluster)
        changed = manifest.replace('cpu-request: "100m"', 'cpu-request: "1m"')
        cluster.kubectl("apply", "-f", "-", stdin=changed)
        assert trusts(cluster) and cluster.get(SETTINGS).object["data"]["cpu-request"] == "1m"
    finally:
        # Without its controller, a namespace would be there and going for ever.
        made = [one for one in yaml.safe_load_all(manifest) if one["kind"] != "Namespace"]
        cluster.kubectl("delete", "-f", "-", stdin=yaml.safe_dump_all(made))


def trust(cluster):
    """Does what the injector does when it has made a certificate."""
    client = {"caBundle": bundle(cluster)}
    change = {"webhooks": [{"name": "injector.larder.dev", "clientConfig": client}]}
    return cluster.merge(WEBHOOK + "?fieldManager=larder-injector", change) and trusts(cluster)


def trusts(cluster):
    client = cluster.get(WEBHOOK).object["webhooks"][0]["clientConfig"]
    return client.get("caBundle") == bundle(cluster)


def bundle(cluster):
    return base64.b64encode(cluster.ca.read_bytes()).decode()


def test_an_upgrade_changes_the_settings_and_keeps_the_certificate(cluster):
    """Whichever way Helm applies objects: caBundle is the injector's, the chart has none."""
    with installed(cluster, *values("injection=webhook")):
        assert not trusts(cluster) and trust(cluster)
        for number, side in enumerate(("true", "false"), start=1):
            settings = values("injection=webhook", f"sidecar.cpu-request={number}m", "check=deny")
            # `false` is what Helm 3 does.
            helm(cluster, "upgrade", f"--server-side={side}", *settings)
            assert cluster.get(SETTINGS).object["data"]["cpu-request"] == f"{number}m"
            assert trusts(cluster), f"--server-side={side}"
        cluster.helm("rollback", "larder", "1", "--namespace", NAMESPACE)
        assert trusts(cluster) and cluster.get(SETTINGS).object["data"]["cpu-request"] == "100m"


def test_an_upgrade_counts_at_once_and_changes_the_way(cluster):
    with installed(cluster):
        in_force(cluster)
        helm(cluster, "upgrade", *values("sidecar.cpu-request=7m", "check=deny"))

        def made_with(cpu):
            # Check and policy do not change at the same moment.
            made = cluster.pod(pods.pod())
            larder = made and sidecar(made)
            return larder and larder["resources"]["requests"]["cpu"] == cpu

        def left_alone():
            made = cluster.pod(pods.pod())
            return made and sidecar(made) is None

        until(lambda: made_with("7m"), "the setting counts", PATIENCE)
        until(lambda: not cluster.pod(pods.pod(hostNetwork=True)), "pods are denied", PATIENCE)
        helm(cluster, "upgrade", *values("injection=webhook", "check=off"))
        # The policy may go before the check that would have it.
        until(left_alone, "the policies are gone", PATIENCE)
        assert cluster.get(WEBHOOK) and cluster.get(SETTINGS)
        # Back again: an API server may have held on to what it knew of a policy that was gone.
        helm(cluster, "upgrade", *values("injection=policy", "sidecar.cpu-request=8m"))
        until(lambda: made_with("8m"), "the policy is back", PATIENCE)


@pytest.mark.parametrize("way", ["policy", "webhook"])
def test_nothing_is_left(cluster, way):
    def everything():
        kinds = cluster.kubectl("api-resources", "--verbs=list", "-o", "name").stdout.split()
        kinds = [kind for kind in kinds if not kind.startswith("events") and "lease" not in kind]
        found = cluster.kubectl("get", ",".join(kinds), "--all-namespaces", "-o", "name").stdout
        return set(found.split())

    cluster.namespace(NAMESPACE)
    cluster.namespace("models")
    before = everything()
    features = values("features.feature_store_yaml=project: a", "features.namespaces[0]=models")
    with installed(cluster, *values(f"injection={way}"), *features):
        assert len(everything() - before) > 5
    assert everything() == before


def test_the_injector_may_do_what_it_does_and_no_more(cluster):
    def may(verb, resource, name="", namespace=NAMESPACE):
        group = "admissionregistration.k8s.io" if "webhook" in resource else ""
        asked = {
            "verb": verb,
            "group": group,
            "resource": resource,
            "name": name,
            "namespace": namespace,
        }
        review = {"spec": {"user": ACCOUNT, "resourceAttributes": asked}}
        answer = cluster.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
        return answer.object["status"]["allowed"]

    with installed(cluster, *values("injection=webhook")):
        for verb in ("get", "update"):
            assert may(verb, "secrets", "larder-injector-ca")
            assert not may(verb, "secrets", "another")
            assert not may(verb, "secrets", "larder-injector-ca", "default")
        assert may("create", "secrets") and not may("list", "secrets")
        assert not may("delete", "secrets", "larder-injector-ca")
        for verb in ("get", "patch"):
            assert may(verb, "mutatingwebhookconfigurations", "larder-injector", "")
            assert not may(verb, "mutatingwebhookconfigurations", "another", "")
        assert not may("get", "pods") and not may("get", "configmaps")


@pytest.mark.parametrize("certificate", ["selfSigned", "certManager", "existingSecret"])
def test_the_injector_runs_where_pods_are_restricted(cluster, certificate):
    own = values("injector.secret=cert", "injector.caBundle=QQ==")
    made = rendered(
        cluster, *values("injection=webhook", f"injector.certificate={certificate}"), *own
    )
    deployment = made["Deployment", "larder-injector"]
    template = deployment["spec"]["template"]
    assert deployment["spec"]["replicas"] == 2
    assert made["PodDisruptionBudget", "larder-injector"]["spec"]["maxUnavailable"] == 1
    account = made["ServiceAccount", "larder-injector"]
    assert account["automountServiceAccountToken"] == (certificate == "selfSigned")
    assert ("Role" in kinds(made)) == (certificate == "selfSigned")
    client = made[BY_WEBHOOK, "larder-injector"]["webhooks"][0]["clientConfig"]
    assert client.get("caBundle") == ("QQ==" if certificate == "existingSecret" else None)
    namespace = cluster.namespace("restricted", pods.RESTRICTED)
    account["metadata"]["namespace"] = namespace
    cluster.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", account)
    answer = cluster.pod(
        {"metadata": {"name": "injector"} | template["metadata"], "spec": template["spec"]},
        namespace,
    )
    assert answer and not answer.warnings, answer.message


def test_cert_manager_is_asked_for_the_name_that_the_api_server_uses(cluster):
    options = values("injection=webhook", "injector.certificate=certManager")
    made = rendered(cluster, *options)
    certificate = made["Certificate", "larder-injector"]["spec"]
    assert certificate["dnsNames"] == [f"larder-injector.{NAMESPACE}.svc"]
    assert certificate["issuerRef"] == {"name": "larder-injector", "kind": "Issuer"}
    annotations = made[BY_WEBHOOK, "larder-injector"]["metadata"]["annotations"]
    assert annotations == {"cert-manager.io/inject-ca-from": f"{NAMESPACE}/larder-injector"}
    own = values("injector.issuer.name=ours", "injector.issuer.kind=ClusterIssuer")
    assert "Issuer" not in kinds(rendered(cluster, *options, *own))


def test_metrics_and_features_are_brought_where_they_are_asked_for(cluster, tmp_path):
    assert kinds(rendered(cluster, *values("injection=none"))) == set()
    asked = {
        "injection": "webhook",
        "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "features": {
            "namespaces": ["rides", "food"],
            "feature_store_yaml": "project: rides\nregistry: s3://a/b\n",
            "larder_yaml": "log: {level: debug}\n",
        },
    }
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(asked))
    text = helm(cluster, "template", "-f", path).stdout
    maps = [one for one in yaml.safe_load_all(text) if one and one["metadata"]["name"] == "larder"]
    assert [one["metadata"]["namespace"] for one in maps] == ["rides", "food"]
    assert maps[0]["data"] == {
        "feature_store.yaml": asked["features"]["feature_store_yaml"],
        "larder.yaml": asked["features"]["larder_yaml"],
    }
    made = objects(text)
    monitor = made["PodMonitor", "larder-sidecar"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["podMetricsEndpoints"][0]["port"] == "larder-admin"
    template = made["Deployment", "larder-injector"]["spec"]["template"]
    chosen = made["PodMonitor", "larder-injector"]["spec"]["selector"]["matchLabels"]
    assert chosen.items() <= template["metadata"]["labels"].items()
