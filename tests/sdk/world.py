"""Real processes on loopback: databases, Feast's own server, larder. Each is ended by its pid."""

import contextlib
import ctypes
import logging
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import boto3
import grpc
import requests
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from cassandra import OperationTimedOut
from cassandra.cluster import Cluster, NoHostAvailable

# Its driver reports every attempt to connect.
logging.getLogger("cassandra").setLevel(logging.CRITICAL)

LARDER = os.environ.get("LARDER_BIN", "larder")
GRPCURL = os.environ.get("GRPCURL", "grpcurl")
# DynamoDB Local takes any credentials; Feast and larder have theirs of the environment.
os.environ |= {
    "AWS_ACCESS_KEY_ID": "larder",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_EC2_METADATA_DISABLED": "true",
}
# Feast's start takes minutes on the busiest machine, so this is the patience of last resort.
PATIENCE = 300
# Machines that run tests stall; what a store that is slow does to answers is tested apart.
PATIENT = {"LARDER_STORE__TIMEOUT": "10s", "LARDER_REQUESTS__DEFAULT_TIMEOUT": "15s"}
# `feast`, whose gunicorn otherwise kills a worker that takes 30 s to start.
FEAST = f"""
import gunicorn.config
from feast.cli.cli import cli
gunicorn.config.Timeout.default = {PATIENCE}
cli()
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def lasting_port():
    """A free port that no connection takes while its server is down."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


def until(condition, what, patience=PATIENCE):
    """Waits for a condition, and returns what it became; fails after `patience` seconds."""
    end = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"waited {patience} s in vain: {what}"
        time.sleep(0.02)


def _die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Process:
    """A process, its log, and its end."""

    def __init__(self, command, **options):
        self.log = tempfile.NamedTemporaryFile("w+b", prefix="larder-test-", suffix=".log")
        self.child = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            preexec_fn=_die_with_parent,
            **options,
        )

    def output(self):
        return Path(self.log.name).read_text(errors="replace")

    def wait_until(self, condition, what):
        def check():
            code = self.child.poll()
            assert code is None, f"{self.child.args} ended with {code}"
            return condition()

        try:
            return until(check, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output()[-4000:]}") from None

    def signal(self, number):
        self.child.send_signal(number)

    def stop(self, patience=30):
        """Ends it and returns its exit code."""
        if self.child.poll() is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            try:
                self.child.wait(patience)
            except subprocess.TimeoutExpired:
                self.child.kill()
        return self.child.wait()


class Redis(Process):
    """A Redis server that keeps nothing unless it is asked to."""

    def __init__(self, folder, port=None):
        self.folder, self.port = folder, port or free_port()
        folder.mkdir(exist_ok=True)
        options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder]
        super().__init__(["redis-server", "--port", self.port, *options])
        self.wait_until(self.answers, "Redis answers")

    def ask(self, *words):
        command = ["redis-cli", "-h", "127.0.0.1", "-p", str(self.port), *words]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    def answers(self):
        return self.ask("ping") == "PONG"

    def commands(self, name):
        """How many commands of that name it was sent."""
        found = re.search(rf"cmdstat_{name}:calls=(\d+)", self.ask("info", "commandstats"))
        return int(found[1]) if found else 0

    def kill(self):
        """Kills it after it has written its rows to its folder, where `again` finds them."""
        assert self.ask("save") == "OK"
        self.child.kill()
        self.child.wait()

    def again(self):
        return Redis(self.folder, self.port)


class Cassandra(Process):
    """A Cassandra node, whose rows outlive it in its folder."""

    def __init__(self, folder, port=None, wait=True):
        self.folder, self.port = folder, port or lasting_port()
        script = Path(__file__).resolve().parent.parent / "services" / "cassandra"
        super().__init__([script, folder, self.port])
        if wait:
            self.wait_until(self.answers, "Cassandra answers")

    def run(self, statement):
        """Runs a statement by a connection of its own."""
        cluster = Cluster(["127.0.0.1"], port=self.port, connect_timeout=5)
        try:
            return list(cluster.connect().execute(statement))
        finally:
            cluster.shutdown()

    def answers(self):
        try:
            return bool(self.run("SELECT key FROM system.local"))
        except (NoHostAvailable, OperationTimedOut):
            return False

    def create(self, keyspace):
        replication = "{'class': 'SimpleStrategy', 'replication_factor': 1}"
        self.run(f"CREATE KEYSPACE {keyspace} WITH replication = {replication}")

    def kill(self):
        self.child.kill()
        self.child.wait()

    def again(self):
        """Starts it again, and does not wait for it."""
        return Cassandra(self.folder, self.port, wait=False)


