"""The chart: what it installs where, what an upgrade changes, and what is left when it is gone."""

import base64
import json
import subprocess

import pytest
import yaml

import pods
from release import API, CHART, NAMESPACE, PATIENCE, helm, in_force, installed, sidecar, values
from ways import webhook
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
    own = "injector.certificate=existingSecret"
    assert "/injector/caBundle" in refused(own, "injector.secret=a")
    assert "/injector/secret" in refused(own, "injector.caBundle=QQ==")
    issuer = refused("injector.certificate=certManager", "injector.issuer.kind=Issuer")
    assert "/injector/issuer" in issuer and "'name'" in issuer
    # It would find other pods, or none.
    name = refused("injector.podLabels.app\\.kubernetes\\.io/name=mine")
    assert "/injector/podLabels/app.kubernetes.io" in name
    assert "/namespaceSelector" in refused("namespaceSelector.names[0]=models")
    assert "/features/feature_store_yaml" in refused("features.namespaces[0]=models")


def test_settings_are_written_as_they_are(cluster, tmp_path):
    """Helm reads numbers as floats, and YAML `off` as false."""
    path = tmp_path / "values.yaml"
    path.write_text(
        "{check: off, injection: webhook, injector: {logLevel: off}, sidecar: {log-level: off,"
        " memory-limit: 268435456, memory-request: 2.5e+8, cpu-request: 0.25, cpu-limit: 2,"
        " store-ports: 6379}}"
    )
    made = rendered(cluster, "-f", path)
    data = made["ConfigMap", "larder-sidecar"]["data"]
    assert data.pop("image")
    assert data == {
        "config": "larder",
        "memory-limit": "268435456",
        "memory-request": "250000000",
        "cpu-request": "0.25",
        "cpu-limit": "2",
        "store-ports": "6379",
        "log-level": "off",
    }
    assert "ValidatingAdmissionPolicy" not in kinds(made)
    container = made["Deployment", "larder-injector"]["spec"]["template"]["spec"]["containers"][0]
    assert container["args"][-1] == "--log-level=off"


@pytest.mark.parametrize("way", ["policy", "webhook", "none"])
def test_the_check_needs_no_cluster_to_be_rendered(cluster, way):
    """`helm template` knows no kinds, so that it is the version that decides."""

    def check(*options):
        made = rendered(cluster, *values(f"injection={way}", "check=deny"), *options)
        binding = made.get(("ValidatingAdmissionPolicyBinding", "larder-sidecar-check"))
        return binding and binding["spec"]["validationActions"]

    assert check() == ["Deny", "Audit"]
    assert check("--kube-version", "1.30.0-provider.1") == ["Deny", "Audit"]
    assert check("--kube-version", "1.29.9") is None


def test_without_a_cluster_the_way_is_the_same_with_any_helm(cluster):
    for version in ("1.29.0", "1.36.0", "1.40.0"):
        assert BY_WEBHOOK in kinds(rendered(cluster, "--kube-version", version))
    policy = ("--api-versions", "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy")
    assert BY_POLICY in kinds(rendered(cluster, *policy))


@pytest.mark.parametrize(
    "settings, said",
    [
        (("injection=policy",), "is let in, with a warning"),
        (("injection=none", "check=deny"), "is refused (check: deny)"),
        (("injection=webhook", "check=off"), "nobody is told (check: off)"),
    ],
)
def test_the_notes_say_what_becomes_of_pods_without_larder(cluster, settings, said):
    done = helm(cluster, "install", "--dry-run=client", *values(*settings))
    assert said in " ".join(done.stdout.split("NOTES:")[1].split())


def test_pods_are_checked_where_nothing_adds_larder(cluster):
    with installed(cluster, *values("injection=none", "check=deny")):
        until(lambda: not cluster.pod(pods.pod()), "the check is in force", PATIENCE)
        assert "see `larder inject`" in cluster.pod(pods.pod()).message
        injected = pods.pod(initContainers=[{**pods.STEP, "name": "larder"}])
        assert cluster.pod(injected) and cluster.pod(pods.pod(labels={}))


EVERYWHERE = ("--set-json", 'namespaceSelector={"matchExpressions":[]}')


def test_policies_leave_alone_the_namespaces_that_they_are_told_to(cluster):
    with installed(cluster, *values("injection=policy")):
        in_force(cluster)
        lonely = cluster.pod(pods.pod(hostNetwork=True), NAMESPACE)
        made = cluster.pod(pods.pod(), NAMESPACE)
        assert lonely and not lonely.warnings and sidecar(made) is None
        helm(cluster, "upgrade", *values("injection=policy"), *EVERYWHERE)
        until(lambda: sidecar(cluster.pod(pods.pod(), NAMESPACE)), "it is not left out", PATIENCE)
        until(lambda: cluster.pod(pods.pod(hostNetwork=True), NAMESPACE).warnings, "nor here")


