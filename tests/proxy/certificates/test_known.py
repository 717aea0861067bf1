"""What presented certificates are worth, and when that changes."""

import datetime as dt

import pytest

from proxy.certificates.known import Certificates
from proxy.certificates.revoked import Kind, Revocation, Revocations
from proxy.certificates.svid import Svid
from proxy.certificates.trust import TrustBundles
from proxy.limits import Limits
from rules.decision import Decision, Reason
from tests.certs.forgery import TRUST_DOMAIN, WHO, Forged, Forger, Wish, other_trust_domain

NOW = dt.datetime(2026, 5, 6, 7, 8, 9, tzinfo=dt.UTC)
AT = NOW.timestamp()
HOUR = 3600.0


class Desk:
    """Certificates of one trust domain, at a time that the test sets."""

    def __init__(self, **limits: int) -> None:
        self.now = AT
        self.forger = Forger.loose(TRUST_DOMAIN, NOW)
        self.trust = TrustBundles()
        self.trust.use({TRUST_DOMAIN: self.forger.anchors})
        self.revocations = Revocations()
        self.bounds: list[str] = []
        self.voided: list[float] = []
        self.known = Certificates(
            self.trust, self.revocations, Limits(**limits), lambda: self.now, self.bounds.append
        )
        self.known.on_void(lambda: self.voided.append(self.now))

    def judge(self, forged: Forged) -> Svid | Decision:
        return self.known.judge(forged.ders)

    def refused(self, forged: Forged) -> tuple[Reason, str]:
        found = self.judge(forged)
        assert isinstance(found, Decision)
        return found.reason, found.text

    def look(self, now: float) -> None:
        self.now = now
        self.known.look(now)

    def revoke(self, kind: Kind, value: str) -> None:
        self.revocations.use([Revocation(kind, value, self.now)])


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_good_certificate_is_its_svid(desk: Desk) -> None:
    found = desk.judge(desk.forger.good())
    assert isinstance(found, Svid)
    assert found.spiffe_id == WHO


def test_what_a_chain_says_is_told_whether_it_counts_or_not(desk: Desk) -> None:
    good = desk.forger.good()
    desk.revoke(Kind.SPIFFE_ID, WHO)
    said = desk.known.read(good.ders)
    assert (desk.refused(good)[0], said and said.spiffe_id) == (Reason.REVOKED, WHO)
    assert desk.known.read(desk.forger.sign(Wish((WHO, WHO))).ders) is None


def test_an_authority_vouches_for_its_own_trust_domain_only(desk: Desk) -> None:
    """threats.md, "Identity": a federated trust domain names nobody of ours."""
    reason, text = desk.refused(other_trust_domain(desk.forger))
    assert reason is Reason.IDENTITY_UNKNOWN
    assert "not vouched for by an authority of other.example" in text
    desk.trust.use({"other.example": desk.forger.anchors})
    assert isinstance(desk.judge(other_trust_domain(desk.forger)), Svid)
    assert desk.refused(desk.forger.good())[0] is Reason.IDENTITY_UNKNOWN


def test_what_is_no_svid_says_why(desk: Desk) -> None:
    reason, text = desk.refused(desk.forger.sign(Wish((WHO, WHO))))
    assert reason is Reason.IDENTITY_UNKNOWN
    assert "2 URIs" in text


def test_an_anchor_that_cannot_be_read_names_nobody(desk: Desk) -> None:
    leaf, below, _ = desk.forger.good().ders
    found = desk.known.judge((leaf, below, b"\x30\x00"))
    assert isinstance(found, Decision)
    assert found.text.startswith("no certificate")


@pytest.mark.parametrize("kind", [Kind.SERIAL, Kind.SPIFFE_ID])
def test_a_revoked_certificate_is_revoked_until_it_is_restored(desk: Desk, kind: Kind) -> None:
    good = desk.forger.good()
    svid = desk.judge(good)
    assert isinstance(svid, Svid)
    before = desk.known.epoch
    desk.revoke(kind, svid.serial if kind is Kind.SERIAL else svid.spiffe_id)
    assert desk.known.epoch > before
    assert desk.refused(good) == (Reason.REVOKED, f"{WHO} was revoked")
    before = desk.known.epoch
    desk.revocations.use([])
    assert desk.known.epoch > before
    assert isinstance(desk.judge(good), Svid)