class DynamoDb(Process):
    """DynamoDB Local, whose tables outlive it in its folder."""

    def __init__(self, folder, port=None):
        self.folder, self.port = folder, port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        home = os.environ.get("DYNAMODB_LOCAL_HOME")
        assert home, "DYNAMODB_LOCAL_HOME must name the folder of DynamoDB Local: see scripts/test"
        folder.mkdir(exist_ok=True)
        java = ["java", "-Xmx256M", "-XX:+UseSerialGC", "-cp", f"{home}/lib/*"]
        main = "software.amazon.dynamodb.services.local.main.ServerRunner"
        options = ["-sharedDb", "-disableTelemetry", "-dbPath", folder, "-port", self.port]
        super().__init__([*java, main, *options])
        self.wait_until(self.answers, "DynamoDB Local answers")

    def answers(self):
        try:
            return self.client().list_tables(Limit=1) is not None
        except BotoCoreError:
            return False

    def client(self):
        once = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=5)
        url = self.url
        return boto3.client("dynamodb", region_name="eu-west-1", endpoint_url=url, config=once)

    def kill(self):
        self.child.kill()
        self.child.wait()

    def again(self):
        return DynamoDb(self.folder, self.port)


class FeastServer(Process):
    """`feast serve` on a feature repository."""

    def __init__(self, repo):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        # Its worker would be replaced every 1,000 requests, for which it answers none.
        options = ["-p", self.port, "--max-requests", 1_000_000, "--no-access-log"]
        super().__init__([sys.executable, "-c", FEAST, "-c", repo, "serve", *options])
        self.wait_until(lambda: answers(self.url + "/health"), "feast serve is healthy")


class FeastListener(Process):
    """`feast listen`, Feast's gRPC server in Python."""

    def __init__(self, repo):
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        super().__init__([sys.executable, "-c", FEAST, "-c", repo, "listen", "-a", self.address])
        self.wait_until(lambda: connects(self.port), "feast listen accepts connections")


class Larder(Process):
    """larder on a feature repository, on TCP and two kinds of Unix sockets.

    It is patient with its store, unless what a failing store does is to be seen.
    """

    def __init__(self, repo, wait=True, patient=True, config=None, **environment):
        self.port, self.admin_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.admin = f"http://127.0.0.1:{self.admin_port}"
        # The path of a Unix socket has at most 107 bytes.
        self.socket = Path(tempfile.mkdtemp(prefix="larder-")) / "larder.sock"
        self.abstract = f"larder-{uuid.uuid4().hex}"
        self.targets = {
            "tcp": f"127.0.0.1:{self.port}",
            "unix": f"unix:{self.socket}",
            "abstract": f"unix-abstract:{self.abstract}",
        }
        listen = [self.targets["tcp"], self.targets["unix"], self.targets["abstract"]]
        flags = [word for address in listen for word in ("--listen", address)]
        flags += ["--config", config] if config else []
        command = [LARDER, "serve", "-c", repo, *flags, "--admin", f"127.0.0.1:{self.admin_port}"]
        patience = PATIENT if patient else {}
        super().__init__(command, env={**os.environ, **patience, **environment})
        if wait:
            self.wait_until(lambda: answers(self.admin + "/readyz"), "larder is ready")

    def ask(self, features, entities, headers=None, **more):
        body = {"features": features, "entities": entities, **more}
        return requests.post(
            self.url + "/get-online-features", json=body, headers=headers, timeout=30
        )

    def channel(self, target="tcp"):
        # Without this the authority would be the socket's path, percent-encoded.
        options = [("grpc.default_authority", "localhost")]
        return grpc.insecure_channel(self.targets[target], options=options)

    def metrics(self):
        """All samples: name and labels to value."""
        from prometheus_client.parser import text_string_to_metric_families

        text = requests.get(self.admin + "/metrics", timeout=10).text
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def sum(self, name, **labels):
        wanted = set(labels.items())
        return sum(v for (n, found), v in self.metrics().items() if n == name and wanted <= found)


def answers(url):
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.RequestException:
        return False


def connects(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