def test_the_webhook_leaves_alone_the_namespaces_that_it_is_told_to(cluster, tmp_path):
    cluster.namespace(NAMESPACE)
    for name, options, expected in (("usual", (), False), ("everywhere", EVERYWHERE, True)):
        (tmp_path / name).mkdir()
        with webhook(cluster, tmp_path / name, *options):
            assert (sidecar(cluster.pod(pods.pod(), NAMESPACE)) is not None) == expected


def test_objects_say_what_they_are_part_of_and_pods_too(cluster):
    more = values(
        "podMonitor.enabled=true",
        "injector.certificate=certManager",
        "features.namespaces[0]=a",
        "features.feature_store_yaml=project: a",
    )
    for way in ("policy", "webhook"):
        made = rendered(cluster, *values(f"injection={way}"), *more)
        for one in made.values():
            labels = one["metadata"]["labels"]
            assert labels["app.kubernetes.io/name"] == "larder", one
            assert labels["app.kubernetes.io/component"] in ("sidecar", "check", "injector")
            assert labels["app.kubernetes.io/managed-by"] == "Helm" and labels["helm.sh/chart"]
    spec = made["Deployment", "larder-injector"]["spec"]
    labels = spec["template"]["metadata"]["labels"]
    for found in (
        spec["selector"]["matchLabels"],
        made["Service", "larder-injector"]["spec"]["selector"],
        made["PodDisruptionBudget", "larder-injector"]["spec"]["selector"]["matchLabels"],
        made["PodMonitor", "larder-injector"]["spec"]["selector"]["matchLabels"],
    ):
        assert found == labels
    assert labels.items() <= made["Deployment", "larder-injector"]["metadata"]["labels"].items()


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
    client = {"caBundle": any_certificate(cluster)}
    change = {"webhooks": [{"name": "injector.larder.dev", "clientConfig": client}]}
    return cluster.merge(WEBHOOK + "?fieldManager=larder-injector", change) and trusts(cluster)


def trusts(cluster):
    client = cluster.get(WEBHOOK).object["webhooks"][0]["clientConfig"]
    return client.get("caBundle") == any_certificate(cluster)


def any_certificate(cluster):
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
    # Pods that run have it mounted. It is the release's again when that comes back.
    kept = "/api/v1/namespaces/models/configmaps/larder"
    assert everything() - before == {"configmap/larder"}
    with installed(cluster, *values(f"injection={way}"), *features):
        assert cluster.get(kept)
    assert cluster.delete(kept)
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
    disruption = made["PodDisruptionBudget", "larder-injector"]["spec"]
    assert disruption["maxUnavailable"] == 1
    assert disruption["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
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
    # It is renewed often; what is trusted is the authority that signs it, which lasts.
    root = made["Certificate", "larder-injector-root"]["spec"]
    assert root["isCA"] and root["duration"] == f"{10 * 365 * 24}h" and root["commonName"]
    assert made["Issuer", root["issuerRef"]["name"]]["spec"] == {"selfSigned": {}}
    assert made["Issuer", "larder-injector"]["spec"] == {"ca": {"secretName": root["secretName"]}}
    # Not the Secret of the injector's own authority.
    assert root["secretName"] not in (certificate["secretName"], "larder-injector-ca")
    annotations = made[BY_WEBHOOK, "larder-injector"]["metadata"]["annotations"]
    assert annotations == {"cert-manager.io/inject-ca-from": f"{NAMESPACE}/larder-injector"}
    own = values("injector.issuer.name=ours", "injector.issuer.kind=ClusterIssuer")
    made = rendered(cluster, *options, *own)
    assert "Issuer" not in kinds(made) and ("Certificate", "larder-injector-root") not in made


def test_metrics_and_features_are_brought_where_they_are_asked_for(cluster, tmp_path):
    assert kinds(rendered(cluster, *values("injection=none", "check=off"))) == set()
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


@pytest.mark.parametrize(
    "text", ["  project: a\n  b: c\n", "\n\n a: b", "\ta", "a: 'ü' # {{ x }} <&>\n\n\n", "a\r\nb"]
)
def test_text_is_taken_as_it_is(cluster, tmp_path, text):
    path = tmp_path / "values.yaml"
    features = {"namespaces": ["rides"], "feature_store_yaml": text, "larder_yaml": text}
    path.write_text(yaml.safe_dump({"features": features}))
    data = rendered(cluster, "-f", path)["ConfigMap", "larder"]["data"]
    assert data == {"feature_store.yaml": text, "larder.yaml": text}


def test_the_injector_is_placed_where_it_is_told_to_be(cluster, tmp_path):
    path = tmp_path / "values.yaml"

    def placed(**injector):
        path.write_text(yaml.safe_dump({"injection": "webhook", "injector": injector}))
        made = rendered(cluster, "-f", path)["Deployment", "larder-injector"]
        return made["spec"]["template"]["spec"]

    usual = placed()
    spread = [one["topologyKey"] for one in usual["topologySpreadConstraints"]]
    assert spread == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    assert "affinity" not in usual
    rack = [{"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}]
    near = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": []}}
    told = placed(topologySpreadConstraints=rack, affinity=near)
    assert told["topologySpreadConstraints"] == rack and told["affinity"] == near
