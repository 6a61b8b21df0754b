"""The image's root: larder runs from what `scripts/image-root` lays out, and from nothing else."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import requests

from world import LARDER, Process, Redis, answers, free_port

PROJECT = Path(__file__).resolve().parents[2]


def larder_in(root):
    """larder within the root, as the image's user; or as this one, who may become no other."""
    if os.geteuid() == 0:
        return ["chroot", "--userspec=65532:65532", "--groups=", root, "/larder"]
    return ["unshare", "--map-root-user", "chroot", root, "/larder"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("image") / "root"
    subprocess.run([PROJECT / "scripts/image-root", folder, LARDER], check=True)
    for above in [folder, *folder.parents][:4]:
        above.chmod(above.stat().st_mode | 0o055)  # pytest's folders are its user's alone
    return folder


@pytest.fixture
def mounted(root):
    """The root with what Kubernetes mounts: a configuration, and the names of hosts."""
    etc, hosts = root / "etc" / "larder", root / "etc" / "hosts"
    shutil.copytree(PROJECT / "examples" / "quickstart", etc)
    hosts.write_text("127.0.0.1 regional-store\n")
    yield etc
    shutil.rmtree(etc)
    hosts.unlink()


@pytest.fixture
def serve(root, mounted):
    """Starts larder there; its URL."""
    started = []

    def start():
        url, admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
        command = [*larder_in(root), "serve", "-c", "/etc/larder", "--listen", url]
        # No variables: a container has few.
        larder = Process([*command, "--admin", admin], env={"PATH": os.environ["PATH"]})
        started.append(larder)
        larder.wait_until(lambda: answers(f"http://{admin}/readyz"), "larder is ready")
        return f"http://{url}"

    yield start
    for larder in started:
        assert larder.stop() == 0


def ask(url, *users):
    body = {"feature_service": "recommender_v1", "entities": {"user_id": users}}
    answer = requests.post(url + "/get-online-features", json=body, timeout=10)
    assert answer.status_code == 200, answer.text
    results = dict(zip(answer.json()["metadata"]["feature_names"], answer.json()["results"]))
    return results["clicks"]["statuses"]


def test_the_root_has_larder_and_what_it_links_against_alone(root):
    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    libraries = {name for name in files if ".so" in name}
    own = {"larder", "etc/passwd", "etc/group", "etc/nsswitch.conf"}
    assert files - libraries == own | {"etc/ssl/certs/ca-certificates.crt"}
    size = sum((root / name).stat().st_size for name in files - {"larder"})
    assert size < 12 << 20, "beside a binary of 48 MB it would be more than the image's 60 MB"
    writable = [path for path in root.rglob("*") if path.lstat().st_mode & 0o022]
    assert not [path for path in writable if not path.is_symlink()]


def test_the_image_is_built_by_the_toolchain_that_is_tested():
    toolchain = (PROJECT / "rust-toolchain.toml").read_text()
    dockerfile = (PROJECT / "Dockerfile").read_text()
    version = re.search(r'channel = "([\d.]+)"', toolchain)[1]
    assert f"FROM rust:{version}-" in dockerfile


def test_larder_says_its_version_there(root):
    version = subprocess.run([*larder_in(root), "--version"], capture_output=True, text=True)
    assert version.returncode == 0, version.stderr
    assert version.stdout.startswith("larder ")


def test_it_serves_what_is_mounted(serve):
    assert ask(serve(), 1, 2_001) == ["PRESENT", "NOT_FOUND"]


def test_it_finds_hosts_by_name(serve, mounted, tmp_path):
    redis = Redis(tmp_path / "redis")
    try:
        config = mounted / "feature_store.yaml"
        text = config.read_text().replace("type: sqlite", "type: redis")
        store = f"connection_string: regional-store:{redis.port}"
        config.write_text(text.replace("path: data/online.db", store))
        # The rows are another store's. That they are absent here is for this one to know.
        assert ask(serve(), 1) == ["NOT_FOUND"]
    finally:
        redis.stop()
