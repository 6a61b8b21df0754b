"""Cassandra that is killed under load, and comes back."""

import shutil
import threading
import time

import pytest
from cassandra import OperationTimedOut
from cassandra.cluster import Cluster, NoHostAvailable
from feast import FeatureStore

import repository
from conftest import cassandra_repo
from test_failures import SEEN, UNSEEN, Load, ask, load_rows, stale_rows, values, written
from world import Cassandra, Larder, until

DEADLINE = 1.0


@pytest.fixture
def alone(base, tmp_path_factory):
    """A Cassandra of this test alone, and a larder on it whose rows soon are stale."""
    processes = [Cassandra(tmp_path_factory.mktemp("rows"))]
    copied = tmp_path_factory.mktemp("alone") / "sqlite"
    shutil.copytree(base.with_name("empty"), copied.with_name("empty"))

    class Alone:
        cassandra = processes[0]
        repo = cassandra_repo("cassandra", copied, cassandra)

        def larder(self):
            processes.append(Larder(self.repo, patient=False, LARDER_FRESHNESS__TTL="300ms"))
            return processes[-1]

        def start(self):
            processes.append(self.cassandra.again())

    yield Alone()
    for process in reversed(processes):
        process.stop()


class Slowest:
    """Asks for rows that the cache does not have, and keeps how long the slowest answer took."""

    def __init__(self, larder):
        self.larder, self.stopped, self.seconds = larder, threading.Event(), 0.0
        self.thread = threading.Thread(target=self.call)
        self.thread.start()

    def call(self):
        while not self.stopped.is_set():
            begun = time.monotonic()
            assert ask(self.larder, [UNSEEN + 1000]).status_code in (200, 503)
            self.seconds = max(self.seconds, time.monotonic() - begun)

    def stop(self):
        self.stopped.set()
        self.thread.join()


def readable(cassandra):
    """When a driver that knows nothing of the past could first read a row."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        cluster = Cluster(["127.0.0.1"], port=cassandra.port, connect_timeout=1)
        try:
            session = cluster.connect("feast_cassandra")
            if list(session.execute("SELECT * FROM repo1_rides LIMIT 1")):
                return time.monotonic()
        except (NoHostAvailable, OperationTimedOut):
            time.sleep(0.02)
        finally:
            cluster.shutdown()


def test_a_killed_cassandra_is_missed_by_nobody_and_read_again_at_once(alone, capsys):
    larder = alone.larder()
    load_rows(larder)
    load, slowest = Load(larder), Slowest(larder)
    try:
        alone.cassandra.kill()
        until(lambda: stale_rows(ask(larder)) == len(SEEN), "all rows are stale", 10)
        until(lambda: larder.sum("larder_breaker_open") == 1, "the breaker is open", 10)
        asked = load.count
        until(lambda: load.count > asked + 200, "callers go on", 30)

        back = []
        watch = lambda: back.append(readable(alone.cassandra))
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        # Not by a thread of its own, with which it would end.
        alone.start()
        until(lambda: stale_rows(ask(larder)) == 0, "rows are fresh again", 120)
        fresh = time.monotonic()
        watcher.join()
        after = fresh - back[0]
        with capsys.disabled():
            print(f"\nfresh after {after:.2f} s")
        assert after < 2
    finally:
        load.stop()
        slowest.stop()
    assert load.wrong == []
    # Twice the deadline, for machines that stall.
    assert slowest.seconds < 2 * DEADLINE, slowest.seconds

    store = FeatureStore(str(alone.repo))
    repository.push_rides(store, [3], count=77)
    count = {"features": ["fresh_rides:count"], "entities": {"rider_id": [3]}}
    until(lambda: larder.ask(**count).json()["results"][1]["values"] == [77], "an update", 10)
    assert values(ask(larder, [UNSEEN])) == written([UNSEEN])
