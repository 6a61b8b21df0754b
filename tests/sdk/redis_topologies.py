"""Redis servers that belong together, on loopback: a cluster, a watched master, one behind TLS."""

import datetime
import ipaddress
import socket
import subprocess

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from world import Process, until

# A replica that has not finished its first copy never takes over.
REPLICATION = ["--repl-diskless-sync-delay", "0"]
NOTHING_SAVED = ["--save", "", "--appendonly", "no"]


def free_port():
    """A port that was free, as is the one that a node of a cluster opens besides."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            if port < 55_000 and other.connect_ex(("127.0.0.1", port + 10_000)) != 0:
                return port


class Server(Process):
    """A Redis server of any kind."""

    def __init__(self, folder, *options, port=None, cli=(), file=None):
        self.port, self.cli = port or free_port(), cli
        folder.mkdir(parents=True)
        command = ["redis-server", *([file] if file else []), "--dir", folder]
        listen = ["--bind", "127.0.0.1"] + ([] if "--tls-port" in options else ["--port", self.port])
        options = [self.port if option == "PORT" else option for option in options]
        super().__init__([*command, *listen, *options])
        self.wait_until(lambda: self.ask("ping") == "PONG", "Redis answers")

    def ask(self, *words):
        command = ["redis-cli", "-h", "127.0.0.1", "-p", str(self.port), *self.cli, *words]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    def is_running(self):
        return self.child.poll() is None

    def is_master(self):
        return self.is_running() and "role:master" in self.ask("info", "replication")

    def kill(self):
        self.child.kill()
        self.child.wait()


class Cluster:
    """Three masters, each with a replica."""

    def __init__(self, folder):
        options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]
        options += [*REPLICATION, *NOTHING_SAVED]
        self.nodes = [Server(folder / str(n), *options) for n in range(6)]
        addresses = [f"127.0.0.1:{node.port}" for node in self.nodes]
        create = ["redis-cli", "--cluster", "create", *addresses, "--cluster-replicas", "1"]
        done = subprocess.run([*create, "--cluster-yes"], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        until(lambda: all(map(self.is_in_step, self.nodes)), "the cluster is in step", 120)
        self.connection_string = ",".join(addresses[:3])
        self.online_store = (
            f"{{type: redis, redis_type: redis_cluster, connection_string: '{self.connection_string}'}}"
        )

    @staticmethod
    def is_in_step(node):
        links = node.ask("info", "replication")
        return (
            "cluster_state:ok" in node.ask("cluster", "info")
            and node.ask("cluster", "nodes").count("slave") == 3
            and ("master_link_status:up" in links or "connected_slaves:1" in links)
        )

    def kill_a_master(self):
        next(node for node in self.nodes if node.is_master()).kill()

    def has_recovered(self):
        """Whether all that run agree that all slots are served."""
        running = [node for node in self.nodes if node.is_running()]
        states = [node.ask("cluster", "info") for node in running]
        return all("cluster_state:ok" in state for state in states) and (
            sum(node.is_master() for node in running) == 3
        )

    def stop(self):
        for node in self.nodes:
            node.stop()


class Watched:
    """A master with a replica, and three sentinels."""

    def __init__(self, folder):
        options = [*REPLICATION, *NOTHING_SAVED]
        self.master = Server(folder / "master", *options)
        follow = ["--replicaof", "127.0.0.1", self.master.port]
        self.replica = Server(folder / "replica", *options, *follow)
        self.sentinels = [self.sentinel(folder, n) for n in range(3)]
        until(self.is_in_step, "the replica is in step, and all sentinels know it", 120)
        addresses = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        self.online_store = (
            "{type: redis, redis_type: redis_sentinel, sentinel_master: larder, "
            f"connection_string: '{addresses}'}}"
        )

    def sentinel(self, folder, number):
        file = folder / f"sentinel-{number}.conf"
        lines = [
            f"sentinel monitor larder 127.0.0.1 {self.master.port} 2",
            "sentinel down-after-milliseconds larder 1000",
            "sentinel failover-timeout larder 5000",
        ]
        file.write_text("\n".join(lines) + "\n")
        return Server(folder / f"sentinel-{number}", "--sentinel", file=file)

    def is_in_step(self):
        return "master_link_status:up" in self.replica.ask("info", "replication") and all(
            sentinel.ask("sentinel", "ckquorum", "larder").startswith("OK 3")
            and str(self.replica.port) in sentinel.ask("sentinel", "replicas", "larder")
            for sentinel in self.sentinels
        )

    def kill_a_master(self):
        self.master.kill()

    def has_recovered(self):
        """Whether sentinels name the replica, and it agrees."""
        where = self.sentinels[0].ask("sentinel", "get-master-addr-by-name", "larder")
        return where.split()[-1:] == [str(self.replica.port)] and self.replica.is_master()

    def stop(self):
        for server in [*self.sentinels, self.replica, self.master]:
            server.stop()


class Secure:
    """A server that speaks TLS only, whose users have passwords, and read or do everything."""

    def __init__(self, folder):
        self.ca, certificate, key = certificates(folder)
        users = "--user admin on >admin-secret ~* &* +@all --user reader on >secret ~* +hmget"
        tls = ["--port", 0, "--tls-port", "PORT", "--tls-cert-file", certificate]
        tls += ["--tls-key-file", key, "--tls-ca-cert-file", self.ca, "--tls-auth-clients", "no"]
        cli = ["--tls", "--cacert", self.ca, "--user", "admin", "--pass", "admin-secret"]
        options = [*NOTHING_SAVED, *tls, *users.split(), "--user", "default", "off"]
        self.server = Server(folder / "server", *options, cli=[*cli, "--no-auth-warning"])

    def online_store(self, user, password):
        address = f"127.0.0.1:{self.server.port}"
        options = f"ssl=true,ssl_ca_certs={self.ca},username={user},password={password}"
        return f"{{type: redis, connection_string: '{address},{options}'}}"

    def stop(self):
        self.server.stop()


def certificates(folder):
    """An authority, and a certificate and key by it for 127.0.0.1, as PEM files."""
    folder.mkdir(parents=True)
    today = datetime.datetime.now(datetime.timezone.utc)

    def name(text):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def certificate(subject, issuer, key, signer, extension):
        builder = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name(issuer))
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(today - datetime.timedelta(days=1))
        builder = builder.not_valid_after(today + datetime.timedelta(days=7))
        return builder.add_extension(extension, critical=True).sign(signer, hashes.SHA256())

    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = x509.BasicConstraints(ca=True, path_length=None)
    host = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    pem = serialization.Encoding.PEM
    contents = {
        "ca.crt": certificate("ca", "ca", ca_key, ca_key, authority).public_bytes(pem),
        "server.crt": certificate("server", "ca", key, ca_key, host).public_bytes(pem),
        "server.key": key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    }
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    return [folder / file for file in contents]
