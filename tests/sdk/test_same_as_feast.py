"""larder answers what Feast answers: to the SDK, and to whoever speaks HTTP."""

import random

import pytest
import requests
from feast.errors import (
    FeatureNameCollisionError,
    FeatureServiceNotFoundException,
    FeatureViewNotFoundException,
)
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus

import asks
import repository
from compare import assert_same, plain, statuses_equal


@pytest.fixture(params=["sqlite", "redis", "cassandra", "scylladb"])
def place(request):
    return request.getfixturevalue(f"on_{request.param}")


def post(url, body):
    answer = requests.post(url + "/get-online-features", json=body, timeout=30)
    assert answer.status_code == 200, (body, answer.text)
    return answer.json()


# Each row of this view has it, and each row that lacks others is of this view.
EVERYWHERE = "all_types:f_str"


def with_one_more(body):
    """The same request for one more feature, and the name of its column."""
    name = EVERYWHERE.replace(":", "__") if body["full_feature_names"] else "f_str"
    return {**body, "features": [*body["features"], EVERYWHERE]}, name


def ask_feast(place, body):
    """What Feast answers. On DynamoDB it fails if a row has none of the features asked for: then
    it is asked for one more, which is taken away again."""
    answer = requests.post(place.feast.url + "/get-online-features", json=body, timeout=30)
    if place.kind != "dynamodb" or answer.status_code != 500:
        assert answer.status_code == 200, (body, answer.text)
        return answer.json()
    assert "'values'" in answer.text
    more, name = with_one_more(body)
    found = post(place.feast.url, more)
    at = found["metadata"]["feature_names"].index(name)
    del found["metadata"]["feature_names"][at], found["results"][at]
    return found


@pytest.mark.parametrize("seed", range(100))
def test_http_answers_are_the_same(place, seed):
    source = random.Random(seed)
    body = (asks.of_service if seed % 4 == 0 else asks.of_features)(source)
    feast = ask_feast(place, body)
    # Twice: from the store, and from the cache.
    assert_same(place.kind, feast, post(place.larder.url, body))
    assert_same(place.kind, feast, post(place.larder.url, body))


@pytest.fixture(scope="module")
def clients(request):
    made = {}

    def of(place):
        if place.kind not in made:
            urls = (place.feast.url, place.larder.url)
            made[place.kind] = [repository.client(place.repo, url) for url in urls]
        return made[place.kind]

    return of


def ask(client, body):
    count = len(next(iter(body["entities"].values())))
    entity_rows = [{k: column[n] for k, column in body["entities"].items()} for n in range(count)]
    features = body.get("features")
    if features is None:
        features = client.get_feature_service(body["feature_service"])
    return client.get_online_features(
        features=features, entity_rows=entity_rows, full_feature_names=body["full_feature_names"]
    )


@pytest.mark.parametrize("seed", range(1000, 1025))
def test_the_sdk_gets_the_same(place, clients, seed):
    source = random.Random(seed)
    body = (asks.of_service if seed % 4 == 0 else asks.of_features)(source)
    of_feast, of_larder = clients(place)
    name = None
    try:
        feast = ask(of_feast, body)
    except requests.exceptions.RetryError:
        # As in `ask_feast`, of which the SDK does not pass on the reason.
        assert place.kind == "dynamodb"
        more, name = with_one_more(body)
        feast = ask(of_feast, more)
    larder = ask(of_larder, body)
    wanted, got = feast.to_dict(), larder.to_dict()
    wanted.pop(name, None)
    assert wanted.keys() == got.keys()
    assert {n: plain(v) for n, v in wanted.items()} == {n: plain(v) for n, v in got.items()}
    wanted_statuses, got_statuses = statuses(feast), statuses(larder)
    for name, values in wanted.items():
        assert statuses_equal(place.kind, values, wanted_statuses[name], got_statuses[name]), name


def statuses(response):
    names = response.proto.metadata.feature_names.val
    return {
        name: [FieldStatus.Name(status) for status in column.statuses]
        for name, column in zip(names, response.proto.results)
    }


def test_what_is_absent_is_not_found_and_a_stored_null_is_present(place):
    entities = {"item_id": [2, 4, 99]}
    body = place.larder.ask(["all_types:f_str", "all_types:f_f64"], entities).json()
    by_name = dict(zip(body["metadata"]["feature_names"], body["results"]))
    assert by_name["f_str"]["values"] == [None] * 3
    assert by_name["f_str"]["statuses"] == ["PRESENT", "PRESENT", "NOT_FOUND"]
    # Item 4 has a row, in which this feature was never written.
    assert by_name["f_f64"]["statuses"] == ["PRESENT", "NOT_FOUND", "NOT_FOUND"]


def test_a_pushed_row_is_seen_when_the_request_insists(place):
    entities = {"rider_id": [40]}
    before = place.larder.ask(["fresh_rides:count"], entities).json()
    assert before["results"][1]["values"] == [None]
    repository.push_rides(place.store, [40], count=41)
    now = {"larder-max-age-ms": "0"}
    after = place.larder.ask(["fresh_rides:count"], entities, headers=now).json()
    assert after["results"][1]["values"] == [41]


def test_the_sdk_raises_feasts_errors(place, clients):
    larder = clients(place)[1]

    def features(*names):
        larder.get_online_features(features=list(names), entity_rows=[{"item_id": 1}])

    with pytest.raises(FeatureViewNotFoundException):
        features("nope:v")
    with pytest.raises(FeatureNameCollisionError):
        features("short_ttl:v", "dup_fv:v")
    gone = larder.get_feature_service("fs_basic")
    gone.name = "nope"
    with pytest.raises(FeatureServiceNotFoundException):
        larder.get_online_features(features=gone, entity_rows=[{"item_id": 1, "user_id": "u1"}])


ITEM = {"item_id": [1]}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"features": ["nope:v"], "entities": ITEM}, 404),
        ({"features": ["short_ttl:nope"], "entities": ITEM}, 404),
        ({"feature_service": "nope", "entities": ITEM}, 404),
        ({"features": ["short_ttl:v"], "entities": {"user_id": ["u1"]}}, 400),
        ({"features": ["short_ttl:v"], "entities": {}}, 400),
        ({"features": ["short_ttl:v"], "entities": {"item_id": []}}, 200),
        ({"features": ["two_keys:affinity"], "entities": {"item_id": [1]}}, 400),
        ({"features": ["two_keys:affinity"], "entities": {"item_id": [1], "user_id": []}}, 400),
        ({"features": ["short_ttl:v"]}, 422),
        ({"features": ["short_ttl:v"], "entities": {"item_id": 1}}, 422),
        ({"features": "short_ttl:v", "entities": ITEM}, 422),
        ({"features": [], "entities": ITEM}, 400),
        ({"features": ["v"], "entities": ITEM}, 400),
        ({"features": ["short_ttl:v"], "entities": {"item_id": ["abc"]}}, 400),
        ({"features": ["short_ttl:v", "dup_fv:v"], "entities": ITEM}, 400),
        ({"features": ["short_ttl:v", "short_ttl:v"], "entities": ITEM}, 400),
        ({"features": ["odfv_pandas:v_plus_one"], "entities": ITEM}, 501),
    ],
)
def test_errors_are_what_they_say(on_redis, body, code):
    answer = requests.post(on_redis.larder.url + "/get-online-features", json=body, timeout=10)
    assert answer.status_code == code, answer.text
    answer.json()


def test_a_body_that_is_no_json_is_unprocessable(on_redis):
    url = on_redis.larder.url + "/get-online-features"
    assert requests.post(url, data=b"{", timeout=10).status_code == 422
