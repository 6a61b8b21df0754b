"""One API server for all tests, and older ones for those that ask for them."""

import sys
from pathlib import Path

import pytest

# Processes are started and ended as for the tests of real clients.
sys.path.append(str(Path(__file__).resolve().parent.parent / "sdk"))

from cluster import ApiServer, Etcd  # noqa: E402


@pytest.fixture(scope="session")
def etcd(tmp_path_factory):
    server = Etcd(tmp_path_factory.mktemp("etcd"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def cluster(etcd, tmp_path_factory):
    server = ApiServer(etcd, tmp_path_factory.mktemp("kubernetes") / "current")
    yield server.wait()
    server.stop()


@pytest.fixture(scope="session")
def older(etcd, tmp_path_factory):
    """By release, API servers that behave as those did."""
    folder = tmp_path_factory.mktemp("kubernetes")
    servers = {}
    try:
        for release in ("1.34", "1.35", "1.36"):
            servers[release] = ApiServer(etcd, folder / release, release)
        yield {release: server.wait() for release, server in servers.items()}
    finally:
        for server in servers.values():
            server.stop()
