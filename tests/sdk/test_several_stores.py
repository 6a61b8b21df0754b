"""Several online stores: Feast's `hybrid`, and stores that stand in for each other."""

from datetime import datetime, timezone

import pandas as pd
import pytest
import requests
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Int64, String

from compare import values
from world import Larder, Redis, until

HYBRID = """\
project: tribes
registry: {{path: registry.db, cache_ttl_seconds: 3600}}
provider: local
entity_key_serialization_version: 3
online_store:
  type: hybrid
  routing_tag: tribe
  online_stores:
    - {{type: redis, conf: {{connection_string: "127.0.0.1:{port}"}}}}
    - {{type: sqlite, conf: {{path: online.db}}}}
"""

TRIBES = {"fast": "redis", "small": "SQLite"}


def view(name, source):
    schema = [Field(name="rider_id", dtype=Int64), Field(name="n", dtype=Int64)]
    schema.append(Field(name="text", dtype=String))
    tags = {"tribe": TRIBES[name]}
    return FeatureView(name=name, entities=[rider], source=source, schema=schema, tags=tags)


rider = Entity(name="rider", join_keys=["rider_id"], value_type=ValueType.INT64)


@pytest.fixture
def tribes(tmp_path):
    """A repository with one view in Redis and one in SQLite, with rows of Feast's."""
    redis = Redis(tmp_path / "redis")
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "feature_store.yaml").write_text(HYBRID.format(port=redis.port))
    riders = range(1, 6)
    rows = pd.DataFrame({"rider_id": list(riders), "n": [10 * n for n in riders]})
    rows = rows.assign(
        text=[None if n == 3 else f"é {n}" for n in riders],
        event_timestamp=datetime(2026, 11, 20, tzinfo=timezone.utc),
    )
    rows.to_parquet(repo / "rows.parquet")
    path = str(repo / "rows.parquet")
    source = FileSource(name="rows", path=path, timestamp_field="event_timestamp")
    for name in TRIBES:
        # `hybrid` of Feast 0.67 rewrites the settings that it is given, so that one FeatureStore
        # is good for views of one store only.
        store = FeatureStore(str(repo))
        store.apply([rider, source, view(name, source)])
        FeatureStore(str(repo)).write_to_online_store(name, rows)
    yield repo, redis
    redis.stop()


def test_hybrid_reads_each_view_where_feast_wrote_it(tribes):
    repo, redis = tribes
    features = ["fast:n", "fast:text", "small:n", "small:text"]
    expected = {}
    for name in TRIBES:
        wanted = [feature for feature in features if feature.startswith(name)]
        asked = FeatureStore(str(repo)).get_online_features(
            wanted, [{"rider_id": n} for n in (1, 3, 99)], full_feature_names=True
        )
        expected |= asked.to_dict()
    larder = Larder(repo)
    try:
        answer = larder.ask(features, {"rider_id": [1, 3, 99]}, full_feature_names=True)
        assert values(answer) == expected
        assert answer.headers["larder-stores"] == "redis,sqlite"
        commands = redis.commands("hmget")
        assert larder.ask(["small:n"], {"rider_id": [2]}).headers["larder-stores"] == "sqlite"
        assert redis.commands("hmget") == commands
        status = requests.get(larder.admin + "/status", timeout=10).json()
        assert [store["name"] for store in status["stores"]] == ["redis", "sqlite"]
    finally:
        larder.stop()


def test_a_spare_store_answers_while_the_first_is_down(fragile, redis_repo, tmp_path):
    repo, _ = redis_repo
    folder = tmp_path / "spare"
    folder.mkdir()
    (folder / "dump.rdb").write_bytes((fragile.redis.folder / "dump.rdb").read_bytes())
    spare = Redis(folder)
    config = tmp_path / "larder.yaml"
    config.write_text(
        "stores:\n  spare:\n    online_store: {type: redis, connection_string: $SPARE}\n"
        "routing: {stores: [default, spare]}\n"
    )
    try:
        larder = fragile.larder(
            config=config, SPARE=f"127.0.0.1:{spare.port}", LARDER_FRESHNESS__MAX_STALE="0s"
        )

        def stores():
            answer = larder.ask(["rides:count"], {"rider_id": [1, 2]})
            assert answer.status_code == 200, answer.text
            assert values(answer)["count"] == [3, 6]
            assert answer.headers["larder-stale-rows"] == "0"
            return answer.headers["larder-stores"]

        assert stores() == "default"
        fragile.kill()
        until(lambda: stores() == "spare", "the spare store answers", 10)
        assert larder.sum("larder_spare_rows_total", store="spare") > 0

        def left_alone():
            return stores() == "spare" and larder.sum("larder_breaker_open", store="default") == 1

        until(left_alone, "the first store is left alone", 10)
        assert larder.sum("larder_breaker_open", store="spare") == 0
        fragile.start()
        until(lambda: stores() == "default", "the first store is asked again", 10)
    finally:
        spare.stop()
