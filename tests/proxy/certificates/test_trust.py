"""Trust anchors by trust domain."""

import datetime as dt
import ssl

import pytest

from proxy.certificates import trust as module
from proxy.certificates.trust import ANCHORS, TrustBundles
from proxy.errors import ConfigError
from tests.certs.forgery import Forger

NOW = dt.datetime(2026, 5, 6, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def forgers() -> tuple[Forger, Forger]:
    return Forger.loose("desk.example", NOW), Forger.loose("far.example", NOW)


def test_each_anchor_vouches_for_its_own_trust_domain(forgers: tuple[Forger, Forger]) -> None:
    desk, far = forgers
    trust = TrustBundles()
    assert trust.use({"desk.example": desk.anchors, "far.example": far.anchors})
    assert trust.domains_of(desk.good().ders[-1]) == {"desk.example"}
    assert trust.domains_of(far.good().ders[-1]) == {"far.example"}
    assert trust.domains_of(desk.good().ders[0]) == frozenset()
    assert trust.trust_domains == {"desk.example", "far.example"}
    assert len(trust.anchors) == 2


def test_an_anchor_of_two_trust_domains_is_given_once(forgers: tuple[Forger, Forger]) -> None:
    desk, far = forgers
    trust = TrustBundles()
    trust.use({"a.example": desk.anchors + far.anchors, "b.example": f"a text\n{desk.anchors}"})
    assert trust.domains_of(desk.good().ders[-1]) == {"a.example", "b.example"}
    assert len(trust.anchors) == 2


def test_the_epoch_moves_with_what_is_new(forgers: tuple[Forger, Forger]) -> None:
    desk, far = forgers
    trust = TrustBundles()
    seen: list[int] = []
    trust.on_change(lambda: seen.append(trust.epoch))
    assert trust.trust_domains == frozenset()
    assert trust.use({"desk.example": desk.anchors})
    assert not trust.use({"desk.example": desk.anchors})
    assert trust.use({"desk.example": far.anchors})
    assert trust.use({})
    assert seen == [1, 2, 3]
    assert trust.anchors == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no PEM",
        "-----BEGIN CERTIFICATE-----\n\n-----END CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" * (ANCHORS + 1),
    ],
)
def test_what_cannot_be_read_changes_nothing(forgers: tuple[Forger, Forger], text: str) -> None:
    desk, _ = forgers
    trust = TrustBundles()
    trust.use({"desk.example": desk.anchors})
    with pytest.raises(ConfigError, match=r"far\.example"):
        trust.use({"desk.example": desk.anchors, "far.example": text})
    assert trust.epoch == 1
    assert trust.trust_domains == {"desk.example"}


def test_intermediates_are_known_and_not_believed(forgers: tuple[Forger, Forger]) -> None:
    desk, _ = forgers
    _, below, root = desk.good().ders
    trust = TrustBundles()
    trust.use({"desk.example": desk.anchors})
    text = ssl.DER_cert_to_PEM_cert(below)
    assert trust.complete(text)
    assert not trust.complete(text)
    assert (trust.epoch, trust.anchors, trust.store) == (2, (root,), (root, below))
    assert trust.domains_of(below) == frozenset()
    with pytest.raises(ConfigError, match="intermediates"):
        trust.complete("no PEM")
    assert trust.complete("")
    assert trust.store == (root,)


def test_anchors_of_all_trust_domains_have_one_bound(
    forgers: tuple[Forger, Forger], monkeypatch: pytest.MonkeyPatch
) -> None:
    """threats.md, "Resources": each costs the loop time for each context that is made anew."""
    desk, far = forgers
    monkeypatch.setattr(module, "ANCHORS", 1)
    trust = TrustBundles()
    trust.use({"desk.example": desk.anchors, "again.example": desk.anchors})  # it is one
    with pytest.raises(ConfigError, match=r"far\.example there are 2 anchors, and 1 at most"):
        trust.use({"desk.example": desk.anchors, "far.example": far.anchors})
    assert trust.trust_domains == {"desk.example", "again.example"}
