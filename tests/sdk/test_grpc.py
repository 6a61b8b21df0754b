"""gRPC as clients speak it: grpcio with Feast's own stubs, and grpcurl."""

import json
import random
import subprocess

import grpc
import pytest
from feast.protos.feast.serving.GrpcServer_pb2_grpc import GrpcFeatureServerStub
from feast.protos.feast.serving.ServingService_pb2 import (
    FieldStatus,
    GetFeastServingInfoRequest,
)
from feast.protos.feast.serving.ServingService_pb2_grpc import ServingServiceStub
from grpc_health.v1 import health_pb2, health_pb2_grpc

import asks
from asks import message
from world import GRPCURL, FeastListener

STUBS = {"serving": ServingServiceStub, "python": GrpcFeatureServerStub}


def columns(response):
    """Name to values, as the bytes of their messages."""
    names = response.metadata.feature_names.val
    assert len(names) == len(response.results)
    return {
        name: [value.SerializeToString(deterministic=True) for value in column.values]
        for name, column in zip(names, response.results)
    }


@pytest.fixture(scope="module")
def listener(on_redis):
    process = FeastListener(on_redis.repo)
    yield process
    process.stop()


@pytest.mark.parametrize("target", ["tcp", "unix", "abstract"])
@pytest.mark.parametrize("service", STUBS)
def test_grpc_gives_the_values_that_feast_gives(on_redis, listener, service, target):
    with (
        grpc.insecure_channel(listener.address) as to_feast,
        on_redis.larder.channel(target) as to_larder,
    ):
        feast, larder = GrpcFeatureServerStub(to_feast), STUBS[service](to_larder)
        for seed in range(20):
            source = random.Random(seed)
            body = (asks.of_service if seed % 4 == 0 else asks.of_features)(source)
            request = message(body)
            wanted = feast.GetOnlineFeatures(request, timeout=30)
            got = larder.GetOnlineFeatures(request, timeout=30)
            assert columns(wanted) == columns(got), body


def test_values_past_their_views_ttl_are_labelled_by_the_serving_service_only(place):
    body = {"features": ["short_ttl:v"], "entities": {"item_id": [1, 99]}}
    request = message({**body, "full_feature_names": False})
    with place.larder.channel() as channel:
        for service, label in (("serving", "OUTSIDE_MAX_AGE"), ("python", "PRESENT")):
            column = STUBS[service](channel).GetOnlineFeatures(request, timeout=10).results[1]
            names = [FieldStatus.Name(status) for status in column.statuses]
            assert names == [label, "NOT_FOUND"]
            assert column.values[0].int64_val == 11


def test_an_answer_says_how_old_it_is(on_redis):
    body = {"features": ["rides:count"], "entities": {"rider_id": [1]}}
    request = message({**body, "full_feature_names": False})
    with on_redis.larder.channel() as channel:
        _, call = ServingServiceStub(channel).GetOnlineFeatures.with_call(request, timeout=10)
        said = dict(call.initial_metadata())
    assert int(said["larder-age-ms"]) >= 0
    assert said["larder-stale-rows"] == "0"
    assert said["larder-stores"]


@pytest.mark.parametrize(
    ("features", "code"),
    [
        (["nope:v"], grpc.StatusCode.NOT_FOUND),
        (["short_ttl:nope"], grpc.StatusCode.NOT_FOUND),
        (["v"], grpc.StatusCode.INVALID_ARGUMENT),
        (["short_ttl:v", "dup_fv:v"], grpc.StatusCode.INVALID_ARGUMENT),
        (["odfv_pandas:v_plus_one"], grpc.StatusCode.UNIMPLEMENTED),
    ],
)
def test_errors_have_their_codes(on_redis, features, code):
    body = {"features": features, "entities": {"item_id": [1]}, "full_feature_names": False}
    with on_redis.larder.channel() as channel:
        with pytest.raises(grpc.RpcError) as raised:
            ServingServiceStub(channel).GetOnlineFeatures(message(body), timeout=10)
    assert raised.value.code() == code


def test_health_and_info_answer(place):
    with place.larder.channel() as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "feast.serving.ServingService"):
            request = health_pb2.HealthCheckRequest(service=service)
            answer = health.Check(request, timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        info = ServingServiceStub(channel).GetFeastServingInfo(
            GetFeastServingInfoRequest(), timeout=10
        )
        assert info.version


def grpcurl(*arguments):
    done = subprocess.run([GRPCURL, "-plaintext", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_grpcurl_lists_describes_and_calls(on_redis):
    address = on_redis.larder.targets["tcp"]
    listed = grpcurl(address, "list").split()
    assert {"feast.serving.ServingService", "GrpcFeatureServer"} <= set(listed)
    assert "grpc.health.v1.Health" in listed
    described = grpcurl(address, "describe", "feast.serving.ServingService")
    assert "GetOnlineFeaturesRequest" in described
    request = {
        "features": {"val": ["rides:home", "rides:count"]},
        "entities": {"rider_id": {"val": [{"int64_val": "3"}]}},
    }
    method = "feast.serving.ServingService/GetOnlineFeatures"
    answer = json.loads(grpcurl("-d", json.dumps(request), address, method))
    by_name = dict(zip(answer["metadata"]["featureNames"]["val"], answer["results"]))
    assert by_name["home"]["values"] == [{"stringVal": "home 3 é"}]
    assert by_name["count"]["values"] == [{"int64Val": "9"}]
