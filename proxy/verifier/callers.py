"""Who attests: somebody whom a result can be bound to, and who is still who he was."""

from hashlib import sha256

from proxy.agent_api.asked import ADMIN, Caller, ProblemError
from proxy.attested.binding import Binding, Kind, message
from proxy.sandbox.lease import Lease, Measured
from proxy.verifier.parts import Outcome, Parts, RefusedError
from rules.decision import Reason
from rules.facts import UNKNOWN_APP
from rules.ruleset import App

_UNBOUND = "nothing here holds a result to its owner"
_HOW_BOUND = (
    "come with a client certificate to proxy_tls, DoH or the control API, or from inside a lease"
)
_NOTHING_MEASURED = bytes(32)


class Attesting:
    """A caller who may attest, with his binding."""

    def __init__(self, caller: Caller, binding: Binding, parts: Parts) -> None:
        self.caller = caller
        self.binding = binding
        self.app = caller.principal.app
        self._parts = parts

    @property
    def spiffe_id(self) -> str:
        """The SPIFFE ID of his certificate, empty in a lease without one."""
        return "" if self.caller.svid is None else self.caller.svid.spiffe_id

    @property
    def target(self) -> str:
        """What audit calls him."""
        return self.spiffe_id or f"{self.binding.kind} {self.binding.value}"

    @property
    def lease(self) -> Lease | None:
        """His lease, while it is in force."""
        return self._parts.leases(self.binding.value) if self.is_leased else None

    @property
    def is_leased(self) -> bool:
        """Whether results of his are bound to a lease."""
        return self.binding.kind is Kind.LEASE

    @property
    def measured(self) -> Measured | None:
        """What a launcher executed in his lease."""
        lease = self.lease
        return None if lease is None else lease.measured

    def message(self, nonce: bytes) -> bytes:
        """Return what an attester signs for him."""
        measured = self.measured
        return message(
            nonce, self.binding, _NOTHING_MEASURED if measured is None else digest_of(measured)
        )

    def rules(self) -> App:
        """Return what the rules say of him now.

        Raises:
            RefusedError: he is no more who he was.
        """
        parts, svid = self._parts, self.caller.svid
        app = parts.ruleset().apps.get(self.app)
        revoked = parts.revocations.app(self.app)
        if svid is not None:
            revoked = revoked or parts.revocations.of(svid)
            if svid.not_after <= parts.wall():
                raise _withdrawn("the certificate has ended", "connect with a new one")
        if revoked is not None:
            raise _withdrawn(f"{revoked.value} is revoked", "ask the admin", Reason.REVOKED)
        if app is None:
            raise _withdrawn(f"no rule file speaks of {self.app} any more", "ask the admin")
        if self.is_leased and self.lease is None:
            raise _withdrawn("the lease has ended", "start anew with `sallyport run`")
        return app


def attesting(caller: Caller, parts: Parts) -> Attesting:
    """Return the caller as one who may attest.

    Raises:
        ProblemError: nobody knows him, or nothing could be bound to him.
    """
    if caller.binding is None:
        raise ProblemError(403, Reason.ATTESTATION_REQUIRED, _UNBOUND, _HOW_BOUND)
    if caller.principal.app in {UNKNOWN_APP, ADMIN.app}:
        text = "no app is named by what you present"
        how = "ask the admin for an identity line with your SPIFFE ID or lease"
        raise ProblemError(403, Reason.IDENTITY_UNKNOWN, text, how)
    return Attesting(caller, caller.binding, parts)


def digest_of(measured: Measured) -> bytes:
    """Return the digest of what was launched, 32 octets; no two of them are the same."""
    parts = (measured.file, measured.script, measured.interpreter)
    return sha256("\n".join(parts).encode()).digest()


def _withdrawn(text: str, how: str, reason: Reason = Reason.IDENTITY_UNKNOWN) -> RefusedError:
    return RefusedError(Outcome.WITHDRAWN, reason, text, how)
