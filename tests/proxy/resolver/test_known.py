"""Queries that were read before: the same octets, another id, no other app's."""

import dns.message
import pytest

from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.resolver.known import KNOWN_OCTETS, KnownQueries
from proxy.resolver.message import Query, QueryError, read_query

MOST = 4
LIMITS = Limits(known_queries=MOST)


class Reader:
    """Counts what is read."""

    def __init__(self) -> None:
        self.wires: list[bytes] = []

    def __call__(self, wire: bytes) -> Query:
        """Read as in production."""
        self.wires.append(wire)
        return read_query(wire)


def wire(name: str, unique: int, *, padding: int = 0) -> bytes:
    message = dns.message.make_query(name, "A", use_edns=0, pad=padding)
    message.id = unique
    return message.to_wire()


def read(known: KnownQueries, app: str, wire: bytes) -> Query:
    """Read and keep, as when the answer is at hand."""
    query = known.read(app, wire)
    known.keep(app, wire, query)
    return query


def test_a_query_is_read_once_and_keeps_its_own_id() -> None:
    reader = Reader()
    known = KnownQueries(reader, LIMITS, Metrics())
    queries = [read(known, "me", wire("ExAmple.com", unique)) for unique in (1, 2, 65535)]
    assert queries == [read_query(wire("ExAmple.com", unique)) for unique in (1, 2, 65535)]
    assert len(reader.wires) == 1


def test_another_app_learns_nothing_by_the_time_it_takes() -> None:
    reader = Reader()
    known = KnownQueries(reader, LIMITS, Metrics())
    read(known, "me", wire("example.com", 1))
    read(known, "other", wire("example.com", 1))
    assert len(reader.wires) == 2


def test_spellings_of_one_name_are_bounded() -> None:
    """threats.md, Order of checks: exact-byte keys make 2^n entries of one allowed name."""
    reader = Reader()
    metrics = Metrics()
    known = KnownQueries(reader, LIMITS, metrics)
    for number in range(MOST + 1):
        read(known, "me", wire(f"n{number}.example.com", 1))
    read(known, "me", wire(f"n{MOST}.example.com", 1))
    assert len(reader.wires) == MOST + 1
    read(known, "me", wire("n0.example.com", 1))  # the oldest made room
    assert len(reader.wires) == MOST + 2
    assert metrics.bounds.value("known_queries") == 2


def test_a_long_query_is_read_each_time() -> None:
    reader = Reader()
    known = KnownQueries(reader, LIMITS, Metrics())
    long = wire("example.com", 1, padding=2 * KNOWN_OCTETS)
    assert read(known, "me", long) == read(known, "me", long)
    assert len(reader.wires) == 2


def test_what_cannot_be_read_is_an_error_each_time() -> None:
    known = KnownQueries(read_query, LIMITS, Metrics())
    for _ in range(2):
        with pytest.raises(QueryError):
            known.read("me", b"\0\1" + bytes(10))
        with pytest.raises(QueryError):
            known.read("me", b"\0")
