"""`larder injector` on a real API server: called, gone, hung, not trusted, and looking after itself."""

import base64
import contextlib
import re
import signal
import socket
import ssl
import threading

import pytest
import requests

import pods
import registries
from release import API, NAMESPACE, PATIENCE, checks, injects, installed, sidecar, values
from ways import Injector, webhook
from world import LARDER, Process, answers, free_port, until

CONFIGURATION = f"{API}/mutatingwebhookconfigurations/larder-injector"
SECRET = f"/api/v1/namespaces/{NAMESPACE}/secrets/larder-injector-ca"
SERVICE = f"/api/v1/namespaces/{NAMESPACE}/services/larder-injector"
NAME = f"larder-injector.{NAMESPACE}.svc"


class Replica(Process):
    """An injector as the chart runs it, with the service account that the chart makes."""

    def __init__(self, cluster, folder):
        folder.mkdir()
        token = cluster.kubectl("create", "token", "larder-injector", "--namespace", NAMESPACE)
        (folder / "token").write_text(token.stdout)
        (folder / "ca.crt").write_bytes(cluster.ca.read_bytes())
        (folder / "namespace").write_text(NAMESPACE)
        (folder / "settings").mkdir()
        self.settings, self.port, self.admin = folder / "settings", free_port(), free_port()
        host, port = re.fullmatch(r"https://(.*):(\d+)", cluster.url).groups()
        flags = {
            "--settings": self.settings,
            "--listen": f"127.0.0.1:{self.port}",
            "--admin": f"127.0.0.1:{self.admin}",
            "--service-account-dir": folder,
            "--kubernetes-host": host,
            "--kubernetes-port": port,
            "--check-interval": "1s",
            "--drain-delay": "1s",
        }
        words = [word for flag in flags.items() for word in flag]
        super().__init__([LARDER, "injector", "--self-signed", *words])

    def is_ready(self):
        return answers(f"http://127.0.0.1:{self.admin}/readyz")

    def metric(self, name):
        text = requests.get(f"http://127.0.0.1:{self.admin}/metrics", timeout=10).text
        return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)[1])

    def certificate(self, bundle):
        """What it shows to a client that trusts `bundle`."""
        context = ssl.create_default_context(cadata=bundle)
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=NAME) as secure,
        ):
            return secure.getpeercert(binary_form=True)


def bundle(cluster):
    client = cluster.get(CONFIGURATION).object["webhooks"][0]["clientConfig"]
    return base64.b64decode(client.get("caBundle", "")).decode()


def call(cluster, **client):
    """Changes how the API server calls the webhook."""
    hook = {"name": "injector.larder.dev", "clientConfig": client}
    assert cluster.merge(CONFIGURATION, {"webhooks": [hook]})


@pytest.fixture(scope="module")
def release(cluster):
    with installed(cluster, *values("injection=webhook")):
        # Nothing routes to a Service here; a name for this machine is followed.
        change = {"type": "ExternalName", "externalName": "localhost", "clusterIP": None}
        assert cluster.merge(SERVICE, {"spec": change}, "merge-patch")
        until(lambda: checks(cluster), "the check is in force", PATIENCE)
        yield cluster


@pytest.fixture(scope="module")
def replicas(release, tmp_path_factory):
    """Two that start at once, each on its own; the API server calls the first."""
    folder = tmp_path_factory.mktemp("replicas")
    both = [Replica(release, folder / name) for name in "ab"]
    try:
        service = {"name": "larder-injector", "namespace": NAMESPACE, "path": "/mutate"}
        call(release, service={**service, "port": both[0].port})
        for one in both:
            one.wait_until(one.is_ready, "the injector is ready")
        until(lambda: injects(release), "the webhook is called", PATIENCE)
        yield both
    finally:
        assert [one.stop() for one in both] == [0, 0]


def unhelped(cluster):
    """Makes a pod that asks for larder, and gets a warning instead."""
    made = cluster.pod(pods.pod())
    assert made and sidecar(made) is None
    assert any("larder" in warning for warning in made.warnings), made.warnings
    return made


def test_pods_that_ask_get_larder_and_others_are_not_even_sent(release, replicas):
    first = replicas[0]
    injected, skipped = (
        lambda: first.metric('larder_injector_requests_total{outcome="injected"}'),
        lambda: first.metric('larder_injector_requests_total{outcome="skipped"}'),
    )
    before = injected()
    made = release.pod(pods.pod())
    assert sidecar(made)["restartPolicy"] == "Always" and not made.warnings
    assert made.object["metadata"]["annotations"] == {"larder.dev/injected": "webhook"}
    assert injected() == before + 1
    before = injected() + skipped()
    assert sidecar(release.pod(pods.pod(labels={}))) is None
    assert injected() + skipped() == before


