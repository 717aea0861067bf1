"""Which listener is whose, and for how long."""

import pytest

from proxy.limits import Limits
from proxy.sandbox.lease import Lease, LeaseError
from proxy.sandbox.leases import Leases

CODER, OTHER = Lease("a", "coder"), Lease("b", "coder")


def named(lease: Lease) -> list[str]:
    return [lease.listener("do53"), lease.listener("proxy")]


def leases(limits: Limits | None = None, bounds: list[str] | None = None) -> Leases:
    return Leases(limits or Limits(), ([] if bounds is None else bounds).append)


def test_a_lease_has_its_listeners_until_it_ends() -> None:
    held = leases()
    held.grant(CODER, named(CODER))
    held.grant(OTHER, named(OTHER))
    assert {held.at(each) for each in named(CODER)} == {CODER}
    assert (held.get("a"), held.all()) == (CODER, (CODER, OTHER))
    before = held.epoch
    assert held.end("a") is CODER
    assert held.epoch != before
    assert [held.at(each) for each in named(CODER)] == [None, None]
    assert held.at(named(OTHER)[0]) is OTHER
    assert (held.get("a"), held.end("a"), held.all()) == (None, None, (OTHER,))


def test_who_wants_to_know_hears_of_each_end_once() -> None:
    held, ended = leases(), list[tuple[str, int]]()
    held.grant(CODER, named(CODER))
    before = held.epoch
    held.on_end(lambda lease: ended.append((lease.id, held.epoch)))
    for _ in range(2):
        held.end("a")
    assert ended == [("a", before + 1)]


def test_an_id_in_use_and_anothers_listener_are_refused() -> None:
    held = leases()
    held.grant(CODER, named(CODER))
    for lease, listeners in (
        (CODER, ["lease:c:do53"]),
        (OTHER, named(CODER)),
        (OTHER, ["127.0.0.1:53"]),  # one of ours: whoever comes there is no sandbox
    ):
        with pytest.raises(LeaseError):
            held.grant(lease, listeners)
    assert held.all() == (CODER,)


def test_at_the_bound_none_is_granted() -> None:
    met: list[str] = []
    held = leases(Limits(leases=1), met)
    held.grant(CODER, named(CODER))
    with pytest.raises(LeaseError, match="1 leases are in force"):
        held.grant(OTHER, named(OTHER))
    assert met == ["leases"]
    held.end("a")
    held.grant(OTHER, named(OTHER))
    assert held.at(named(OTHER)[0]) is OTHER
