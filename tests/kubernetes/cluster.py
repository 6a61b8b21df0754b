"""Kubernetes' API server on loopback. No kubelet, no controller: pods stay as they are made."""

import copy
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import requests
import yaml

from world import Process, answers, free_port, until

TOKEN = "larder-tests"


def program(name):
    folder = os.environ.get("KUBERNETES_BIN")
    path = Path(folder or "/nowhere") / name
    how = "scripts/test builds it (`install_kubernetes` in scripts/lib.sh)"
    assert path.is_file(), f"KUBERNETES_BIN must name a folder with `{name}`: {how}"
    return path


class Etcd(Process):
    def __init__(self, folder):
        self.url, peer = f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
        options = {
            "--name": "tests",
            "--data-dir": folder,
            "--listen-client-urls": self.url,
            "--advertise-client-urls": self.url,
            "--listen-peer-urls": peer,
            "--initial-advertise-peer-urls": peer,
            "--initial-cluster": f"tests={peer}",
            "--log-level": "warn",
        }
        flags = [f"{key}={value}" for key, value in options.items()]
        super().__init__([program("etcd"), "--unsafe-no-fsync", *flags])
        self.wait_until(lambda: answers(self.url + "/health"), "etcd is healthy")


@dataclass
class Answer:
    """What the API server said to a request."""

    status: int
    object: dict
    warnings: list

    def __bool__(self):
        return self.status < 300

    @property
    def message(self):
        return self.object.get("message", "")


class ApiServer(Process):
    """An API server as it is by default; `release` is an older one that it is to behave as.

    Servers of one etcd see nothing of each other.
    """

    def __init__(self, etcd, folder, release=None):
        folder.mkdir()
        self.folder, port = folder, free_port()
        self.url, self.ca = f"https://127.0.0.1:{port}", folder / "certs" / "apiserver.crt"
        self.audit = folder / "audit.log"
        key, tokens, policy = folder / "accounts.key", folder / "tokens.csv", folder / "audit.yaml"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        tokens.write_text(f'{TOKEN},admin,admin,"system:masters"\n')
        pods = {"level": "Metadata", "resources": [{"group": "", "resources": ["pods"]}]}
        policy.write_text(yaml.safe_dump(audit_policy([pods, {"level": "None"}])))
        options = {
            "--etcd-servers": etcd.url,
            "--etcd-prefix": f"/{folder.name}",
            "--bind-address": "127.0.0.1",
            "--advertise-address": "127.0.0.1",
            "--secure-port": port,
            "--cert-dir": folder / "certs",
            "--token-auth-file": tokens,
            "--authorization-mode": "RBAC",
            "--service-cluster-ip-range": "10.0.0.0/24",
            "--endpoint-reconciler-type": "none",
            "--service-account-issuer": "https://larder.test",
            "--service-account-key-file": key,
            "--service-account-signing-key-file": key,
            "--audit-policy-file": policy,
            "--audit-log-path": self.audit,
            "--profiling": "false",
        }
        if release:
            options["--emulated-version"] = release
        super().__init__([program("kube-apiserver"), *(f"{k}={v}" for k, v in options.items())])

    def wait(self):
        """Waits until it is ready. It is apart, so that several can start at once."""
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = str(self.ca)
        self.session.headers["authorization"] = f"Bearer {TOKEN}"
        self.wait_until(self.ready, "the API server is ready")
        self.kubeconfig = self.folder / "kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(kubeconfig(self.url, self.ca)))
        self.namespace("default")
        return self

    def ready(self):
        try:
            return self.session.get(self.url + "/readyz", timeout=5).status_code == 200
        except (requests.RequestException, OSError):
            return False

    def ask(self, method, path, body=None, **options):
        answer = self.session.request(method, self.url + path, json=body, timeout=60, **options)
        return Answer(answer.status_code, answer.json(), warnings_of(answer))

    def get(self, path):
        return self.ask("GET", path)

    def create(self, path, body, dry_run=False):
        return self.ask("POST", path, body, params={"dryRun": "All"} if dry_run else None)

    def merge(self, path, change, kind="strategic-merge-patch"):
        """Changes an object as `kubectl patch` does."""
        headers = {"content-type": f"application/{kind}+json"}
        return self.ask("PATCH", path, change, headers=headers)

    def delete(self, path):
        return self.ask("DELETE", path, {"gracePeriodSeconds": 0})

    def pod(self, pod, namespace="default", dry_run=True):
        """Creates a pod; by default it is not kept."""
        pod = {"apiVersion": "v1", "kind": "Pod"} | copy.deepcopy(pod)
        return self.create(f"/api/v1/namespaces/{namespace}/pods", pod, dry_run)

    def namespace(self, name, labels=None):
        """A namespace and its service account, which a controller would make."""
        body = {"metadata": {"name": name, "labels": labels or {}}}
        made = self.create("/api/v1/namespaces", body)
        assert made or made.status == 409, made.message
        path = f"/api/v1/namespaces/{name}/serviceaccounts"
        # Its admission lags behind what was just made.
        until(
            lambda: self.create(path, {"metadata": {"name": "default"}}).status in (201, 409),
            f"the service account of {name}",
        )
        return name

    def kubectl(self, *words, stdin=None, check=True):
        return self.run([program("kubectl"), *words], stdin, check)

    def helm(self, *words, check=True):
        return self.run([program("helm"), *words], None, check)

    def run(self, command, stdin, check):
        home = str(self.folder)
        environment = {
            "KUBECONFIG": str(self.kubeconfig),
            "HOME": home,
            "HELM_CACHE_HOME": home + "/helm",
            "HELM_CONFIG_HOME": home + "/helm",
            "HELM_DATA_HOME": home + "/helm",
        }
        command = [str(word) for word in command]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, env=environment)
        assert not check or done.returncode == 0, f"{command}: {done.stderr}"
        return done


def audit_policy(rules):
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": rules,
    }


def kubeconfig(url, ca):
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "tests",
        "clusters": [
            {"name": "tests", "cluster": {"server": url, "certificate-authority": str(ca)}}
        ],
        "users": [{"name": "admin", "user": {"token": TOKEN}}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "admin"}}],
    }


def warnings_of(answer):
    """The texts of the Warning headers; the client takes their UTF-8 for Latin-1."""
    return [
        text.encode("latin-1")
        .decode()
        .split('"', 1)[1][:-1]
        .replace('\\"', '"')
        .replace("\\\\", "\\")
        for text in answer.raw.headers.getlist("warning")
    ]
