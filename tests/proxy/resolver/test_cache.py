"""Answers are kept for their TTL, within bounds, under one generation, for one app."""

import pytest

from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.resolver.answer import Answer, Rcode, Record, negative
from proxy.resolver.cache import Caches, Key
from proxy.resolver.message import Query, assemble, encode_answer
from proxy.wire.question import write_name
from rules.name import parse

NAME = parse("www.example.com")
KEY: Key = ("coder", NAME, 1)
FLOW = "0192f3"


def positive(ttl: int) -> Answer:
    return Answer(Rcode.NOERROR, (Record(NAME, 1, ttl, bytes(4)),), ttl=ttl)


def caches(**limits: int) -> tuple[Caches, Metrics]:
    metrics = Metrics()
    return Caches(Limits(**limits), metrics), metrics


def test_keeps_an_answer_until_its_ttl_ends() -> None:
    kept, _ = caches()
    assert kept.get(KEY, 99.0, 1) is None
    kept.put(KEY, positive(60), 100.0, 1, FLOW)
    entry = kept.get(KEY, 159.9, 1)
    assert entry is not None
    assert (entry.answer, entry.flow, entry.age_s(159.9)) == (positive(60), FLOW, 59)
    assert kept.get(KEY, 160.0, 1) is None
    assert kept.get(KEY, 120.0, 1) is None  # what has ended is gone


def test_never_has_a_negative_age() -> None:
    kept, _ = caches()
    kept.put(KEY, positive(60), 100.0, 1, FLOW)
    entry = kept.get(KEY, 99.0, 1)
    assert entry is not None
    assert entry.age_s(99.0) == 0


@pytest.mark.parametrize("ttl", [0, -1])
def test_does_not_keep_ttl_zero(ttl: int) -> None:
    """RFC 1035, section 3.2.1.  An older answer does not stay in its place either."""
    kept, _ = caches()
    kept.put(KEY, positive(60), 100.0, 1, FLOW)
    kept.put(KEY, positive(ttl), 101.0, 1, FLOW)
    assert kept.get(KEY, 101.0, 1) is None


def test_caps_positive_and_negative_ttls_apart() -> None:
    """RFC 2308, section 5."""
    kept, _ = caches(cache_ttl_s=50, negative_ttl_s=20)
    kept.put(KEY, positive(600), 0.0, 1, FLOW)
    assert kept.get(KEY, 49.0, 1) is not None
    assert kept.get(KEY, 50.0, 1) is None
    kept.put(KEY, negative(Rcode.NXDOMAIN, NAME, 600), 0.0, 1, FLOW)
    assert kept.get(KEY, 19.0, 1) is not None
    assert kept.get(KEY, 20.0, 1) is None


def test_keeps_apps_names_and_types_apart() -> None:
    """Closes `Another app's cached grant`."""
    kept, _ = caches()
    kept.put(KEY, positive(60), 0.0, 1, FLOW)
    assert kept.get(("other", NAME, 1), 1.0, 1) is None
    assert kept.get(("coder", NAME, 28), 1.0, 1) is None
    assert kept.get(("coder", parse("example.com"), 1), 1.0, 1) is None
    assert kept.get(KEY, 1.0, 1) is not None


def test_does_not_give_out_what_other_rules_decided() -> None:
    """Closes `Policy after cache`: an answer holds under the generation that walked it."""
    kept, _ = caches()
    kept.put(KEY, positive(60), 0.0, 1, FLOW)
    assert kept.get(KEY, 1.0, 2) is None


def test_what_older_rules_decided_is_taken_out_and_put_back_when_decided_alike() -> None:
    """Closes `A cache flush per file touch as a herd`."""
    kept, metrics = caches()
    kept.put(KEY, positive(60), 0.0, 1, FLOW, ())
    assert kept.get(KEY, 1.0, 2) is None
    entry = kept.take(KEY, 1.0)
    assert entry is not None
    assert kept.take(KEY, 1.0) is None
    kept.renew(KEY, entry, 2)
    assert kept.get(KEY, 1.0, 2) is entry
    assert (entry.generation, entry.expires) == (2, 60.0)
    assert kept.get(KEY, 1.0, 1) is None
    assert metrics.cache.value("renewed") == 1


def test_what_was_cut_or_has_expired_is_not_decided_again() -> None:
    kept, _ = caches()
    kept.put(KEY, positive(60), 0.0, 1, FLOW, None)
    assert kept.take(KEY, 1.0) is None
    kept.put(KEY, positive(60), 0.0, 1, FLOW, ())
    assert kept.take(KEY, 60.0) is None
    assert kept.take(("other", NAME, 1), 1.0) is None


def test_makes_room_with_the_least_lately_used_and_counts_it() -> None:
    kept, metrics = caches(cache_entries=2)
    first, second, third = (("coder", parse(f"{n}.example"), 1) for n in "abc")
    kept.put(first, positive(60), 0.0, 1, FLOW)
    kept.put(second, positive(60), 0.0, 1, FLOW)
    kept.put(second, positive(60), 0.0, 1, FLOW)
    assert kept.get(first, 1.0, 1) is not None
    assert metrics.bounds.value("cache_entries") == 0
    kept.put(third, positive(60), 2.0, 1, FLOW)
    found = [kept.get(key, 3.0, 1) is not None for key in (first, second, third)]
    assert found == [True, False, True]
    assert metrics.bounds.value("cache_entries") == 1
    assert metrics.cache.value("evicted") == 1


def test_remembers_so_many_apps_and_counts_the_rest() -> None:
    kept, metrics = caches(apps_remembered=2)
    for app in ("a", "b", "a", "c"):
        kept.put((app, NAME, 1), positive(60), 0.0, 1, FLOW)
    found = [kept.get((app, NAME, 1), 1.0, 1) is not None for app in "abc"]
    assert found == [True, False, True]
    assert metrics.bounds.value("apps_remembered") == 1


def test_its_octets_are_written_once_a_second_with_the_ttl_that_is_left() -> None:
    kept, _ = caches()
    kept.put(KEY, positive(60), 0.0, 1, FLOW)
    entry = kept.get(KEY, 0.0, 1)
    assert entry is not None
    query = Query(1, 0x0100, NAME, write_name(NAME) + b"\0\1\0\1", 1)
    for now, age_s in ((0.0, 0), (0.9, 0), (1.0, 1), (59.0, 59)):
        sections = entry.sections(NAME, len(query.question), now)
        assert assemble(query, 0, sections) == encode_answer(query, entry.answer, age_s, 65535)
        assert entry.sections(NAME, len(query.question), now + 0.05) is sections
