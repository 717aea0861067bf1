"""Who is an admin by the certificate that he shows: `identity.admins`, or those that we issued.

OpenSSL has verified the chain; what is read here is whether it names an admin, now.
"""

from typing import Protocol

from msgspec import Struct

from proxy.certificates.read import read_svid
from proxy.certificates.svid import Svid, Unfit
from rules.decision import Decision, Reason

_PATH = "/sallyport/admin/"

type Chain = tuple[bytes, ...]
"""DER, the leaf first."""


class Admin(Struct, frozen=True):
    """An admin who came by his certificate."""

    svid: Svid

    def said(self) -> dict[str, object]:
        """Return what stands of him in an audit line."""
        return {"by_spiffe": self.svid.spiffe_id, "by_serial": self.svid.serial}


class NoAdmin(Struct, frozen=True):
    """Whoever shows a certificate that opens nothing here, and why; `svid` where it is one."""

    reason: Reason
    text: str
    svid: Svid | None = None

    def said(self) -> dict[str, object]:
        """Return what stands of him in an audit line."""
        return {} if self.svid is None else Admin(self.svid).said()


def admin_id(trust_domain: str, name: str) -> str:
    """Return the SPIFFE ID of the admin `name`."""
    return f"spiffe://{trust_domain}{_PATH}{name}"


class Judge(Protocol):
    """What is asked of `proxy.certificates.known.Certificates`."""

    @property
    def epoch(self) -> int:
        """Changes with everything that may change an answer of `judge`."""

    def judge(self, chain: Chain, /) -> Svid | Decision:
        """Return what a verified chain is, or why it counts for nobody."""


class Admins:
    """Says who is an admin.

    `ids` are the SPIFFE IDs that are; where there are none, every one of one segment below
    /sallyport/admin/ of `trust_domain` is.
    """

    def __init__(self, ids: tuple[str, ...], trust_domain: str, certificates: Judge) -> None:
        self._ids = frozenset(ids)
        self._prefix = admin_id(trust_domain, "")
        self._certificates = certificates

    @property
    def epoch(self) -> int:
        """Changes whenever anybody's standing may have."""
        return self._certificates.epoch

    def is_admin(self, spiffe_id: str) -> bool:
        """Return whether who is called so is an admin."""
        if self._ids:
            return spiffe_id in self._ids
        name = spiffe_id.removeprefix(self._prefix)
        return name != spiffe_id and "/" not in name and bool(name)

    def is_reserved(self, spiffe_id: str) -> bool:
        """Return whether no app may have `spiffe_id`: it is an admin's, or would be by default."""
        return self.is_admin(spiffe_id) or spiffe_id.startswith(self._prefix)

    def of(self, chain: Chain) -> Admin | NoAdmin:
        """Return whom `chain` names, now."""
        judged = self._certificates.judge(chain)
        if isinstance(judged, Decision):
            found = read_svid(chain)
            svid = None if isinstance(found, Unfit) else found
            return NoAdmin(judged.reason, judged.text, svid)
        if not self.is_admin(judged.spiffe_id):
            text = f"{judged.spiffe_id} is no admin: name it in identity.admins"
            return NoAdmin(Reason.IDENTITY_UNKNOWN, text, judged)
        return Admin(judged)
