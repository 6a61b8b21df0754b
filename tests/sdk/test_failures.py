"""What callers see while the store fails, and after."""

import signal
import threading
import time

import pytest
from feast.protos.feast.serving.ServingService_pb2_grpc import ServingServiceStub

from asks import message
from compare import values
from world import connects, until

FEATURES = ["rides:count", "rides:home"]
SEEN = [n for n in range(1, 30) if n % 7]
UNSEEN = 43


def written(riders):
    return {
        "rider_id": riders,
        "count": [n * 3 for n in riders],
        "home": [None if n % 5 == 0 else f"home {n} é" for n in riders],
    }


def ask(larder, riders=SEEN, **more):
    return larder.ask(FEATURES, {"rider_id": riders}, **more)


def load_rows(larder, riders=SEEN):
    """Has the cache filled, however often a machine that stalls makes the store time out."""
    until(lambda: ask(larder, riders).status_code == 200, "the rows are loaded")
    assert values(ask(larder, riders)) == written(riders)


def stale_rows(answer):
    return int(answer.headers["larder-stale-rows"])


class Load:
    """Callers that do not stop asking, and check every answer."""

    def __init__(self, larder, callers=4):
        self.larder, self.stopped = larder, threading.Event()
        self.wrong, self.count = [], 0
        self.threads = [threading.Thread(target=self.call) for _ in range(callers)]
        for thread in self.threads:
            thread.start()

    def call(self):
        while not self.stopped.is_set():
            try:
                answer = ask(self.larder)
                if answer.status_code != 200 or values(answer) != written(SEEN):
                    self.wrong.append(answer.text[:500])
            except Exception as error:  # what a caller must not see
                self.wrong.append(repr(error))
            self.count += 1

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join()


def kill(fragile):
    fragile.kill()
    return fragile.start


def freeze(fragile):
    fragile.redis.signal(signal.SIGSTOP)
    return lambda: fragile.redis.signal(signal.SIGCONT)


@pytest.mark.parametrize("harm", [kill, freeze])
def test_rows_seen_before_are_answered_while_the_store_is_gone(fragile, harm):
    larder = fragile.larder()
    load_rows(larder)
    load = Load(larder)
    try:
        mend = harm(fragile)
        until(lambda: stale_rows(ask(larder)) == len(SEEN), "all rows are stale", 10)
        until(lambda: larder.sum("larder_breaker_open") == 1, "the breaker is open", 10)
        assert larder.sum("larder_rows_total", outcome="stale") > 0
        asked = load.count
        until(lambda: load.count > asked + 200, "callers go on", 30)
        mend()
        mended = time.monotonic()
        until(lambda: stale_rows(ask(larder)) == 0, "rows are fresh again", 5)
        print(f"Redis, {harm.__name__}: fresh after {time.monotonic() - mended:.2f} s")
        until(lambda: larder.sum("larder_breaker_open") == 0, "the breaker is closed", 5)
    finally:
        load.stop()
    assert load.wrong == []


def test_an_update_is_seen_once_the_store_is_back(fragile):
    larder = fragile.larder()

    def count():
        return larder.ask(["fresh_rides:count"], {"rider_id": [3]}).json()["results"][1]["values"]

    assert count() == [2]
    fragile.kill()
    until(lambda: larder.sum("larder_rows_total", outcome="stale") or not count(), "stale", 10)
    assert count() == [2]
    fragile.start()
    fragile.push([3], count=77)
    until(lambda: count() == [77], "the update is seen", 10)


