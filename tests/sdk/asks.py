"""Requests at random, from a seed, of any shape; and requests as Feast's messages."""

from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesRequest
from feast.protos.feast.types.Value_pb2 import Value

ALL_TYPES = [
    f"all_types:f_{t}"
    for t in "str i32 i64 f32 f64 bool bytes ts lstr li32 li64 lf32 lf64 lbool lbytes lts set"
    " nested map lmap json struct uuid dec zts smap".split()
]
# Features by the keys that their views need.
FEATURES = {
    ("item_id",): [*ALL_TYPES, "short_ttl:v", "dup_fv:v", "offline_fv:o"],
    ("user_id",): ["untyped_fv:u"],
    ("item_id", "user_id"): ["two_keys:affinity"],
    ("location_id",): ["loc_stats:temp", "loc_stats:wind"],
    ("rider_id",): [
        *[f"rides:{f}" for f in "count mean home active last embedding".split()],
        "fresh_rides:count",
    ],
    ("rider_id", "city"): ["weather:rain", "weather:note"],
    (): ["global_fv:g"],
}
# Each has entities that have no row.
ENTITIES = {
    "item_id": [1, 2, 3, 4, 5, 99],
    "user_id": ["u1", "nobody", ""],
    "location_id": [1, 2, 3],
    "rider_id": [*range(1, 60), -1, 2**62],
    "city": ["Köln", "Lyon", "", "Nowhere"],
}
SERVICES = {
    "riders": (False, {"rider_id": "rider_id", "city": "city"}),
    "riders_renamed": (True, {"driver_id": "rider_id", "guest_id": "rider_id"}),
    "fs_basic": (False, {"item_id": "item_id", "user_id": "user_id"}),
    "fs_alias": (True, {"origin_id": "location_id", "dest_id": "location_id"}),
}


def rows(random, keys):
    """Columns of 1 to 20 entities; some occur more than once."""
    count = random.choice([1, 1, 2, 5, 20])
    return {name: [random.choice(ENTITIES[of]) for _ in range(count)] for name, of in keys.items()}


def of_features(random):
    """The body of a request for single features."""
    groups = random.sample(list(FEATURES), random.randint(1, 3))
    features = []
    for keys in groups:
        features += random.sample(FEATURES[keys], random.randint(1, len(FEATURES[keys])))
    needed = sorted({key for keys in groups for key in keys}) or ["item_id"]
    if random.random() < 0.2 and "location_id" not in needed:
        needed.append("location_id")
    short = [feature.split(":")[1] for feature in features]
    collide = len(set(short)) < len(short)
    return {
        "features": features,
        "entities": rows(random, {key: key for key in needed}),
        "full_feature_names": collide or random.random() < 0.5,
    }


def of_service(random):
    """The body of a request for a feature service."""
    name = random.choice(list(SERVICES))
    must_be_full, keys = SERVICES[name]
    return {
        "feature_service": name,
        "entities": rows(random, keys),
        "full_feature_names": must_be_full or random.random() < 0.5,
    }


def message(body):
    """A request's JSON body as Feast's message."""
    request = GetOnlineFeaturesRequest(full_feature_names=body["full_feature_names"])
    if "feature_service" in body:
        request.feature_service = body["feature_service"]
    else:
        request.features.val.extend(body["features"])
    for name, column in body["entities"].items():
        for value in column:
            text = isinstance(value, str)
            request.entities[name].val.append(
                Value(string_val=value) if text else Value(int64_val=value)
            )
    return request
