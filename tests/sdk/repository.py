"""A feature repository, written by Feast: the goldens' one, with more rows and views."""

import contextlib
import runpy
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pandas as pd
from feast import FeatureStore, RepoConfig
from feast.data_source import PushMode

HERE = Path(__file__).resolve().parent
FIXTURE = HERE.parent / "golden" / "http" / "fixture"
NOW = datetime(2026, 11, 20, 9, 30, 0, 250_000, tzinfo=timezone.utc)
RIDERS = 50
CITIES = ["Köln", "Lyon", ""]

YAML = """\
project: repo1
provider: local
registry: {{path: data/registry.db, cache_ttl_seconds: 60}}
online_store: {online_store}
entity_key_serialization_version: 3
"""


def make(folder):
    """Applies all definitions to a new repository with a SQLite store; it has no rows yet."""
    (folder / "data").mkdir(parents=True)
    for name in ("golden_defs.py", "feature_definitions.py"):
        shutil.copy(FIXTURE / name, folder)
    shutil.copy(HERE / "definitions.py", folder)
    configure(folder, "{type: sqlite, path: data/online_store.db}")
    stamps = {"event_timestamp": [NOW], "created": [NOW]}
    sources = {
        "dummy": {"item_id": [1], "user_id": ["u1"], "location_id": [1], "v": [1]},
        "driver_stats": {"driver_id": [1], "conv_rate": [0.5], "acc_rate": [0.5]},
        "driver_quality_labels": {"driver_id": [1], "is_reliable": [1]},
    }
    for name, columns in sources.items():
        pd.DataFrame({**columns, **stamps}).to_parquet(folder / "data" / f"{name}.parquet")
    rides_of().to_parquet(folder / "data" / "rides.parquet")
    apply(folder)


def apply(folder):
    command = [Path(sys.executable).with_name("feast"), "-c", folder, "apply"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def copy_for_redis(repo, folder, port):
    """A copy of a repository whose rows are in Redis."""
    shutil.copytree(repo, folder)
    configure(folder, f"{{type: redis, connection_string: '127.0.0.1:{port}'}}")
    return folder


def move_to_cassandra(folder, kind, keyspace, port):
    """Has Feast make the tables of a repository in Cassandra, and keep its rows there."""
    store = f"{{type: {kind}, hosts: [127.0.0.1], port: {port}, keyspace: {keyspace}}}"
    configure(folder, store)
    make_tables(folder)


def copy_for_dynamodb(repo, folder, url):
    """A copy of a repository that keeps its rows in DynamoDB; another may have made its tables."""
    shutil.copytree(repo, folder)
    configure(folder, f"{{type: dynamodb, region: eu-west-1, endpoint_url: '{url}'}}")
    return folder


def make_tables(folder):
    """Has Feast make a repository's tables, where they are made before rows are written."""
    apply(folder)
    # Of a view that is not online Feast makes no table, and yet writes its rows.
    store = FeatureStore(str(folder))
    offline = store.get_feature_view("offline_fv")
    store._get_provider().online_store.update(store.config, [], [offline], [], [], True)


def configure(folder, online_store):
    (folder / "feature_store.yaml").write_text(YAML.format(online_store=online_store))


def fill(folder):
    """Writes rows in each of Feast's ways."""
    with contextlib.chdir(folder):
        runpy.run_path(str(FIXTURE / "load.py"))
    store = FeatureStore(str(folder))
    begin = datetime(2026, 11, 1, tzinfo=timezone.utc)
    end = datetime(2026, 11, 21, tzinfo=timezone.utc)
    store.materialize(begin, end, feature_views=["rides"])
    rides = rides_of()
    store.write_to_online_store("weather", rides[["rider_id", "city", "rain", "note", *STAMPS]])
    push_rides(store, range(1, 11), count=1)
    push_rides(store, range(1, 6), count=2)


def push_rides(store, riders, count):
    """Pushes one number for all these riders."""
    stamp = datetime.now(timezone.utc)
    frame = pd.DataFrame({"rider_id": list(riders)})
    frame = frame.assign(count=count, event_timestamp=stamp, created=stamp)
    store.push("rides_push", frame, to=PushMode.ONLINE)


STAMPS = ["event_timestamp", "created"]


def rides_of():
    """Rows of all riders but each seventh; each fifth has nulls."""
    riders = np.array([n for n in range(1, RIDERS + 1) if n % 7], dtype=np.int64)
    random = np.random.default_rng(7)
    frame = pd.DataFrame(
        {
            "rider_id": riders,
            "city": [CITIES[n % 3] for n in riders],
            "count": riders * 3,
            "mean": random.random(len(riders)).astype(np.float32),
            "home": [None if n % 5 == 0 else f"home {n} é" for n in riders],
            "active": riders % 2 == 0,
            "last": pd.to_datetime(1_700_000_000 + riders, unit="s", utc=True),
            "embedding": list(random.random((len(riders), 8)).astype(np.float32)),
            "rain": random.random(len(riders)),
            "note": [None if n % 5 == 0 else "" for n in riders],
        }
    )
    return frame.assign(event_timestamp=NOW, created=NOW)


def client(repo, url):
    """Feast's SDK over HTTP: what a user of larder has."""
    return FeatureStore(
        config=RepoConfig(
            project="repo1",
            provider="local",
            registry=str(repo / "data" / "registry.db"),
            online_store={"type": "remote", "path": url},
            entity_key_serialization_version=3,
        )
    )
