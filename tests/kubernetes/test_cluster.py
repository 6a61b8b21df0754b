"""The API server that the tests run on is a whole one."""

from pods import APP, RESTRICTED


def test_admission_acts_as_in_any_cluster(cluster):
    """An account's token is mounted, and what a namespace forbids is refused."""
    namespace = cluster.namespace("strict", RESTRICTED)
    pod = {"metadata": {"name": "plain"}, "spec": {"containers": [APP]}}
    assert cluster.pod(pod).object["spec"]["containers"][0]["volumeMounts"]
    refused = cluster.pod(pod, namespace)
    assert refused.status == 403 and "runAsNonRoot" in refused.message
