"""The quickstart's features: what a recommender knows of its users."""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource
from feast.types import Array, Bool, Float32, Float64, Int32, Int64, String, UnixTimestamp

user = Entity(name="user", join_keys=["user_id"])

user_profile = FeatureView(
    name="user_profile",
    entities=[user],
    ttl=timedelta(days=3650),
    source=FileSource(
        name="user_profile_source", path="data/user_profile.parquet", timestamp_field="at"
    ),
    schema=[
        Field(name="user_id", dtype=Int64),
        Field(name="age", dtype=Int32),
        Field(name="country", dtype=String),
        Field(name="language", dtype=String),
        Field(name="device", dtype=String),
        Field(name="plan", dtype=String),
        Field(name="signed_up", dtype=UnixTimestamp),
        Field(name="last_order", dtype=UnixTimestamp),
        Field(name="orders", dtype=Int64),
        Field(name="returns", dtype=Int64),
        Field(name="sessions", dtype=Int64),
        Field(name="spent_cents", dtype=Int64),
        Field(name="basket", dtype=Float64),
        Field(name="rating", dtype=Float64),
        Field(name="click_rate", dtype=Float32),
        Field(name="buy_rate", dtype=Float32),
        Field(name="churn_risk", dtype=Float32),
        Field(name="discount", dtype=Float32),
        Field(name="email_opt_in", dtype=Bool),
        Field(name="push_opt_in", dtype=Bool),
        Field(name="verified", dtype=Bool),
        Field(name="embedding", dtype=Array(Float32)),
    ],
)

user_activity = FeatureView(
    name="user_activity",
    entities=[user],
    ttl=timedelta(days=7),
    source=FileSource(
        name="user_activity_source", path="data/user_activity.parquet", timestamp_field="at"
    ),
    schema=[
        Field(name="user_id", dtype=Int64),
        Field(name="clicks", dtype=Int64),
        Field(name="dwell", dtype=Float32),
        Field(name="last_item", dtype=String),
    ],
)

recommender_v1 = FeatureService(
    name="recommender_v1",
    features=[
        user_profile[["age", "country", "plan", "orders", "churn_risk", "embedding"]],
        user_activity,
    ],
)