def test_a_spiffe_id_that_somebody_else_verified_may_be_revoked(desk: Desk) -> None:
    assert desk.known.vouched(WHO) is None
    desk.revoke(Kind.SPIFFE_ID, WHO)
    found = desk.known.vouched(WHO)
    assert found is not None
    assert found.reason is Reason.REVOKED


def test_a_certificate_ends_while_its_connection_is_open(desk: Desk) -> None:
    """threats.md, "Identity": "A revoked or expired client certificate on an open connection"."""
    good = desk.forger.good()
    desk.judge(good)
    before = desk.known.epoch
    desk.look(AT + HOUR - 1)
    assert (desk.voided, desk.known.epoch) == ([], before)
    desk.look(AT + HOUR)
    assert desk.voided == [AT + HOUR]
    assert desk.known.epoch > before
    assert desk.refused(good) == (
        Reason.IDENTITY_UNKNOWN,
        f"the certificate of {WHO} ended at 2026-05-06 08:08:09 UTC; fetch a new one",
    )
    desk.look(AT + HOUR + 1)
    assert len(desk.voided) == 1


def test_a_late_end_is_looked_at_again_within_the_hour(desk: Desk) -> None:
    late = desk.forger.sign(Wish((WHO,), ends=dt.timedelta(hours=30)))
    desk.judge(late)
    for hour in range(1, 30):
        desk.look(AT + hour * HOUR)
        assert isinstance(desk.judge(late), Svid)
    desk.look(AT + 30 * HOUR)
    assert desk.voided[-1] == AT + 30 * HOUR
    assert desk.refused(late)[0] is Reason.IDENTITY_UNKNOWN


def test_an_authority_that_ends_first_ends_the_certificate(desk: Desk) -> None:
    long = desk.forger.sign(Wish((WHO,), ends=dt.timedelta(days=200)))
    assert isinstance(desk.judge(long), Svid)
    desk.now = AT + 90 * 24 * HOUR
    assert "ended at" in desk.refused(long)[1]


def test_a_clock_that_is_set_back_is_noticed(desk: Desk) -> None:
    """Clock skew: what has not begun counts for nobody, and what had ended counts again."""
    good = desk.forger.good()
    desk.judge(good)
    desk.look(AT + HOUR)
    assert isinstance(desk.judge(good), Decision)
    desk.look(AT)
    assert desk.voided == [AT + HOUR, AT]
    assert isinstance(desk.judge(good), Svid)
    desk.look(AT - HOUR - 30)
    assert isinstance(desk.judge(good), Svid)
    desk.look(AT - HOUR - 61)
    assert "has not begun yet" in desk.refused(good)[1]


def test_the_seconds_to_look_at_are_bounded(desk: Desk) -> None:
    """Whatever is presented, an hour has no more seconds; what is before now is forgotten."""
    good = desk.forger.sign(Wish((WHO,), ends=dt.timedelta(days=80)))
    for second in range(5000):
        desk.now = AT + second
        desk.judge(good)
        desk.known.look(desk.now)
    assert len(desk.known._ends) <= HOUR + 1
    desk.look(AT - HOUR / 2)
    assert len(desk.known._ends) == 0


def test_so_many_chains_are_remembered_and_no_more() -> None:
    desk = Desk(certificates=2)
    first = desk.forger.good()
    assert isinstance(desk.judge(first), Svid)
    for _ in range(3):
        desk.judge(desk.forger.good())
    assert desk.bounds == ["certificates", "certificates"]
    assert isinstance(desk.judge(first), Svid)
    assert len(desk.known._read) == 2


def test_the_epoch_moves_with_the_anchors(desk: Desk) -> None:
    before = desk.known.epoch
    desk.trust.use({})
    assert desk.known.epoch > before
    assert desk.voided == [AT]  # what is open is looked at now
    assert desk.refused(desk.forger.good())[0] is Reason.IDENTITY_UNKNOWN
