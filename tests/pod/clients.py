"""Clients in Python as an application writes them, each with a variable of the pod as it stands.

    clients.py grpcio|feast VARIABLE
"""

import json
import os
import sys
import tempfile
from pathlib import Path

RIDERS = [3, 4]
FEATURES = ["rides:count", "rides:home"]


def plain(answer):
    """Names to values of a gRPC answer."""
    names = answer.metadata.feature_names.val
    return {
        name: [getattr(value, value.WhichOneof("val")) for value in column.values]
        for name, column in zip(names, answer.results)
    }


def through_grpcio(variable):
    sys.path.insert(0, "/run/examples/python")
    from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesRequest
    from features import Features

    target = os.environ[variable]
    request = GetOnlineFeaturesRequest()
    request.features.val.extend(FEATURES)
    for rider in RIDERS:
        request.entities["rider_id"].val.add(int64_val=rider)
    features = Features(address="unix:" + target if target.startswith("/") else target)
    answer = features.get(request, fallback_timeout=10)
    features.close()
    return plain(answer)


def through_feast(variable):
    from feast import FeatureStore

    # Feast puts the variable in.
    yaml = f"""
project: repo1
provider: local
registry: {{path: /run/registry/registry.db}}
online_store: {{type: remote, path: "${{{variable}}}"}}
entity_key_serialization_version: 3
"""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "feature_store.yaml").write_text(yaml)
        store = FeatureStore(folder)
        return store.get_online_features(FEATURES, [{"rider_id": n} for n in RIDERS]).to_dict()


if __name__ == "__main__":
    client, variable = sys.argv[1:]
    print(json.dumps({"grpcio": through_grpcio, "feast": through_feast}[client](variable)))
