"""A repository whose rows Feast has written to a Redis, and pods on it."""

import shutil
import sys
from pathlib import Path

import grpc
import pytest
from feast.protos.feast.serving.GrpcServer_pb2_grpc import GrpcFeatureServerStub

HERE = Path(__file__).resolve().parent
# What starts real services is shared with the tests of real clients.
sys.path.insert(0, str(HERE.parent / "sdk"))

import repository  # noqa: E402
from asks import message  # noqa: E402
from pod import Pod, check_surroundings  # noqa: E402
from world import FeastListener, Redis  # noqa: E402

# The pod's network is the tests' own, so a port may be fixed; what reads the store need not be
# started anew for each of its servers.
REDIS_PORT = 6379

STORE_YAML = """\
project: repo1
provider: local
registry: {path: /run/registry/registry.db}
online_store: {type: redis, connection_string: '127.0.0.1:6379'}
entity_key_serialization_version: 3
"""


@pytest.fixture(scope="session")
def rows(tmp_path_factory):
    """A folder with a repository, and one with the rows of its Redis."""
    check_surroundings()
    base = tmp_path_factory.mktemp("feast")
    redis = Redis(base / "rows", REDIS_PORT)
    repo = base / "repo"
    repository.make(repo)
    repository.configure(repo, f"{{type: redis, connection_string: '127.0.0.1:{REDIS_PORT}'}}")
    repository.fill(repo)
    assert redis.ask("save") == "OK"
    redis.stop()
    return repo, redis.folder


@pytest.fixture(scope="session")
def fallback(rows):
    """`feast listen` on the same rows: what an application asks when there is no larder."""
    redis = Redis(rows[1], REDIS_PORT)
    server = FeastListener(rows[0])
    request = message(
        {
            "features": ["rides:count"],
            "entities": {"rider_id": [1]},
            "full_feature_names": False,
        }
    )
    # Its first answer takes seconds.
    with grpc.insecure_channel(server.address) as channel:
        GrpcFeatureServerStub(channel).GetOnlineFeatures(request, timeout=60)
    redis.stop()
    yield server.address
    server.stop()


class Cluster:
    """What a pod finds when it is scheduled: the store, and the files of its ConfigMap."""

    def __init__(self, folder, rows):
        self.repo, saved = rows
        shutil.copytree(saved, folder / "rows")
        self.redis = Redis(folder / "rows", REDIS_PORT)
        self.folder, self.pods = folder, []

    def start_redis(self):
        """Starts it again, with its rows."""
        self.redis = self.redis.again()

    def pod(self, config=None, **options):
        if config is None:
            config = {"feature_store__yaml": STORE_YAML}
        folder = self.folder / f"pod-{len(self.pods)}"
        self.pods.append(Pod(folder, config, self.repo / "data", **options))
        return self.pods[-1]

    def stop(self):
        for process in [*reversed(self.pods), self.redis]:
            process.stop()


@pytest.fixture
def cluster(rows, tmp_path):
    cluster = Cluster(tmp_path, rows)
    yield cluster
    cluster.stop()
