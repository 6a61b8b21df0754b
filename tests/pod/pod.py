"""A pod, without a kubelet: its namespaces, volumes, containers, probes and ConfigMap.

The tests run in a network namespace of their own, which is the pod's: port 6566 and the abstract
socket are free, and variables are dialled as they stand. Each container has its own mounts and is
process 1 of its own PID namespace, under a UID of its own and without capabilities.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import requests

from world import LARDER, Process, answers, until

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# The Python of these tests, as one who may not enter its owner's home can run it.
PYTHON = "/run/python"
PACKAGES = "/run/packages"
PYTHON_ENVIRONMENT = {
    "PYTHONHOME": PYTHON,
    "PYTHONPATH": PACKAGES,
    "LD_LIBRARY_PATH": f"{PYTHON}/lib",
    "PYTHONDONTWRITEBYTECODE": "1",
}
# Where its image has `/larder`.
LARDER_IN_POD = "/run/image/larder"
ADMIN = "http://127.0.0.1:6567"
LARDER_UID, APP_UID = 65532, 1000
# What an injected container is started with.
ARGUMENTS = [
    *("serve", "--chdir", "/etc/larder", "--on-bad-config", "wait"),
    *("--listen", "127.0.0.1:6566"),
    *("--listen", "unix:/run/larder/larder.sock"),
    *("--listen", "unix-abstract:larder"),
    *("--admin", ":6567"),
]
MEMORY = 256 << 20
LARDER_ENVIRONMENT = {
    "LARDER_CPU": "1",
    "LARDER_MEMORY": str(MEMORY),
    "LARDER_UNIX_SOCKET_MODE": "0666",
}
# What the containers of the app are given.
APP_ENVIRONMENT = {
    "LARDER_ADDRESS": "127.0.0.1:6566",
    "LARDER_URL": "http://127.0.0.1:6566",
    "LARDER_SOCKET": "/run/larder/larder.sock",
    "LARDER_ABSTRACT": "unix-abstract:larder",
}
HOW = "run these tests as scripts/test does: as root, in namespaces of their own (see `in_a_pod`)"


def check_surroundings():
    """Fails where the tests would meet others' ports, or leave mounts behind."""
    assert os.geteuid() == 0, f"other UIDs are played: {HOW}"
    cards = {name for _, name in socket.if_nameindex()}
    assert not any(name.startswith(("eth", "en", "wl", "docker")) for name in cards), HOW
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", 6566))


class ConfigMap:
    """A ConfigMap as a kubelet mounts it: all files change at once, by one symlink."""

    def __init__(self, folder, **files):
        self.folder = folder
        folder.mkdir()
        self.put(**files)

    def put(self, **files):
        """Its new files; in their names, `__` stands for a dot."""
        files = {name.replace("__", "."): text for name, text in files.items()}
        data, old = self.folder / "..data", None
        if data.is_symlink():
            old = self.folder / os.readlink(data)
        new = self.folder / datetime.now().strftime("..%Y_%m_%d_%H_%M_%S.%f")
        new.mkdir()
        for name, text in files.items():
            (new / name).write_text(text)
        fresh = self.folder / "..data_tmp"
        fresh.symlink_to(new.name)
        fresh.rename(data)
        for name in files:
            link = self.folder / name
            if not link.is_symlink():
                link.symlink_to(f"..data/{name}")
        for link in self.folder.iterdir():
            if not link.name.startswith("..") and not link.exists():
                link.unlink()
        if old:
            for file in old.iterdir():
                file.unlink()
            old.rmdir()


class Mount:
    """A folder or file of this machine, seen at a path of a container."""

    def __init__(self, source, at, writable=False):
        self.source, self.at, self.writable = Path(source), at, writable

    def script(self):
        make = f"mkdir -p {self.at}"
        if not self.source.is_dir():
            make = f"mkdir -p $(dirname {self.at}); touch {self.at}"
        mode = "" if self.writable else f"; mount -o remount,bind,ro {self.at}"
        return f"{make}; mount --bind {self.source} {self.at}{mode}"


