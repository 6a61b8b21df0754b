"""One world for all tests: the same rows in SQLite and in Redis, Feast and larder before both."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from feast import FeatureStore

import repository
from world import FeastServer, Larder, Redis


@dataclass
class Place:
    """A repository, and who serves it."""

    kind: str
    repo: Path
    redis: Redis | None
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


def served(kind, repo, redis):
    processes = []
    try:
        processes.append(FeastServer(repo))
        processes.append(Larder(repo))
        yield Place(kind, repo, redis, *processes)
    finally:
        for process in processes:
            process.stop()


@pytest.fixture(scope="session")
def on_sqlite(base):
    yield from served("sqlite", base, None)


@pytest.fixture(scope="session")
def on_redis(redis_repo):
    yield from served("redis", *redis_repo)


@pytest.fixture(params=["sqlite", "redis"])
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
