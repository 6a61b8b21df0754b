"""DynamoDB that is killed under load, and one that throttles and leaves keys out."""

import http.client
import json
import random
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import repository
from test_failures import SEEN, UNSEEN, Load, ask, load_rows, stale_rows, values, written
from world import DynamoDb, Larder, until

# What a request may take, by larder's default, and what a busy machine adds.
DEADLINE = 1.0
SLACK = 2.0
# Rows are fresh so long after the store is back.
RECOVERY = 2.0


class Front(ThreadingHTTPServer):
    """Stands before DynamoDB, and does what DynamoDB Local never does. `mood` says what."""

    daemon_threads = True

    def __init__(self, behind):
        self.behind, self.mood, self.random = behind, "calm", random.Random(7)
        super().__init__(("127.0.0.1", 0), Caller)
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Caller(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        mood = self.server.mood
        if mood == "throttles":
            kind = "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException"
            return self.say(400, json.dumps({"__type": kind, "message": "slow down"}).encode())
        if mood == "leaves some out" and self.headers["x-amz-target"].endswith(".BatchGetItem"):
            return self.say(*self.leave_out(json.loads(body)))
        self.say(*self.ask(body))

    def leave_out(self, request):
        """Leaves a third of the keys out, but never answers without any."""
        unprocessed = {}
        for table, asked in request["RequestItems"].items():
            left = [k for k in asked["Keys"] if self.server.random.random() < 1 / 3]
            left = left[: len(asked["Keys"]) - 1]
            asked["Keys"] = [key for key in asked["Keys"] if key not in left]
            if left:
                unprocessed[table] = {**asked, "Keys": left}
        status, answer = self.ask(json.dumps(request).encode())
        return status, json.dumps({**json.loads(answer), "UnprocessedKeys": unprocessed}).encode()

    def ask(self, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=10)
        names = ("x-amz-target", "content-type", "authorization", "x-amz-date", "host")
        connection.request("POST", "/", body, {name: self.headers[name] for name in names})
        answer = connection.getresponse()
        found = answer.status, answer.read()
        connection.close()
        return found

    def say(self, status, body):
        self.send_response(status)
        self.send_header("content-type", "application/x-amz-json-1.0")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def alone(dynamodb_repo, tmp_path):
    """A DynamoDB Local of this test alone, with all rows, a front, and larders on either."""
    repo, tables = dynamodb_repo
    processes, folder = [], tmp_path / "tables"
    shutil.copytree(tables, folder)

    class Alone:
        server = DynamoDb(folder)
        front = Front(server.port)

        def larder(self, url, **environment):
            name = f"repo-{len(processes)}"
            copy = repository.copy_for_dynamodb(repo, tmp_path / name, url)
            environment = {"LARDER_FRESHNESS__TTL": "300ms", **environment}
            processes.append(Larder(copy, patient=False, **environment))
            return processes[-1]

        def start(self):
            self.server = self.server.again()
            processes.append(self.server)

    alone = Alone()
    processes.append(alone.server)
    yield alone
    alone.front.shutdown()
    for process in reversed(processes):
        process.stop()


class Slowest:
    """Asks for rows that the cache does not have, checks the answers and times the slowest."""

    def __init__(self, larder):
        self.larder, self.stopped = larder, threading.Event()
        self.seconds, self.codes, self.wrong = 0.0, set(), []
        self.thread = threading.Thread(target=self.call)
        self.thread.start()

    def call(self):
        while not self.stopped.is_set():
            begun = time.monotonic()
            fresh = {"larder-max-age-ms": "0", "larder-allow-stale": "false"}
            answer = ask(self.larder, [UNSEEN], headers=fresh)
            self.seconds = max(self.seconds, time.monotonic() - begun)
            self.codes.add(answer.status_code)
            if answer.status_code == 200 and values(answer) != written([UNSEEN]):
                self.wrong.append(answer.text[:500])

    def stop(self):
        self.stopped.set()
        self.thread.join()


def until_fresh(larder):
    """Waits until no row is stale, and returns how long that took."""
    begun = time.monotonic()
    until(lambda: stale_rows(ask(larder)) == 0, "rows are fresh again", 30)
    until(lambda: ask(larder, [UNSEEN]).status_code == 200, "the store is asked again", 30)
    took = time.monotonic() - begun
    print(f"fresh after {took:.2f} s")
    return took


def test_killed_and_restarted_under_load(alone):
    larder = alone.larder(alone.server.url)
    load_rows(larder)
    load, slowest = Load(larder), Slowest(larder)
    try:
        alone.server.kill()
        until(lambda: stale_rows(ask(larder)) == len(SEEN), "all rows are stale", 10)
        until(lambda: larder.sum("larder_breaker_open") == 1, "the breaker is open", 10)
        asked = load.count
        until(lambda: load.count > asked + 200, "callers go on", 30)
        alone.start()
        took = until_fresh(larder)
        until(lambda: larder.sum("larder_breaker_open") == 0, "the breaker is closed", 5)
    finally:
        load.stop()
        slowest.stop()
    assert took < RECOVERY
    assert load.wrong == [] and slowest.wrong == []
    assert slowest.codes == {200, 503}
    assert slowest.seconds < DEADLINE + SLACK


def test_keys_left_out_are_read_all_the_same(alone):
    # Each pause before another call is part of a read's time.
    larder = alone.larder(alone.front.url, LARDER_STORE__TIMEOUT="4s")
    load_rows(larder)
    alone.front.mood = "leaves some out"
    load, slowest = Load(larder), Slowest(larder)
    try:
        asked = load.count
        until(lambda: load.count > asked + 300, "callers go on", 60)
    finally:
        load.stop()
        slowest.stop()
    assert load.wrong == [] and slowest.wrong == []
    assert larder.sum("larder_breaker_open") == 0


def test_throttled_and_let_go_under_load(alone):
    larder = alone.larder(alone.front.url)
    load_rows(larder)
    load, slowest = Load(larder), Slowest(larder)
    try:
        alone.front.mood = "throttles"
        until(lambda: stale_rows(ask(larder)) == len(SEEN), "all rows are stale", 10)
        until(lambda: larder.sum("larder_breaker_open") == 1, "the breaker is open", 10)
        asked = load.count
        until(lambda: load.count > asked + 200, "callers go on", 30)
        # A row that was never seen is unavailable, not absent.
        assert ask(larder, [UNSEEN + 1]).status_code == 503
        alone.front.mood = "calm"
        took = until_fresh(larder)
    finally:
        load.stop()
        slowest.stop()
    assert took < RECOVERY
    assert load.wrong == [] and slowest.wrong == []
    assert slowest.seconds < DEADLINE + SLACK