class Container(Process):
    """A process that is alone in its PID namespace, with mounts of its own."""

    def __init__(self, command, uid, environment, mounts, hidden=()):
        self.uid = uid
        script = ["set -e", "mount -t proc proc /proc"]
        script += [f"mount -t tmpfs -o mode=0755 tmpfs {path}" for path in ("/run", *hidden)]
        script += [mount.script() for mount in mounts]
        script += [f"mount -o remount,ro {path}" for path in ("/run", *hidden)]
        script += [f'exec {" ".join(self.as_user())} "$@"']
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        environment = {"PATH": os.environ["PATH"], **environment}
        super().__init__([*unshare, "sh", "-c", "\n".join(script), "sh", *command], env=environment)
        self.pid = self.wait_until(self._inner, "the container's process is there")

    def as_user(self):
        ids = ["--reuid", str(self.uid), "--regid", str(self.uid), "--clear-groups"]
        caps = ["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", "--pdeathsig", "keep"]
        return ["setpriv", *ids, *caps, "--"]

    def _inner(self):
        unshare = self.child.pid
        children = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()
        return children and int(children[0])

    def signal(self, number):
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.child.wait()

    def exec(self, *command, timeout=30):
        """Runs a command in the container, as `kubectl exec` and exec probes do."""
        enter = ["nsenter", "--target", str(self.pid), "--mount", "--pid", *self.as_user()]
        return subprocess.run([*enter, *command], capture_output=True, text=True, timeout=timeout)

    def ended(self, patience=60):
        """Its exit code, once it has ended by itself."""
        try:
            return self.child.wait(patience)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it goes on\n{self.output()[-4000:]}") from None


class Sidecar(Container):
    """larder in its container."""

    def __init__(self, pod, arguments, environment):
        mounts = [
            Mount(LARDER, LARDER_IN_POD),
            Mount(pod.registry, "/run/registry"),
            Mount(pod.run, "/run/larder", writable=True),
            Mount(pod.config.folder, "/etc/larder"),
        ]
        environment = {**LARDER_ENVIRONMENT, **environment}
        command = [LARDER_IN_POD, *arguments]
        super().__init__(command, LARDER_UID, environment, mounts, hidden=["/etc"])

    def metrics(self):
        return requests.get(ADMIN + "/metrics", timeout=10).text

    def status(self):
        return requests.get(ADMIN + "/status", timeout=10).json()

    def is_ready(self):
        """The startup probe."""
        command = [LARDER_IN_POD, "ready", "--socket", "/run/larder/larder.sock"]
        return self.exec(*command).returncode == 0


class Pod:
    """One pod: its volumes, and its containers, which are started and ended one by one."""

    def __init__(self, folder, config, registry, arguments=ARGUMENTS):
        check_surroundings()
        self.folder, self.registry, self.arguments = folder, registry, arguments
        folder.mkdir(exist_ok=True)
        self.config = ConfigMap(folder / "config", **config)
        self.run = folder / "run"
        self.run.mkdir()
        volume = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0777", "tmpfs", self.run]
        subprocess.run(volume, check=True)
        self.processes = []

    def sidecar(self, **environment):
        """Starts larder, and does not wait for it."""
        return self.started(Sidecar(self, self.arguments, environment))

    def app(self, *command, uid=APP_UID, mounts=(), run="read-only", **environment):
        """Starts a container of the app, with what the injection gives it."""
        mounts = [
            Mount(sys.base_prefix, PYTHON),
            Mount(sysconfig.get_path("purelib"), PACKAGES),
            Mount(ROOT / "examples", "/run/examples"),
            Mount(HERE, "/run/app"),
            *mounts,
        ]
        if run:
            mounts.append(Mount(self.run, "/run/larder", writable=run == "writable"))
        environment = {**APP_ENVIRONMENT, **environment}
        return self.started(Container(command, uid, environment, mounts))

    def python(self, *command, **more):
        name = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.app(f"{PYTHON}/bin/{name}", *command, **PYTHON_ENVIRONMENT, **more)

    def started(self, process):
        self.processes.append(process)
        return process

    def stop(self):
        for process in reversed(self.processes):
            process.stop()
        subprocess.run(["umount", self.run], check=True)


def wait_for_startup(sidecar, period=1.0):
    """What the kubelet does: probes each second, until it succeeds. Returns how long it took."""
    begun = time.monotonic()
    sidecar.wait_until(lambda: sidecar.is_ready() or time.sleep(period), "the startup probe")
    return time.monotonic() - begun


def wait_for_readiness(sidecar):
    sidecar.wait_until(lambda: answers(ADMIN + "/readyz"), "larder is ready")


def lines(process):
    """What a process has written: a JSON object a line."""
    found = [line for line in process.output().splitlines() if line.startswith("{")]
    return [json.loads(line) for line in found if line.endswith("}")]


