"""Redis in its other forms: Feast writes, larder reads the same; and what callers see of failovers."""

import shutil
import threading
import time

import pytest
from feast import FeatureStore

import repository
from compare import plain
from redis_topologies import Cluster, Secure, Watched
from world import Larder, until

RIDERS = [n for n in range(1, 30) if n % 7]
# The deadline that each call sends, and what a busy machine may add to it.
DEADLINE, GRACE = 1.0, 2.0
# Rows are old at once, so that every answer shows whether the store was read.
IMPATIENT = {
    "LARDER_FRESHNESS__TTL": "50ms",
    "LARDER_FRESHNESS__NEGATIVE_TTL": "50ms",
    "LARDER_STORE__TIMEOUT": "500ms",
}


def filled(base, folder, online_store):
    """A repository whose rows Feast wrote to this store."""
    repo = folder / "repo"
    shutil.copytree(base.with_name("empty"), repo)
    repository.configure(repo, online_store)
    repository.fill(repo)
    return repo


def assert_larder_is_the_sdk(repo, larder):
    """All that the SDK reads of the store itself, larder answers over HTTP."""
    features = [f"rides:{f}" for f in "count mean home active last embedding".split()]
    features += ["fresh_rides:count", "all_types:f_str", "all_types:f_i64", "all_types:f_lf32"]
    entities = {"rider_id": [*range(1, 50)], "item_id": [1, 2, 3, 99] * 12 + [1]}
    body = {"features": features, "entities": entities, "full_feature_names": True}
    rows = [dict(zip(entities, values)) for values in zip(*entities.values())]
    store = FeatureStore(str(repo))
    wanted = store.get_online_features(features, rows, full_feature_names=True).to_dict()
    answer = larder.ask(**body)
    assert answer.status_code == 200, answer.text
    answer = answer.json()
    names = answer["metadata"]["feature_names"]
    got = {name: column["values"] for name, column in zip(names, answer["results"])}
    # The SDK has times as numbers, HTTP as text.
    for name in wanted.keys() - {"rides__last"}:
        assert plain(got[name]) == plain(wanted[name]), name
    assert any(value is not None for value in wanted["rides__home"])


class Calls:
    """Callers that do not stop asking. Every answer is checked, and timed."""

    def __init__(self, larder, callers=4):
        self.larder, self.stopped = larder, threading.Event()
        self.wrong, self.answers = [], []
        self.threads = [threading.Thread(target=self.call) for _ in range(callers)]
        for thread in self.threads:
            thread.start()

    def call(self):
        headers = {"larder-timeout-ms": str(int(DEADLINE * 1000))}
        while not self.stopped.is_set():
            began = time.monotonic()
            try:
                answer = self.larder.ask(["rides:count"], {"rider_id": RIDERS}, headers=headers)
                now = time.monotonic()
                is_fresh = answer.headers.get("larder-stale-rows") == "0"
                values = answer.json()["results"][1]["values"]
                if answer.status_code != 200 or values != [n * 3 for n in RIDERS]:
                    self.wrong.append(answer.text[:500])
                if now - began > DEADLINE + GRACE:
                    self.wrong.append(f"a call took {now - began:.2f} s")
                self.answers.append((now, is_fresh))
            except Exception as error:  # what a caller must not see
                self.wrong.append(repr(error))

    def fresh_after(self, moment):
        """When, after this moment, all rows of an answer were fresh."""
        fresh = [at for at, is_fresh in self.answers if is_fresh and at > moment]
        return min(fresh, default=None)

    def has_stale(self):
        return any(not is_fresh for _, is_fresh in self.answers)

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join()


@pytest.mark.parametrize("topology", [Cluster, Watched])
@pytest.mark.parametrize("read_from", ["master", "prefer_replica"])
def test_a_failover_shows_no_wrong_value_and_is_over_soon(base, tmp_path, topology, read_from):
    servers = topology(tmp_path / "servers")
    larder = None
    try:
        repo = filled(base, tmp_path, servers.online_store)
        patient = Larder(repo, LARDER_STORE__REDIS__READ_FROM=read_from)
        try:
            assert_larder_is_the_sdk(repo, patient)
        finally:
            patient.stop()
        larder = Larder(repo, patient=False, LARDER_STORE__REDIS__READ_FROM=read_from, **IMPATIENT)
        until(lambda: larder.ask(["rides:count"], {"rider_id": RIDERS}).status_code == 200, "rows")
        calls = Calls(larder)
        try:
            servers.kill_a_master()
            killed = time.monotonic()
            if read_from == "master":
                until(calls.has_stale, "rows of the dead master are stale", 30)
            until(servers.has_recovered, "the store has recovered", 120)
            recovered = time.monotonic()
            fresh = until(lambda: calls.fresh_after(recovered), "rows are fresh again", 30)
            print(
                f"{topology.__name__}, {read_from}: the store recovered {recovered - killed:.2f} s "
                f"after the kill, rows were fresh {fresh - recovered:.2f} s after that"
            )
            assert fresh - recovered < 2
            asked = len(calls.answers)
            until(lambda: len(calls.answers) > asked + 50, "callers go on", 60)
        finally:
            calls.stop()
        assert calls.wrong == []
        assert_larder_is_the_sdk(repo, larder)
    finally:
        if larder:
            larder.stop()
        servers.stop()


def test_rows_behind_tls_and_a_login_are_the_same(base, tmp_path):
    servers = Secure(tmp_path / "servers")
    larder = None
    try:
        repo = filled(base, tmp_path, servers.online_store("admin", "admin-secret"))
        reader = tmp_path / "reader"
        shutil.copytree(repo, reader)
        repository.configure(reader, servers.online_store("reader", "secret"))
        larder = Larder(reader)
        assert_larder_is_the_sdk(repo, larder)
    finally:
        if larder:
            larder.stop()
        servers.stop()
