"""Flow ids are UUIDv7, in the order of their making."""

import os
import uuid

from hypothesis import given
from hypothesis import strategies as st

from proxy.flow import Flow, Plane, new_id
from tests.proxy.composed import ME


@given(st.floats(0, 2**47 / 1000), st.binary(min_size=10, max_size=10))
def test_is_a_uuid_of_version_7(now: float, entropy: bytes) -> None:
    unique = uuid.UUID(new_id(now, entropy))
    assert unique.version == 7
    assert unique.variant == uuid.RFC_4122
    assert unique.int >> 80 == int(now * 1000)


def test_has_32_lower_case_hex_digits() -> None:
    unique = new_id(0.0, bytes(10))
    assert len(unique) == 32
    assert unique == unique.lower()


def test_later_ids_sort_after_earlier_ones() -> None:
    assert new_id(1.0, os.urandom(10)) < new_id(1.002, os.urandom(10))


def test_two_of_the_same_moment_differ() -> None:
    assert new_id(1.0, os.urandom(10)) != new_id(1.0, os.urandom(10))


def test_a_flow_takes_the_id_of_the_errand_that_it_continues() -> None:
    flow = Flow("a", ME, Plane.DNS)
    flow.id = "b"
    assert flow.id == "b"