@pytest.mark.parametrize("row", ["cold", "stale"])
@pytest.mark.parametrize("first", ["stays", "leaves"])
def test_a_thousand_requests_for_one_row_are_one_command_to_redis(fragile, row, first):
    # No caller is to be answered before all of them ask, be it with a stale value.
    larder = fragile.larder(
        LARDER_STORE__TIMEOUT="4m",
        LARDER_REQUESTS__DEFAULT_TIMEOUT="5m",
        LARDER_FRESHNESS__STALE_AFTER="4m",
        LARDER_FRESHNESS__TTL="300ms" if row == "stale" else "60s",
    )
    load_rows(larder, [2 if row == "stale" else 1])
    until(lambda: larder.sum("larder_flights") == 0, "nothing is under way")
    time.sleep(0.4 if row == "stale" else 0)
    body = {"features": ["rides:count"], "entities": {"rider_id": [2]}, "full_feature_names": False}
    request = message(body)
    commands = fragile.redis.commands("hmget")
    with larder.channel() as channel:
        ask_for = ServingServiceStub(channel).GetOnlineFeatures.future
        thaw = freeze(fragile)
        callers = [ask_for(request, timeout=300)]
        until(lambda: larder.sum("larder_flights") == 1, "the store is asked")
        callers += [ask_for(request, timeout=300) for _ in range(999)]
        until(lambda: larder.sum("larder_requests_in_flight") == 1000, "all wait")
        if first == "leaves":
            callers.pop(0).cancel()
            until(lambda: larder.sum("larder_requests_in_flight") == 999, "one has left")
        thaw()
        for caller in callers:
            assert caller.result().results[1].values[0].int64_val == 6
    assert fragile.redis.commands("hmget") == commands + 1


def test_rows_never_seen_are_unavailable_and_say_so(fragile):
    larder = fragile.larder()
    load_rows(larder)
    fragile.kill()
    answer = ask(larder, [UNSEEN])
    assert answer.status_code == 503
    assert "Retry-After" in answer.headers
    # A view that can answer some of its rows answers those.
    answer = ask(larder, [1, UNSEEN])
    assert answer.status_code == 200
    assert values(answer)["count"] == [3, None]
    assert answer.json()["results"][1]["statuses"] == ["PRESENT", "INVALID"]
    assert "rides" in answer.headers["larder-unavailable-views"]
    # Past its time to live, a row is not for those who refuse stale ones.
    until(lambda: stale_rows(ask(larder, [1])) == 1, "the row is stale", 10)
    assert ask(larder, [1], headers={"larder-allow-stale": "false"}).status_code == 503
    fragile.start()
    until(lambda: ask(larder, [UNSEEN]).status_code == 200, "the store is asked again", 5)
    assert values(ask(larder, [UNSEEN])) == written([UNSEEN])


def test_a_view_may_be_null_or_fail_instead(fragile):
    null = fragile.larder(LARDER_FRESHNESS__ON_UNAVAILABLE="null")
    error = fragile.larder(LARDER_FRESHNESS__ON_UNAVAILABLE="error")
    for larder in (null, error):
        load_rows(larder, [1])
    fragile.kill()
    assert values(ask(null, [UNSEEN]))["count"] == [None]
    assert ask(error, [1, UNSEEN]).status_code == 503


def test_larder_starts_without_its_store(fragile):
    fragile.kill()
    larder = fragile.larder()
    assert ask(larder, [1]).status_code == 503
    fragile.start()
    until(lambda: ask(larder, [1]).status_code == 200, "rows are read", 5)


def test_sigterm_lets_requests_finish(fragile):
    larder = fragile.larder(LARDER_STORE__TIMEOUT="20s", LARDER_REQUESTS__DEFAULT_TIMEOUT="25s")
    assert values(ask(larder, [2])) == written([2]), "the connection stands"
    answers = []
    thaw = freeze(fragile)
    caller = threading.Thread(
        target=lambda: answers.append(
            larder.ask(FEATURES, {"rider_id": [1]}, headers={"larder-timeout-ms": "25000"})
        )
    )
    caller.start()
    until(lambda: larder.sum("larder_flights") > 0, "the request waits for the store", 10)
    larder.signal(signal.SIGTERM)
    until(lambda: not connects(larder.port), "larder accepts no connections", 10)
    thaw()
    caller.join()
    assert values(answers[0]) == written([1])
    assert larder.child.wait(30) == 0, larder.output()
