"""On what a token is made: the result of who asks, the token that is passed on, and the rules.

Looked at twice: before the token is signed and after, for what was revoked meanwhile.
"""

from math import inf

from msgspec import Struct, structs

from proxy.agent_api.asked import Caller
from proxy.attested.binding import Binding, Kind
from proxy.attested.result import Result
from proxy.capabilities.form import ACCESS_TOKEN, JWT, Wanted
from proxy.capabilities.parts import Parts
from proxy.capabilities.refused import (
    INVALID_REQUEST,
    INVALID_SCOPE,
    INVALID_TARGET,
    RefusedError,
    ungranted,
    unidentified,
    unproven,
)
from proxy.capabilities.standing import Standing
from proxy.capabilities.token import CapabilityToken, Party, party_of
from rules.capability import Grant, GrantError
from rules.decision import Reason

_AGAIN = "attest again, and exchange what you get"


class Ground(Struct, frozen=True, kw_only=True):
    """What a token is made of; it ends at `ends` at the latest (Unix time)."""

    audience: str
    binding: Binding
    result: Result
    parent: CapabilityToken | None
    parties: tuple[Party, ...]
    grant: Grant
    ends: float


class Grounds:
    """Finds on what a token may be made; from the loop's thread only."""

    def __init__(self, parts: Parts, standing: Standing) -> None:
        self._parts = parts
        self._standing = standing

    def find(self, wanted: Wanted, caller: Caller, now: float) -> Ground:
        """Return on what `caller` may have what is `wanted`.

        Raises:
            RefusedError: on nothing.
        """
        if caller.binding is None:
            raise unidentified()
        parent = self._passed_on(wanted, now) if wanted.actor_token else None
        result = self._result(wanted, caller)
        serial = "" if caller.svid is None else caller.svid.serial
        me = party_of(result.app, result.spiffe_id, serial)
        parties = (*(() if parent is None else parent.parties), me)
        self._check_parties(parties)
        return Ground(
            audience=wanted.target,
            binding=caller.binding,
            result=result,
            parent=parent,
            parties=parties,
            grant=self._granted(wanted, caller, result, parties[:-1]),
            ends=min(
                inf if parent is None else parent.expires,
                inf if caller.svid is None else caller.svid.not_after,
            ),
        )

    def _result(self, wanted: Wanted, caller: Caller) -> Result:
        """Return the attestation result of who asks, which must be of this very connection."""
        if not wanted.actor_token and self._parts.live.known.find(wanted.subject_token) is not None:
            raise unproven("to pass a token on, send your own attestation result as actor_token")
        result = self._parts.attestations.find(wanted.actor_token or wanted.subject_token)
        if result is None or (not wanted.actor_token and wanted.subject_type != JWT):
            # Whatever it is, we did not issue it, or it counts no more: nothing of it is read.
            raise unproven(f"that is no attestation result that counts now: {_AGAIN}")
        if result.binding != caller.binding or result.app != caller.principal.app:
            what = "TLS key" if result.binding.kind is Kind.KEY else "lease"
            raise unproven(f"that attestation result is of another {what}: {_AGAIN}")
        if result.binding.kind is Kind.KEY and (
            caller.svid is None or caller.svid.spiffe_id != result.spiffe_id
        ):
            raise unproven(f"that attestation result is of another SPIFFE ID: {_AGAIN}")
        return result

    def _passed_on(self, wanted: Wanted, now: float) -> CapabilityToken:
        """Return the token that is to be passed on (RFC 8693, section 1.1: delegation)."""
        if wanted.subject_type != ACCESS_TOKEN:  # RFC 8693, section 3: `jwt` may be anything
            raise unproven(f"to pass a token on, subject_token_type is {ACCESS_TOKEN}")
        token = self._parts.live.known.find(wanted.subject_token)
        if token is None or not self._standing.stands(token, now):
            text = "subject_token is no capability token that counts now; ask its owner for another"
            raise unproven(text)
        if token.audience != wanted.target:
            raise ungranted(INVALID_TARGET, "a token is passed on for its own audience only")
        if not {*wanted.scopes} <= {*token.scopes}:
            raise ungranted(INVALID_SCOPE, "a token is passed on with scopes of its own only")
        return token

    def _check_parties(self, parties: tuple[Party, ...]) -> None:
        if any(map(self._standing.is_revoked, parties)):
            raise unproven("an identity was revoked; ask the admin", Reason.REVOKED)
        if len({each.name for each in parties}) < len(parties):
            raise unproven("you are in the chain of that token already: use the one you have")
        most = self._parts.limits.capability_parties
        if len(parties) > most:
            self._parts.metrics.bounds.add("capability_parties")
            raise unproven(f"the chain of that token would have more than {most} parties")

    def _granted(
        self, wanted: Wanted, caller: Caller, result: Result, behalf: tuple[Party, ...]
    ) -> Grant:
        # What stronger results there are of this binding says nothing of the one that is shown.
        proven = self._parts.attestations.of(result.binding, result.app)
        attested = tuple(each for each in proven if each.level <= result.level)
        principal = structs.replace(caller.principal, attested=attested)
        granted = self._standing.granted(principal, wanted.target, wanted.scopes, behalf)
        if isinstance(granted, Grant):
            return granted
        if granted is None:
            raise ungranted(INVALID_TARGET, "the rules do not speak of this app; ask the admin")
        if granted.error is GrantError.ATTESTATION_REQUIRED:
            reason = Reason.ATTESTATION_REQUIRED
            raise RefusedError(INVALID_REQUEST, granted.text, "unproven", reason)
        raise ungranted(granted.error, granted.text)
