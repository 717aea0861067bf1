"""Whose certificate is an admin's."""

import pytest

from proxy.certificates.svid import Svid
from proxy.control.admins import Admin, Admins, Chain, NoAdmin, admin_id
from rules.decision import Decision, Reason, Verdict

DOMAIN = "desk.example"
ALICE = admin_id(DOMAIN, "alice")


class Judging:
    """Believes one certificate."""

    epoch = 7

    def __init__(self, spiffe_id: str) -> None:
        self.svid = Svid(spiffe_id, "ab", 0, 100, "00")

    def judge(self, chain: Chain, /) -> Svid | Decision:
        if chain:
            return self.svid
        return Decision(Verdict.DENY, Reason.REVOKED, text="it was revoked")


@pytest.mark.parametrize(
    ("named", "spiffe_id", "is_admin"),
    [
        ((), ALICE, True),
        ((), f"{ALICE}/x", False),
        ((), f"spiffe://{DOMAIN}/sallyport/admin/", False),
        ((), f"spiffe://{DOMAIN}/sallyport/admin", False),
        ((), f"spiffe://{DOMAIN}/x/sallyport/admin/alice", False),
        ((), "spiffe://other.example/sallyport/admin/alice", False),
        ((), f"spiffe://{DOMAIN}.evil.example/sallyport/admin/alice", False),
        ((f"spiffe://{DOMAIN}/ops",), f"spiffe://{DOMAIN}/ops", True),
        ((f"spiffe://{DOMAIN}/ops",), f"spiffe://{DOMAIN}/ops/", False),
        ((f"spiffe://{DOMAIN}/ops",), f"spiffe://{DOMAIN}/OPS", False),
        ((f"spiffe://{DOMAIN}/ops",), ALICE, False),
        (("spiffe://other.example/ops",), "spiffe://other.example/ops", True),
    ],
)
def test_an_admin_is_named_or_has_a_name_that_only_we_issue(
    *, named: tuple[str, ...], spiffe_id: str, is_admin: bool
) -> None:
    admins = Admins(named, DOMAIN, Judging(spiffe_id))
    assert admins.is_admin(spiffe_id) is is_admin
    found = admins.of((b"leaf", b"root"))
    assert isinstance(found, Admin) is is_admin
    assert found.said() == {"by_spiffe": spiffe_id, "by_serial": "ab"}


def test_names_of_admins_are_kept_from_apps_even_where_others_are_named() -> None:
    admins = Admins((f"spiffe://{DOMAIN}/ops",), DOMAIN, Judging(ALICE))
    assert admins.is_reserved(f"spiffe://{DOMAIN}/ops")
    assert admins.is_reserved(ALICE)
    assert admins.is_reserved(f"{ALICE}/below")
    assert not admins.is_reserved(f"spiffe://{DOMAIN}/coder")


def test_what_counts_for_nobody_is_no_admins() -> None:
    admins = Admins((), DOMAIN, Judging(ALICE))
    found = admins.of(())
    assert found == NoAdmin(Reason.REVOKED, "it was revoked")
    assert found.said() == {}
    assert admins.epoch == 7
