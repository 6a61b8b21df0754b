"""One world for all tests: the same rows in every store, Feast and larder before each."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from feast import FeatureStore

import repository
from world import Cassandra, DynamoDb, FeastServer, Larder, Redis


@dataclass
class Place:
    """A repository, and who serves it."""

    kind: str
    repo: Path
    feast: FeastServer
    larder: Larder

    @property
    def store(self):
        """Feast itself, without a server between."""
        return FeatureStore(str(self.repo))


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """A repository that is applied; its rows are in SQLite."""
    repo = tmp_path_factory.mktemp("feast") / "sqlite"
    repository.make(repo)
    empty = repo.with_name("empty")
    shutil.copytree(repo, empty)
    repository.fill(repo)
    return repo


@pytest.fixture(scope="session")
def redis_repo(base):
    """The same, in a Redis."""
    redis = Redis(base.with_name("redis-rows"))
    repo = repository.copy_for_redis(base.with_name("empty"), base.with_name("redis"), redis.port)
    repository.fill(repo)
    assert redis.ask("save") == "OK"
    yield repo, redis
    redis.stop()


@pytest.fixture(scope="session")
def cassandra(tmp_path_factory):
    server = Cassandra(tmp_path_factory.mktemp("cassandra"))
    yield server
    server.stop()


def cassandra_repo(kind, base, cassandra):
    """The same, in a keyspace of Cassandra, written by Feast's store of that kind."""
    # Feast's store for ScyllaDB begins each process in its default keyspace, whatever it is told.
    keyspace = "feast_keyspace" if kind == "scylladb" else "feast_cassandra"
    cassandra.create(keyspace)
    repo = base.with_name(kind)
    shutil.copytree(base.with_name("empty"), repo)
    repository.move_to_cassandra(repo, kind, keyspace, cassandra.port)
    repository.fill(repo)
    return repo


@pytest.fixture(scope="session")
def dynamodb_repo(base):
    """The same, in a DynamoDB Local; and a folder with its tables."""
    server = DynamoDb(base.with_name("dynamodb-tables"))
    repo = base.with_name("dynamodb")
    repository.copy_for_dynamodb(base.with_name("empty"), repo, server.url)
    repository.make_tables(repo)
    repository.fill(repo)
    server.stop()
    tables = base.with_name("dynamodb-rows")
    shutil.copytree(server.folder, tables)
    server = server.again()
    yield repo, tables
    server.stop()


def served(kind, repo):
    processes = []
    try:
        processes.append(FeastServer(repo))
        processes.append(Larder(repo))
        yield Place(kind, repo, *processes)
    finally:
        for process in processes:
            process.stop()


@pytest.fixture(scope="session")
def on_sqlite(base):
    yield from served("sqlite", base)


@pytest.fixture(scope="session")
def on_redis(redis_repo):
    yield from served("redis", redis_repo[0])


@pytest.fixture(scope="session")
def on_cassandra(base, cassandra):
    yield from served("cassandra", cassandra_repo("cassandra", base, cassandra))


@pytest.fixture(scope="session")
def on_scylladb(base, cassandra):
    """Feast's store for ScyllaDB, which writes to Cassandra as well."""
    yield from served("scylladb", cassandra_repo("scylladb", base, cassandra))


@pytest.fixture(scope="session")
def on_dynamodb(dynamodb_repo):
    yield from served("dynamodb", dynamodb_repo[0])


@pytest.fixture(params=["sqlite", "redis", "cassandra", "dynamodb"])
def place(request):
    return request.getfixturevalue(f"on_{request.param}")


@pytest.fixture
def fragile(redis_repo, tmp_path):
    """A Redis of this test alone, with all rows, and larders on it, whose rows soon are stale."""
    repo, redis = redis_repo
    folder = tmp_path / "rows"
    folder.mkdir()
    shutil.copy(redis.folder / "dump.rdb", folder)
    alone = Redis(folder)
    processes = [alone]

    class Fragile:
        redis = alone
        repo_ = repository.copy_for_redis(repo, tmp_path / "repo", alone.port)

        def larder(self, **environment):
            environment = {"LARDER_FRESHNESS__TTL": "300ms", **environment}
            processes.append(Larder(self.repo_, patient=False, **environment))
            return processes[-1]

        def kill(self):
            self.redis.kill()

        def start(self):
            self.redis = self.redis.again()
            processes.append(self.redis)

        def push(self, riders, count):
            repository.push_rides(FeatureStore(str(self.repo_)), riders, count)

    yield Fragile()
    for process in reversed(processes):
        process.stop()
