"""Compares answers by name and value, and knows where larder differs from Feast on purpose."""

import math
import struct


CASSANDRAS = ("cassandra", "scylladb")
EPOCH = "1970-01-01T00:00:00Z"


def plain(value):
    """Equal values become equal: NaN equals itself, 1.0 and 1 are different."""
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else ("float", struct.pack("d", value))
    if isinstance(value, list):
        return [plain(element) for element in value]
    if isinstance(value, dict):
        return {name: plain(member) for name, member in value.items()}
    return value


def values(answer):
    """The values of larder's HTTP answer by name."""
    body = answer.json()
    return dict(zip(body["metadata"]["feature_names"], [c["values"] for c in body["results"]]))


def columns(body):
    """A JSON answer as name -> (values, statuses, event timestamps)."""
    names = body["metadata"]["feature_names"]
    assert len(set(names)) == len(names) == len(body["results"])
    return {
        name: (plain(c["values"]), c["statuses"], c["event_timestamps"])
        for name, c in zip(names, body["results"])
    }


def statuses_equal(kind, values, feast, larder):
    """Whether statuses are equal, but for what Redis does not have: Feast calls that PRESENT."""
    return all(
        f == l or (kind == "redis" and (f, l) == ("PRESENT", "NOT_FOUND") and value is None)
        for value, f, l in zip(values, feast, larder, strict=True)
    )


def stamps_equal(kind, statuses, feast, larder):
    """Whether event timestamps are equal, but for features that a row does not have: if it has none
    of those asked for, Feast on Cassandra gives the epoch, and larder the time of the row."""
    return all(
        f == l or (kind in CASSANDRAS and status == "NOT_FOUND" and f == EPOCH)
        for status, f, l in zip(statuses, feast, larder, strict=True)
    )


def assert_same(kind, feast, larder):
    """Asserts that two JSON answers say the same."""
    feast, larder = columns(feast), columns(larder)
    assert feast.keys() == larder.keys()
    for name, (values, statuses, stamps) in feast.items():
        got_values, got_statuses, got_stamps = larder[name]
        assert got_values == values, name
        assert stamps_equal(kind, statuses, stamps, got_stamps), (name, stamps, got_stamps)
        assert statuses_equal(kind, values, statuses, got_statuses), (name, statuses, got_statuses)
