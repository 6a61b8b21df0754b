"""The life of a pod with an injected larder, in the order in which Kubernetes does things."""

import signal
import threading
import time

import grpc
import pytest
from feast.protos.feast.serving.ServingService_pb2_grpc import ServingServiceStub

from asks import message
from conftest import STORE_YAML
from pod import LARDER_IN_POD, lines, wait_for_startup
from world import PATIENT, until

ADDRESS, SOCKET = "127.0.0.1:6566", "unix:/run/larder/larder.sock"
ABSTRACT = "unix-abstract:larder"
FALLING_BACK = [f"falls-back:{ADDRESS}", f"falls-back:{SOCKET}"]
CALLERS = [*FALLING_BACK, f"waits:{SOCKET}", f"waits:{ABSTRACT}"]
# What a container that is terminated is given by default.
GRACE = 30


def said(what):
    print(f"in a pod: {what}")


def start_app(pod, fallback, callers=CALLERS):
    return pod.python("/run/app/app.py", fallback, *callers)


def calls(app, source=None, since=0.0):
    """The calls of an application that were answered by `source` and begun since a time."""
    return [
        call
        for call in lines(app)
        if "caller" in call
        and (source is None or call["source"] == source)
        and call["begun"] >= since
    ]


def all_callers_have(app, source, since, callers=CALLERS, count=5):
    """Waits until each caller was answered by `source` some times."""

    def enough():
        failed = [call for call in calls(app) if call["error"]]
        assert not failed, failed[:5]
        found = [call["caller"] for call in calls(app, source, since)]
        return all(found.count(caller) >= count for caller in callers)

    app.wait_until(enough, f"{source} answers {callers}")


def end_app(app, processes=()):
    """Ends an application as a kubelet does, and checks every call it has made."""
    app.signal(signal.SIGTERM)
    assert app.ended(GRACE) == 0, app.output()[-4000:]
    made = calls(app)
    failed = [call for call in made if call["error"]]
    assert made and not failed, (failed[:5], [process.output()[-4000:] for process in processes])
    return made


def get(riders, timeout=10, target=ADDRESS):
    """Asks by a channel of its own."""
    body = {"features": ["rides:count"], "entities": {"rider_id": riders}}
    request = message({**body, "full_feature_names": False})
    options = [("grpc.default_authority", "localhost")]
    with grpc.insecure_channel(target, options=options) as channel:
        answer = ServingServiceStub(channel).GetOnlineFeatures(request, timeout=timeout)
    return [value.int64_val for value in answer.results[1].values]


def test_the_app_starts_behind_a_larder_that_is_ready(cluster, fallback):
    pod = cluster.pod()
    larder = pod.sidecar()
    said(f"ready {wait_for_startup(larder, period=0.02):.2f} s after the container was started")
    # Ready is before anything was read: the first requests are answered, by larder.
    app = start_app(pod, fallback)
    begun = time.time()
    all_callers_have(app, "larder", begun)
    made = end_app(app, [larder])
    assert {call["source"] for call in made} == {"larder"}
    assert larder.stop() == 0, larder.output()


def test_a_killed_larder_fails_no_call(cluster, fallback):
    pod = cluster.pod()
    larder = pod.sidecar()
    wait_for_startup(larder)
    app = start_app(pod, fallback)
    all_callers_have(app, "larder", 0)
    gaps = []
    for _ in range(3):
        left = pod.run / "larder.sock"
        killed = time.time()
        larder.kill()
        assert left.is_socket(), "what is killed leaves its socket"
        larder = pod.sidecar()
        wait_for_startup(larder)
        all_callers_have(app, "larder", killed)
        first = min(call["ended"] for call in calls(app, "larder", killed))
        gaps.append(first - killed)
        all_callers_have(app, "larder", time.time())
    made = end_app(app, [larder])

    def slowest(kind):
        return max(c["ended"] - c["begun"] for c in made if c["caller"].startswith(kind))

    share = sum(call["source"] == "fallback" for call in made)
    said(
        f"killed under load, 3 times: larder answered again after"
        f" {', '.join(f'{gap:.2f}' for gap in gaps)} s; {len(made)} calls, none failed,"
        f" {share} of them by the fallback; the slowest took {slowest('falls-back'):.2f} s where"
        f" callers fall back, {slowest('waits'):.2f} s where they wait"
    )


def in_flight(larder):
    name = "larder_requests_in_flight "
    found = [line for line in larder.metrics().splitlines() if line.startswith(name)]
    return float(found[0].split()[1])


def test_the_native_order_of_ending_fails_no_call(cluster, fallback):
    """The app ends first; then larder is told to."""
    pod = cluster.pod()
    larder = pod.sidecar(**PATIENT)
    wait_for_startup(larder)
    app = start_app(pod, fallback)
    all_callers_have(app, "larder", 0)
    end_app(app, [larder])
    told = time.monotonic()
    assert larder.stop() == 0, larder.output()
    said(f"told to end after the app, larder had ended after {time.monotonic() - told:.2f} s")
    assert not (pod.run / "larder.sock").exists(), "it takes its socket away"


