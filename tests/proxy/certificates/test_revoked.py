"""What is revoked, as the planes ask for it: by certificate and by app; who is told of it."""

import pytest

from proxy.certificates.revoked import Change, Kind, Revocation, Revocations, serial_text
from proxy.certificates.svid import Svid

ME = Svid("spiffe://example.org/me", "1f", 0, 3600, "00")
ID = Revocation(Kind.SPIFFE_ID, ME.spiffe_id, 10.0)
SERIAL = Revocation(Kind.SERIAL, ME.serial, 11.0, until=100.0)
APP = Revocation(Kind.APP, "coder", 12.0)


def knowing(*known: Revocation) -> Revocations:
    revocations = Revocations()
    revocations.use(known)
    return revocations


def test_nothing_is_revoked_at_first() -> None:
    revocations = Revocations()
    assert revocations.of(ME) is None
    assert revocations.app("coder") is None
    assert (len(revocations), revocations.all(), revocations.epoch) == (0, (), 0)


@pytest.mark.parametrize("known", [ID, SERIAL])
def test_a_certificate_is_revoked_by_its_id_and_by_its_serial(known: Revocation) -> None:
    """threats.md, "Identity": a new certificate of a revoked ID counts for nothing either."""
    assert knowing(known).of(ME) == known


def test_the_serial_is_told_before_the_id() -> None:
    assert knowing(ID, SERIAL).of(ME) == SERIAL


def test_another_certificate_of_another_id_stands() -> None:
    assert knowing(ID, SERIAL, APP).of(Svid("spiffe://example.org/you", "2f", 0, 1, "")) is None


def test_kinds_do_not_mix() -> None:
    revocations = knowing(Revocation(Kind.SERIAL, "cafe", 1.0))
    assert revocations.app("cafe") is None


def test_an_app_is_revoked_by_its_name() -> None:
    revocations = knowing(APP)
    assert revocations.app("coder") == APP
    assert revocations.apps == {"coder": APP}
    assert revocations.app("other") is None


def test_the_apps_of_before_do_not_change() -> None:
    revocations = knowing(APP)
    before = revocations.apps
    revocations.use(())
    assert before == {"coder": APP}
    assert revocations.apps == {}


def test_a_change_moves_the_epoch_and_is_told_once_it_is_in_force() -> None:
    revocations, told = knowing(ID), list[tuple[Change, bool]]()
    revocations.on_change(lambda change: told.append((change, revocations.app("coder") == APP)))
    epoch = revocations.epoch
    revocations.use([APP], is_ours=True)
    assert revocations.epoch == epoch + 1
    assert told == [(Change((APP,), (ID,), is_ours=True), True)]
    assert told[0][0].kinds == {Kind.APP, Kind.SPIFFE_ID}


def test_what_is_known_already_is_no_change() -> None:
    revocations, told = knowing(ID, APP), list[Change]()
    revocations.on_change(told.append)
    epoch = revocations.epoch
    assert revocations.use([APP, ID]) == Change((), ())
    assert (told, revocations.epoch) == ([], epoch)


def test_what_ends_by_itself_is_forgotten_and_nothing_else() -> None:
    revocations = knowing(SERIAL, ID)
    revocations.look(99.9)
    assert revocations.of(ME) == SERIAL
    revocations.look(100.0)
    assert revocations.all() == (ID,)
    revocations.look(1e12)
    assert revocations.all() == (ID,)


def test_the_oldest_comes_first() -> None:
    assert knowing(APP, SERIAL, ID).all() == (ID, SERIAL, APP)


def test_a_serial_has_no_leading_zeros() -> None:
    assert serial_text(0x0001F) == "1f"