def test_what_cannot_be_followed_is_said(release, replicas):
    made = release.pod(pods.pod({"memory-limit": "much"}))
    assert sidecar(made)["resources"]["limits"] == {"memory": "256Mi"}
    assert any("larder.dev/memory-limit" in warning for warning in made.warnings)


def test_replicas_share_an_authority_that_goes_with_the_webhook(release, replicas):
    secret = release.get(SECRET).object
    authority = base64.b64decode(secret["data"]["tls.crt"]).decode()
    assert secret["type"] == "kubernetes.io/tls"
    owner = secret["metadata"]["ownerReferences"][0]
    assert owner["uid"] == release.get(CONFIGURATION).object["metadata"]["uid"]
    assert bundle(release) == authority
    shown = [one.certificate(authority) for one in replicas]
    assert shown[0] != shown[1]
    assert all(one.metric("larder_injector_certificate_expiry_seconds") > 0 for one in replicas)


def test_a_bundle_that_is_set_back_is_set_again(release, replicas):
    before = bundle(release)
    call(release, caBundle=None)
    assert until(lambda: bundle(release) == before, "caBundle is set again", PATIENCE)
    until(lambda: injects(release), "the webhook is called again", PATIENCE)


def test_an_authority_that_is_deleted_is_made_anew_without_a_gap(release, replicas):
    before = bundle(release)
    shown = [one.certificate(before) for one in replicas]
    gaps, done = [], threading.Event()

    def watch():
        while not done.is_set():
            gaps.extend([] if injects(release) else [1])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert release.delete(SECRET)
        until(lambda: release.get(SECRET), "there is another authority", PATIENCE)
        made = base64.b64decode(release.get(SECRET).object["data"]["tls.crt"]).decode()

        def moved():
            with contextlib.suppress(ssl.SSLError):
                return not {one.certificate(made) for one in replicas} & set(shown)

        until(moved, "both show certificates of the new authority", 60)
        assert bundle(release).startswith(made) and before in bundle(release)
    finally:
        done.set()
        watcher.join()
    assert not gaps


def test_pods_pass_with_a_warning_while_the_injector_hangs(release, replicas):
    replicas[0].signal(signal.SIGSTOP)
    try:
        unhelped(release)
    finally:
        replicas[0].signal(signal.SIGCONT)
    until(lambda: injects(release), "the webhook answers again", PATIENCE)


def test_pods_pass_with_a_warning_while_nobody_is_there(release, replicas):
    with called_at(release, replicas[0], free_port()):
        unhelped(release)


def test_pods_pass_with_a_warning_when_the_certificate_is_not_trusted(release, replicas, tmp_path):
    other = Injector(replicas[0].settings, registries.certificate(tmp_path / "tls"))
    try:
        with called_at(release, replicas[0], int(re.search(r":(\d+)/", other.url)[1])):
            unhelped(release)
    finally:
        other.stop()


@contextlib.contextmanager
def called_at(cluster, usual, port):
    """While the API server calls the webhook at another port than that of its usual server."""
    call(cluster, service={"port": port})
    try:
        until(lambda: not injects(cluster), "the other is called", PATIENCE)
        yield
    finally:
        call(cluster, service={"port": usual.port})
        until(lambda: injects(cluster), "the usual one is called", PATIENCE)


def test_changed_settings_count_without_a_restart(release, replicas):
    first = replicas[0]
    (first.settings / "memory-limit").write_text("300Mi")
    limit = lambda: sidecar(release.pod(pods.pod()))["resources"]["limits"]["memory"]  # noqa: E731
    until(lambda: limit() == "300Mi", "the setting is in force", PATIENCE)
    errors = lambda: first.metric("larder_injector_settings_reload_errors_total")  # noqa: E731
    before = errors()
    (first.settings / "memory-limit").write_text("much")
    until(lambda: errors() > before, "the wrong setting is counted", PATIENCE)
    assert limit() == "300Mi"
    (first.settings / "memory-limit").unlink()
    until(lambda: limit() == "256Mi", "the default is in force", PATIENCE)


@pytest.mark.parametrize("version", ["1.34", "1.35"])
def test_older_clusters_are_served(older, version, tmp_path):
    with webhook(older[version], tmp_path):
        assert sidecar(older[version].pod(pods.pod()))["restartPolicy"] == "Always"
