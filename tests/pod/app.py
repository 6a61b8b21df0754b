"""An application that asks for features all the time, until SIGTERM; then it finishes its calls.

    app.py FALLBACK CALLER...

A caller is KIND:TARGET, and an empty TARGET means that there is no larder. Of the kinds, `falls-back`
is examples/python, and `waits` has no other server to ask: it waits for larder, and retries once. Each
call becomes a line: who asked, when, for how long, who answered, and what was wrong.
"""

import json
import random
import signal
import sys
import threading
import time

import grpc
from feast.protos.feast.serving.GrpcServer_pb2_grpc import GrpcFeatureServerStub
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesRequest

sys.path.insert(0, "/run/examples/python")
from features import OPTIONS, Features  # noqa: E402

RIDERS = [n for n in range(1, 30) if n % 7]
PAUSE = 0.01
stopped = threading.Event()


class Noted:
    """A server, and whether it was the one that was asked."""

    def __init__(self, server):
        self.server, self.asked = server, False

    def GetOnlineFeatures(self, request, timeout):
        self.asked = True
        return self.server.GetOnlineFeatures(request, timeout=timeout)


def falls_back(target, fallback):
    # A larder that is asked for the first time reads from the store; patience is not the subject.
    features = Features(fallback, target)
    other = features.servers[-1] = Noted(features.servers[-1])

    def ask(request):
        other.asked = False
        answer = features.get(request, timeout=2, fallback_timeout=10)
        return answer, "fallback" if other.asked else "larder"

    return ask


def waits(target, _):
    larder = GrpcFeatureServerStub(grpc.insecure_channel(target, options=OPTIONS))

    def ask(request):
        return larder.GetOnlineFeatures(request, timeout=20, wait_for_ready=True), "larder"

    return ask


KINDS = {"falls-back": falls_back, "waits": waits}


def wrong(answer, riders):
    columns = dict(zip(answer.metadata.feature_names.val, answer.results))
    counts = [value.int64_val for value in columns["count"].values]
    return None if counts == [n * 3 for n in riders] else str(columns["count"])


def call_until_stopped(kind, target, fallback):
    ask = KINDS[kind](target, fallback)
    while not stopped.is_set():
        riders = random.sample(RIDERS, 5)
        request = GetOnlineFeaturesRequest()
        request.features.val.append("rides:count")
        for rider in riders:
            request.entities["rider_id"].val.add(int64_val=rider)
        begun, source, error = time.time(), None, None
        try:
            answer, source = ask(request)
            error = wrong(answer, riders)
        except Exception as failure:  # what a caller must not see
            error = repr(failure)
        line = {
            "caller": f"{kind}:{target}",
            "begun": begun,
            "ended": time.time(),
            "source": source,
            "error": error,
        }
        print(json.dumps(line) + "\n", end="", flush=True)
        stopped.wait(PAUSE)


def main():
    fallback, *callers = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    threads = [
        threading.Thread(target=call_until_stopped, args=(*caller.split(":", 1), fallback))
        for caller in callers
    ]
    for thread in threads:
        thread.start()
    # Not `join`: Python handles signals in its main thread, between two instructions.
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.01)


if __name__ == "__main__":
    main()
