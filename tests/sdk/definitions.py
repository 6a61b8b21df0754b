"""What the tests' repository has beside the definitions that the goldens were made with."""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource
from feast.types import Array, Bool, Float32, Float64, Int64, String, UnixTimestamp

rider = Entity(name="rider", join_keys=["rider_id"])
city = Entity(name="city", join_keys=["city"])

rides_source = FileSource(
    name="rides_source",
    path="data/rides.parquet",
    timestamp_field="event_timestamp",
    created_timestamp_column="created",
)

# Materialized from its file.
rides = FeatureView(
    name="rides",
    entities=[rider],
    ttl=timedelta(days=3650),
    source=rides_source,
    schema=[
        Field(name="rider_id", dtype=Int64),
        Field(name="count", dtype=Int64),
        Field(name="mean", dtype=Float32),
        Field(name="home", dtype=String),
        Field(name="active", dtype=Bool),
        Field(name="last", dtype=UnixTimestamp),
        Field(name="embedding", dtype=Array(Float32)),
    ],
)

# Pushed.
fresh_rides = FeatureView(
    name="fresh_rides",
    entities=[rider],
    ttl=timedelta(days=3650),
    source=PushSource(name="rides_push", batch_source=rides_source),
    schema=[Field(name="rider_id", dtype=Int64), Field(name="count", dtype=Int64)],
)

# Two keys, whose order in the stored key is not that of the declaration.
weather = FeatureView(
    name="weather",
    entities=[rider, city],
    ttl=timedelta(days=3650),
    source=rides_source,
    schema=[
        Field(name="rider_id", dtype=Int64),
        Field(name="city", dtype=String),
        Field(name="rain", dtype=Float64),
        Field(name="note", dtype=String),
    ],
)

riders = FeatureService(
    name="riders", features=[rides[["count", "home", "embedding"]], weather[["rain"]]]
)
riders_renamed = FeatureService(
    name="riders_renamed",
    features=[
        rides[["mean"]].with_name("driver").with_join_key_map({"rider_id": "driver_id"}),
        rides[["mean", "active"]].with_name("guest").with_join_key_map({"rider_id": "guest_id"}),
    ],
)
