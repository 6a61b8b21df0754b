"""Starting, checking and watching larder."""

import shutil
import subprocess

import requests
from world import LARDER, Larder, Process, connects, free_port


def run(*arguments, **environment):
    import os

    return subprocess.run(
        [LARDER, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )


def test_check_accepts_what_serve_accepts(base):
    done = run("check", "-c", base)
    assert done.returncode == 0, done.stderr


def test_a_wrong_configuration_stops_larder_before_it_listens(base):
    larder = Larder(base, wait=False, LARDER_FRESHNESS__TTL="soon", LARDER_CACHE__MAX_BYTES="lots")
    seen = False
    while larder.child.poll() is None:
        seen = seen or connects(larder.port) or connects(larder.admin_port)
    assert not seen
    assert larder.child.returncode == 64, larder.output()
    # All that is wrong, at once.
    for word in ("freshness.ttl", "soon", "cache.max_bytes", "lots"):
        assert word in larder.output()
    assert run("check", "-c", base, LARDER_FRESHNESS__TTL="soon").returncode == 64


def test_auth_is_not_passed_over(base, tmp_path):
    repo = tmp_path / "repo"
    shutil.copytree(base, repo)
    yaml = repo / "feature_store.yaml"
    yaml.write_text(yaml.read_text() + "auth: {type: kubernetes}\n")
    assert run("check", "-c", repo).returncode == 64
    assert run("check", "-c", repo, "--ignore-feast-auth").returncode == 0


def test_metrics_tell_hits_from_reads(base):
    larder = Larder(base)
    try:
        entities = {"rider_id": [1, 2, 3]}
        first = larder.ask(["rides:count"], entities)
        reads = larder.sum("larder_store_reads_total")
        assert reads > 0
        hits = larder.sum("larder_rows_total", outcome="hit")
        second = larder.ask(["rides:count"], entities)
        assert second.json() == first.json()
        assert larder.sum("larder_store_reads_total") == reads
        assert larder.sum("larder_rows_total", outcome="hit") == hits + 3
        assert larder.sum("feast_online_features_request_total") == 2
        assert requests.get(larder.admin + "/livez", timeout=5).status_code == 200
        assert requests.get(larder.url + "/health", timeout=5).status_code == 200
    finally:
        assert larder.stop() == 0


def test_the_quickstart_is_served_as_it_is_checked_in():
    from pathlib import Path

    quickstart = Path(__file__).resolve().parents[2] / "examples" / "quickstart"
    larder = Larder(quickstart)
    try:
        body = {"feature_service": "recommender_v1", "entities": {"user_id": [1, 2_000, 2_001]}}
        answer = requests.post(larder.url + "/get-online-features", json=body, timeout=10).json()
        by_name = dict(zip(answer["metadata"]["feature_names"], answer["results"]))
        assert by_name["clicks"]["statuses"] == ["PRESENT", "PRESENT", "NOT_FOUND"]
        assert len(by_name["embedding"]["values"][0]) == 64
    finally:
        larder.stop()


def test_a_port_that_is_taken_stops_larder(base):
    port = free_port()
    first = Process([LARDER, "serve", "-c", base, "--listen", f"127.0.0.1:{port}", "--admin",
                     f"127.0.0.1:{free_port()}"])
    try:
        first.wait_until(lambda: connects(port), "larder listens")
        second = run("serve", "-c", base, "--listen", f"127.0.0.1:{port}", "--admin",
                     f"127.0.0.1:{free_port()}")
        assert second.returncode not in (0, 64)
        assert str(port) in second.stderr
    finally:
        first.stop()
