"""Every kind of client against an injected larder, by the pod's variables as they stand."""

import base64
import json
import os
from pathlib import Path

import pytest
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse

from asks import message
from clients import FEATURES, RIDERS, plain
from pod import APP_UID, LARDER_UID, Mount, wait_for_readiness
from world import LARDER

WANTED = {"rider_id": RIDERS, "count": [9, 12], "home": ["home 3 é", "home 4 é"]}
BODY = {"features": FEATURES, "entities": {"rider_id": RIDERS}}
SERVING = "/feast.serving.ServingService/GetOnlineFeatures"


@pytest.fixture(scope="module")
def pod(rows, tmp_path_factory):
    from conftest import Cluster

    cluster = Cluster(tmp_path_factory.mktemp("clients"), rows)
    pod = cluster.pod()
    pod.larder = pod.sidecar()
    wait_for_readiness(pod.larder)
    yield pod
    cluster.stop()


def done(process):
    """What a client has written, once it has ended well."""
    code = process.ended(120)
    assert code == 0, f"ended with {code}: {process.output()[-4000:]}"
    return process.output()


@pytest.mark.parametrize("variable", ["LARDER_ADDRESS", "LARDER_ABSTRACT", "LARDER_SOCKET"])
def test_grpcio(pod, variable):
    """And thereby the client of examples/python."""
    assert json.loads(done(pod.python("/run/app/clients.py", "grpcio", variable))) == WANTED


def test_feasts_sdk(pod):
    """A store of type `remote` whose path is ${LARDER_URL}."""
    registry = Mount(pod.registry, "/run/registry")
    tmp = Mount(pod.folder, "/run/tmp", writable=True)
    pod.folder.chmod(0o777)
    client = pod.python(
        *("/run/app/clients.py", "feast", "LARDER_URL"),
        mounts=[registry, tmp],
        TMPDIR="/run/tmp",
        HOME="/run/tmp",
        FEAST_USAGE="False",
    )
    assert json.loads(done(client).splitlines()[-1]) == WANTED


@pytest.mark.parametrize(
    "target",
    [
        "$LARDER_ADDRESS",
        "$LARDER_ABSTRACT",
        "unix:$LARDER_SOCKET",
        "passthrough:///$LARDER_ADDRESS",
    ],
)
def test_grpc_go(pod, target):
    go = os.environ.get("GO_CLIENT")
    assert go, "GO_CLIENT must name the built tests/pod/go-client: see scripts/test"
    request = base64.b64encode(message({**BODY, "full_feature_names": False}).SerializeToString())
    command = f'exec /run/image/go-client "{target}" {SERVING} {request.decode()}'
    client = pod.app("sh", "-ec", command, mounts=[Mount(go, "/run/image/go-client")])
    answer = GetOnlineFeaturesResponse.FromString(base64.b64decode(done(client)))
    assert plain(answer) == WANTED


@pytest.mark.parametrize("variable", ["LARDER_URL", "LARDER_SOCKET"])
def test_tonic(pod, variable):
    """And thereby examples/client.rs."""
    built = Path(LARDER).parent / "examples" / "client"
    assert built.exists(), f"{built} is missing: cargo build --examples"
    command = f'exec /run/image/client "${variable}" rides:home rider_id 3'
    output = done(pod.app("sh", "-ec", command, mounts=[Mount(built, "/run/image/client")]))
    assert 'home: [Value { val: Some(StringVal("home 3 é")) }]' in output
    assert "larder-age-ms" in output


@pytest.mark.parametrize("variable", ["LARDER_URL", "LARDER_SOCKET", "LARDER_ABSTRACT"])
@pytest.mark.parametrize("protocol", ["--http1.1", "--http2-prior-knowledge"])
def test_curl(pod, variable, protocol):
    path = "http://localhost/get-online-features"
    where = {
        "LARDER_URL": '"$LARDER_URL/get-online-features"',
        "LARDER_SOCKET": f'--unix-socket "$LARDER_SOCKET" {path}',
        "LARDER_ABSTRACT": f'--abstract-unix-socket "${{LARDER_ABSTRACT#unix-abstract:}}" {path}',
    }
    body = json.dumps(BODY)
    command = f"exec curl -sS --fail {protocol} {where[variable]} -d '{body}'"
    answer = json.loads(done(pod.app("sh", "-ec", command)))
    names = answer["metadata"]["feature_names"]
    assert dict(zip(names, [column["values"] for column in answer["results"]])) == WANTED


def connect(pod, uid, run_is_writable=False):
    """Exit code and output of a client of the socket that speaks HTTP."""
    url = "http://localhost/get-online-features"
    command = f"exec curl -sSv --fail --unix-socket $LARDER_SOCKET {url} -d '{json.dumps(BODY)}'"
    client = pod.app("sh", "-ec", command, uid=uid, run_is_writable=run_is_writable)
    return client.ended(), client.output()


@pytest.mark.parametrize("writable", [False, True])
@pytest.mark.parametrize("uid", [0, APP_UID])
def test_a_container_of_another_uid_connects(pod, uid, writable):
    socket = pod.run / "larder.sock"
    assert socket.stat().st_uid == LARDER_UID
    assert socket.stat().st_mode & 0o777 == 0o666
    code, output = connect(pod, uid, writable)
    assert code == 0, output


def test_who_mounts_it_read_only_cannot_take_the_sockets_place(pod):
    for command in ('rm "$LARDER_SOCKET"', 'mv "$LARDER_SOCKET" "$LARDER_SOCKET.old"'):
        intruder = pod.app("sh", "-c", command)
        assert intruder.ended() != 0
        assert "Read-only file system" in intruder.output()
    assert connect(pod, APP_UID)[0] == 0


def test_a_socket_of_mode_0660_is_for_its_own_uid_only(pod):
    pod.larder.stop()
    closed = pod.sidecar(LARDER_UNIX_SOCKET_MODE="0660")
    try:
        wait_for_readiness(closed)
        for uid in (0, APP_UID):
            code, output = connect(pod, uid)
            assert code == 7 and "Permission denied" in output, output
        assert connect(pod, LARDER_UID)[0] == 0
    finally:
        closed.stop()
        pod.larder = pod.sidecar()
        wait_for_readiness(pod.larder)
