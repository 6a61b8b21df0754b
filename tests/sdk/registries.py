"""Places of registries, each a real server on loopback: PostgreSQL, MariaDB, S3, Feast's own."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import boto3
import botocore.config
import psycopg
import pymysql

from world import Process, connects, free_port

VERSITYGW = os.environ.get("VERSITYGW", "versitygw")
USER, PASSWORD = "larder", "p@ss:word/%"
QUOTED = "p%40ss%3Aword%2F%25"


def program(name, package, *folders):
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", *map(str, folders)])
    found = shutil.which(name, path=path)
    assert found, f"these tests need `{name}`: apt-get install {package}"
    return found


def as_user(user):
    """What begins a command of a server that refuses to run as root."""
    if os.geteuid() != 0:
        return []
    flags = [f"--reuid={user}", f"--regid={user}", "--init-groups", "--pdeathsig", "KILL"]
    return ["setpriv", *flags]


def owned(user):
    """A folder for a server's data that its user can reach, which pytest's own is not."""
    folder = tempfile.TemporaryDirectory(prefix="larder-test-", ignore_cleanup_errors=True)
    if os.geteuid() == 0:
        shutil.chown(folder.name, user)
    return folder


def run(*command, **options):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr


class Server(Process):
    """A process that can be killed, and started again with what it keeps."""

    def __init__(self, command, port, **options):
        self.command, self.port, self.options = command, port, options
        super().__init__(command, **options)

    def kill(self):
        """At once. PostgreSQL ends its workers at a SIGQUIT only."""
        run("kill", "-QUIT", self.child.pid)
        self.child.wait(60)

    def start_again(self):
        Process.__init__(self, self.command, **self.options)
        self.wait_until(self.answers, "it answers")


class Postgres(Server):
    def __init__(self, _):
        versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        self.folder = owned("postgres")
        data, password = Path(self.folder.name, "data"), Path(self.folder.name, "password")
        password.write_text(PASSWORD)
        user = as_user("postgres")
        initdb = program("initdb", "postgresql", *versions)
        options = ["-U", USER, "-A", "scram-sha-256", f"--pwfile={password}", "--no-sync"]
        run(*user, initdb, "-E", "UTF8", *options, "-D", data, cwd="/")
        port = free_port()
        command = [*user, program("postgres", "postgresql", *versions), "-D", data, "-k", data]
        options = ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-p", port]
        super().__init__([*command, *options], port, cwd="/")
        self.wait_until(self.answers, "PostgreSQL answers")

    def connect(self):
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname="postgres"
        )

    def answers(self):
        with contextlib.suppress(psycopg.OperationalError):
            self.connect().close()
            return True

    def registry(self, name):
        """A new database, as Feast's registry."""
        with self.connect() as connection:
            connection.autocommit = True
            connection.execute(f"CREATE DATABASE {name}")
        url = f"postgresql+psycopg://{USER}:{QUOTED}@127.0.0.1:{self.port}/{name}"
        return {"registry_type": "sql", "path": url}


class MariaDb(Server):
    def __init__(self, _):
        self.folder = owned("mysql")
        data = self.folder.name
        install = program("mariadb-install-db", "mariadb-server")
        options = ["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]
        options += ["--user=mysql"] if os.geteuid() == 0 else []
        run(install, *options, f"--datadir={data}")
        port = free_port()
        options = ["--no-defaults", "--bind-address=127.0.0.1", f"--port={port}"]
        options += [f"--datadir={data}", f"--socket={data}/socket", "--skip-name-resolve"]
        command = [*as_user("mysql"), program("mariadbd", "mariadb-server"), *options]
        super().__init__(command, port, cwd="/")
        self.wait_until(self.answers, "MariaDB answers")
        self.execute(f"CREATE USER {USER} IDENTIFIED BY %s", PASSWORD)
        self.execute(f"GRANT ALL ON *.* TO {USER}")

    def execute(self, statement, *arguments):
        with pymysql.connect(host="127.0.0.1", port=self.port, user="root") as connection:
            connection.cursor().execute(statement, arguments or None)
            connection.commit()

    def answers(self):
        with contextlib.suppress(pymysql.Error):
            self.execute("SELECT 1")
            return True

    def registry(self, name):
        self.execute(f"CREATE DATABASE {name}")
        url = f"mysql+pymysql://{USER}:{QUOTED}@127.0.0.1:{self.port}/{name}"
        return {"registry_type": "sql", "path": url}


class S3(Server):
    """versitygw, over a folder. `environment` is what larder and Feast find it by."""

    def __init__(self, folder):
        data = folder / "s3"
        data.mkdir(parents=True)
        port = free_port()
        options = ["--quiet", "--port", f"127.0.0.1:{port}", "--access", USER, "--secret", PASSWORD]
        super().__init__([VERSITYGW, *options, "posix", data], port)
        self.wait_until(self.answers, "versitygw listens")
        self.environment = {
            "AWS_ACCESS_KEY_ID": USER,
            "AWS_SECRET_ACCESS_KEY": PASSWORD,
            "AWS_DEFAULT_REGION": "us-east-1",
            "FEAST_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        }

    def answers(self):
        return connects(self.port)

    def registry(self, name):
        client = boto3.client(
            "s3",
            endpoint_url=self.environment["FEAST_S3_ENDPOINT_URL"],
            region_name="us-east-1",
            aws_access_key_id=USER,
            aws_secret_access_key=PASSWORD,
            config=botocore.config.Config(retries={"max_attempts": 0}),
        )
        client.create_bucket(Bucket=name)
        return {"registry_type": "file", "path": f"s3://{name}/team a/registry.db"}


# `feast serve_registry` imports grpcio-reflection, which tells of services and is not installed.
SERVE_REGISTRY = """
import sys, types
reflection = types.ModuleType("reflection")
reflection.SERVICE_NAME = "reflection"
reflection.enable_server_reflection = lambda names, server: None
v1alpha = types.ModuleType("v1alpha")
v1alpha.reflection = reflection
sys.modules["grpc_reflection"] = types.ModuleType("grpc_reflection")
sys.modules["grpc_reflection.v1alpha"] = v1alpha
from feast.cli.cli import cli
cli()
"""


class RegistryServer(Server):
    """`feast serve_registry` on a feature repository, with TLS if it has a certificate."""

    def __init__(self, repo, certificate=None):
        port = free_port()
        command = [sys.executable, "-c", SERVE_REGISTRY, "-c", repo, "serve_registry"]
        command += ["-p", port]
        if certificate:
            command += ["--cert", certificate, "--key", certificate.with_suffix(".key")]
        super().__init__(command, port)
        self.wait_until(self.answers, "feast serve_registry listens")

    def answers(self):
        return connects(self.port)

    def kill(self):
        self.child.kill()
        self.child.wait()


def certificate(folder):
    """A certificate for this host, of an authority that is made for it: `server.crt`, `ca.crt`."""
    folder.mkdir()
    openssl = program("openssl", "openssl")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    run(
        *[openssl, "req", "-x509", *key, "-subj", "/CN=larder tests", "-days", "30"],
        *["-keyout", folder / "ca.key", "-out", folder / "ca.crt"],
    )
    run(
        *[openssl, "req", *key, "-subj", "/CN=localhost", "-keyout", folder / "server.key"],
        *["-out", folder / "server.csr"],
    )
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    run(
        *[openssl, "x509", "-req", "-in", folder / "server.csr", "-days", "30"],
        *["-CA", folder / "ca.crt", "-CAkey", folder / "ca.key", "-CAcreateserial"],
        *["-extfile", folder / "names", "-out", folder / "server.crt"],
    )
    return folder / "server.crt"
