"""Online features: from the larder beside this process, or else from Feast's own server.

A pod with an injected larder has LARDER_ADDRESS among its variables, and one without has not, so the
same application runs with both. A larder that is away costs milliseconds, and no request.
"""

import json
import os

import grpc
from feast.protos.feast.serving.GrpcServer_pb2_grpc import GrpcFeatureServerStub

# What larder says when it has no answer, and what gRPC says when there is no larder. All else, such
# as a feature that does not exist, another server would say as well.
PASS_ON = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
RETRY = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 2,
                "initialBackoff": "0.02s",
                "maxBackoff": "0.1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
OPTIONS = [
    # A Unix socket's path would be sent as the authority, percent-encoded, which HTTP/2 forbids.
    ("grpc.default_authority", "localhost"),
    # A connection that breaks, as when larder is restarted, costs no request.
    ("grpc.service_config", json.dumps(RETRY)),
    # gRPC waits 1 s and more before it connects again, as if far away many did.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


class Features:
    """One for a process, made after it has forked; threads may share it."""

    def __init__(self, fallback=None, address=os.environ.get("LARDER_ADDRESS")):
        """`fallback`: where `feast listen`, or a larder for many, serves."""
        targets = [target for target in (address, fallback) if target]
        self.channels = [grpc.insecure_channel(target, options=OPTIONS) for target in targets]
        self.servers = [GrpcFeatureServerStub(channel) for channel in self.channels]

    def get(self, request, timeout=0.25, fallback_timeout=1.0):
        """The answer to a GetOnlineFeaturesRequest; `timeout` is for larder, in seconds."""
        *first, last = self.servers
        for server in first:
            try:
                return server.GetOnlineFeatures(request, timeout=timeout)
            except grpc.RpcError as error:
                if error.code() not in PASS_ON:
                    raise
        return last.GetOnlineFeatures(request, timeout=fallback_timeout)

    def close(self):
        for channel in self.channels:
            channel.close()