def test_a_request_under_way_is_answered_when_larder_is_told_to_end(cluster):
    pod = cluster.pod()
    larder = pod.sidecar(**PATIENT)
    wait_for_startup(larder)
    assert until(lambda: get([2]), "the connection stands") == [6]
    cluster.redis.signal(signal.SIGSTOP)
    answers = []
    caller = threading.Thread(target=lambda: answers.append(get([1])))
    caller.start()
    until(lambda: in_flight(larder) == 1, "the request waits for the store")
    larder.signal(signal.SIGTERM)
    until(lambda: "stopping" in larder.output(), "larder is told")
    cluster.redis.signal(signal.SIGCONT)
    caller.join()
    assert answers == [[3]]
    assert larder.ended() == 0, larder.output()


def test_drain_lets_larder_outlive_an_app_that_is_told_to_end_together_with_it(cluster, fallback):
    """A container that is no native sidecar: its preStop hook runs, then it gets SIGTERM."""
    pod = cluster.pod()
    larder = pod.sidecar(**PATIENT)
    wait_for_startup(larder)
    app = start_app(pod, fallback)
    all_callers_have(app, "larder", 0)
    hook = []
    drain = threading.Thread(target=lambda: hook.append(larder.exec(LARDER_IN_POD, "drain")))
    told = time.time()
    drain.start()
    # An app that takes its time to end goes on asking.
    all_callers_have(app, "larder", told + 1)
    assert drain.is_alive(), "it waits for as long as there are requests"
    made = end_app(app, [larder])
    drain.join()
    assert hook[0].returncode == 0, hook[0]
    said(f"`larder drain` ended {time.time() - made[-1]['ended']:.1f} s after the last request")
    assert {call["source"] for call in made} == {"larder"}
    assert larder.stop() == 0, larder.output()


BAD = {"feature_store__yaml": STORE_YAML.replace("redis,", "rediss,")}


@pytest.mark.parametrize("config", [{}, BAD], ids=["missing", "wrong"])
def test_a_config_that_is_missing_or_wrong_keeps_no_app_from_starting(cluster, fallback, config):
    pod = cluster.pod(config)
    begun = time.monotonic()
    larder = pod.sidecar(LARDER_STARTUP__MAX_WAIT="3s")
    wait_for_startup(larder, period=0.2)
    took = time.monotonic() - begun
    assert took >= 3, "it is waited for, and no longer than it may take"
    app = start_app(pod, fallback, FALLING_BACK)
    all_callers_have(app, "fallback", 0, FALLING_BACK)
    assert not calls(app, "larder")
    with pytest.raises(grpc.RpcError) as raised:
        get([1])
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
    reason = raised.value.details()
    assert "feature_store.yaml" in reason, reason
    said(f"config {'wrong' if config else 'missing'}: callers are told `{reason}`")
    mended = time.time()
    pod.config.put(feature_store__yaml=STORE_YAML)
    all_callers_have(app, "larder", mended, FALLING_BACK)
    first = min(call["ended"] for call in calls(app, "larder", mended))
    said(f"it is mended: larder answers {first - mended:.2f} s later")
    end_app(app, [larder])
    assert larder.stop() == 0, larder.output()


def test_settings_of_larder_come_from_the_same_config_map(cluster):
    settings = "cache: {max_bytes: 7MiB}"
    pod = cluster.pod({"feature_store__yaml": STORE_YAML, "larder__yaml": settings})
    larder = pod.sidecar()
    wait_for_startup(larder)
    assert larder.status()["cache"]["max_bytes"] == 7 << 20


def test_memory_is_bounded_by_what_the_container_has(cluster):
    """By half of its limit, or 256 MiB."""
    pod = cluster.pod()
    larder = pod.sidecar()
    wait_for_startup(larder)
    assert larder.status()["cache"]["max_bytes"] == 128 << 20
    larder.stop()
    larder = pod.sidecar(LARDER_MEMORY=str(4 << 30))
    wait_for_startup(larder)
    assert larder.status()["cache"]["max_bytes"] == 256 << 20


def test_a_store_that_is_down_keeps_no_app_from_starting(cluster, fallback):
    cluster.redis.kill()
    pod = cluster.pod()
    larder = pod.sidecar()
    wait_for_startup(larder)
    with pytest.raises(grpc.RpcError) as raised:
        get([1])
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
    cluster.start_redis()

    def answered():
        try:
            return get([1]) == [3]
        except grpc.RpcError:
            return False

    until(answered, "rows are read", 10)


def test_an_app_without_a_larder_asks_its_fallback(cluster, fallback):
    """Injection failed open, or the pod is of a namespace without it."""
    pod = cluster.pod()
    callers = ["falls-back:"]
    app = start_app(pod, fallback, callers)
    all_callers_have(app, "fallback", 0, callers)
    assert {call["source"] for call in end_app(app)} == {"fallback"}
