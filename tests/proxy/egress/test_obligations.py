"""Obligations, read into what a tunnel or request must obey."""

from proxy.egress.obligations import Passage, read
from rules.decision import (
    FileCertificate,
    OnlyReadable,
    PeekTls,
    Resolve,
    TunnelUnread,
    UpgradeTls,
)
from rules.rtype import AAAA, HTTPS, A


def test_nothing_said_means_a_look_at_the_hello() -> None:
    assert read(()) == Passage(accept_ech=False, unread=False, only_readable=False)


def test_reads_every_kind() -> None:
    assert read((PeekTls(accept_ech=True),)) == Passage(accept_ech=True)
    assert read((TunnelUnread(),)) == Passage(unread=True)
    assert read((OnlyReadable(),)) == Passage(only_readable=True)
    upgrade = UpgradeTls(FileCertificate("c.pem", "c.key"))
    assert read((upgrade,)) == Passage(upgrade=upgrade)


def test_obligations_add_up() -> None:
    passage = read((Resolve(frozenset({A})), OnlyReadable(), TunnelUnread()))
    assert passage == Passage(unread=True, only_readable=True, types=frozenset({A}))


def test_only_addresses_are_looked_up() -> None:
    passage = read((Resolve(frozenset({A, AAAA, HTTPS})),))
    assert passage is not None
    assert passage.types == {A, AAAA}


def test_an_obligation_that_is_not_known_leaves_no_passage() -> None:
    assert read((PeekTls(), "approve")) is None
