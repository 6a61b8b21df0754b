"""Registries that Feast keeps in databases, in S3 and behind its own server are read and followed."""

import shutil
import subprocess
import uuid
from contextlib import contextmanager

import boto3
import pytest
import requests
import yaml
from feast import FeatureService, FeatureStore, RepoConfig

import registries
from world import LARDER, Larder, until

# Feast 0.67's `apply` loses a view when its cache expires before the view is written.
PATIENT = {"cache_ttl_seconds": 3600}
ONLINE_STORE = {"type": "sqlite", "path": "data/online_store.db"}
FEATURES = ["rides:count", "rides:mean", "rides:home", "weather:rain", "global_fv:g"]
ROWS = [{"rider_id": 3, "city": "Köln"}, {"rider_id": 7, "city": ""}, {"rider_id": 50, "city": ""}]
FAST = {"LARDER_REGISTRY__REFRESH_INTERVAL": "200ms"}


def configure(repo, registry):
    config = {
        "project": "repo1",
        "provider": "local",
        "registry": registry,
        "online_store": ONLINE_STORE,
        "entity_key_serialization_version": 3,
    }
    (repo / "feature_store.yaml").write_text(yaml.safe_dump(config))


@pytest.fixture(scope="module")
def definitions(base):
    """All objects of the repository, as Feast applied them to a file."""
    feast = FeatureStore(str(base))
    registry, project = feast.registry, feast.project
    lists = [registry.list_entities, registry.list_data_sources, registry.list_all_feature_views]
    lists.append(registry.list_feature_services)
    return [one for objects in lists for one in objects(project)]


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """Each is started when it is first wanted."""
    started = {}

    def of(kind):
        if kind not in started:
            started[kind] = kind(tmp_path_factory.mktemp("servers"))
        return started[kind]

    yield of
    for server in started.values():
        server.stop()


class Kept:
    """A registry of a test's own: who keeps it, who writes it, and a repository to serve it from."""

    def __init__(self, repo, server, writer=None):
        self.repo, self.server, self.writer = repo, server, writer or repo

    def feast(self, **changes):
        config = yaml.safe_load((self.repo / "feature_store.yaml").read_text())
        return FeatureStore(config=RepoConfig(**{**config, **changes}, repo_path=self.repo))

    @contextmanager
    def larder(self, **environment):
        larder = Larder(self.repo, **FAST, **environment)
        try:
            yield larder
        finally:
            larder.stop()


@pytest.fixture(params=["postgres", "mariadb", "s3", "remote", "remote_tls"])
def kept(request, base, definitions, tmp_path, servers, monkeypatch):
    repo = tmp_path / "repo"
    shutil.copytree(base, repo)
    if not request.param.startswith("remote"):
        kinds = {"postgres": registries.Postgres, "mariadb": registries.MariaDb}
        server = servers(kinds.get(request.param, registries.S3))
        for name, value in getattr(server, "environment", {}).items():
            monkeypatch.setenv(name, value)
        # boto3 keeps the credentials that it found first.
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
        configure(repo, {**server.registry(f"r{uuid.uuid4().hex}"), **PATIENT})
        FeatureStore(str(repo)).apply(definitions)
        yield Kept(repo, server)
        return
    # Feast's server reads the file that the writer writes, anew each second.
    writer, source = tmp_path / "writer", tmp_path / "source"
    shutil.copytree(repo, writer)
    source.mkdir()
    file = str(writer / "data" / "registry.db")
    configure(writer, {"path": file, **PATIENT})
    configure(source, {"path": file, "cache_ttl_seconds": 1})
    certificate = None
    registry = {"registry_type": "remote"}
    if request.param == "remote_tls":
        certificate = registries.certificate(tmp_path / "tls")
        registry["cert"] = str(certificate.with_name("ca.crt"))
    server = registries.RegistryServer(source, certificate)
    configure(repo, {**registry, "path": f"localhost:{server.port}"})
    try:
        yield Kept(repo, server, writer)
    finally:
        server.stop()


def ask(store):
    return store.get_online_features(FEATURES, ROWS, full_feature_names=True).to_dict()


def answers_as(expected, kept, larder):
    """Feast's SDK gets from larder what it reads itself."""
    return ask(kept.feast(online_store={"type": "remote", "path": larder.url})) == expected


def status(larder):
    return requests.get(larder.admin + "/status", timeout=10).json()["registry"]


def serves_service(larder, name):
    body = {"feature_service": name, "entities": {"rider_id": [3]}}
    answer = requests.post(larder.url + "/get-online-features", json=body, timeout=30)
    assert answer.status_code in (200, 404), answer.text
    return answer.status_code == 200


def check(kept):
    """What `larder check` says, which needs no online store."""
    empty = kept.repo.with_name("empty")
    empty.mkdir()
    shutil.copy(kept.repo / "feature_store.yaml", empty)
    command = [LARDER, "check", "-c", empty]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_registry_is_read_and_followed_through_an_outage(kept, tmp_path):
    copy = tmp_path / "copy"
    said = check(kept)
    assert said.startswith("project repo1: ") and "warning" not in said
    expected = ask(kept.feast())
    assert expected["rides__count"][0] == 9
    feast = FeatureStore(str(kept.writer))
    with kept.larder(LARDER_REGISTRY__DISK_COPY=str(copy)) as larder:
        assert answers_as(expected, kept, larder)

        rides = feast.get_feature_view("rides")
        feast.apply([FeatureService(name="late", features=[rides[["count"]]])])
        until(lambda: serves_service(larder, "late"), "a new service is served")
        generation = status(larder)["generation"]

        kept.server.kill()
        until(lambda: status(larder)["last_error"], "the outage is noticed")
        assert serves_service(larder, "late")
        assert status(larder)["generation"] == generation
        assert requests.get(larder.admin + "/readyz", timeout=10).status_code == 200
        for secret in (registries.PASSWORD, registries.QUOTED):
            assert secret not in larder.output()
        until(lambda: copy.exists() and b"late" in copy.read_bytes(), "the copy is on the disk")

    with kept.larder(LARDER_REGISTRY__DISK_COPY=str(copy)) as larder:
        assert status(larder)["from_disk_copy"] is True
        assert serves_service(larder, "late")

        kept.server.start_again()
        until(lambda: not status(larder)["last_error"], "the registry is found again")
        assert status(larder)["from_disk_copy"] is False
        assert answers_as(expected, kept, larder)
        # Anew: what it has open is to the server that was killed.
        FeatureStore(str(kept.writer)).delete_feature_service("late")
        until(lambda: not serves_service(larder, "late"), "a deleted service is gone")
