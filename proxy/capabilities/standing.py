"""Whether a token counts now, and for whom it is to know.

A token is void when it, or one that it was made of, was voided or has expired; when one of its
parties was revoked; and when the rules name a party no more, or do not grant it any more.  It
outlives the result that it was made of: its own time is short.
"""

from proxy.agent_api.asked import Caller
from proxy.attested.binding import Kind
from proxy.capabilities.parts import Parts
from proxy.capabilities.token import CapabilityToken, Party, name_of
from rules.capability import Grant, Ungranted, grant
from rules.facts import UNKNOWN_APP, Attestation, Evidence, Principal


class Standing:
    """Answers for the tokens of `parts`; from the loop's thread only."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def stands(self, token: CapabilityToken, now: float) -> bool:
        """Return whether `token` counts at `now` (Unix time)."""
        known = self._parts.live.known
        return all(
            each is not None
            and known.stands(each, now)
            and not any(map(self.is_revoked, each.parties))
            and all(map(self._is_named, each.parties))
            and self._is_granted(each, now)
            for each in known.lineage(token)
        )

    def is_revoked(self, party: Party) -> bool:
        """Return whether a party counts for nothing."""
        return self._parts.is_revoked(party.app, party.spiffe_id, party.serial)

    def _is_named(self, party: Party) -> bool:
        """Return whether the rules of now name the party as that app, as they once did."""
        app = self._parts.ruleset().apps.get(party.app)
        if app is None:
            return False
        if party.spiffe_id:
            return any(line.spiffe == party.spiffe_id for line in app.identity)
        return any(line.lease is not None for line in app.identity)

    def granted(
        self,
        principal: Principal,
        audience: str,
        scopes: tuple[str, ...],
        behalf: tuple[Party, ...],
    ) -> Grant | Ungranted | None:
        """Return what the rules grant to `principal`, on behalf of all of `behalf`.

        Of several grants it is the shortest; None: there is no such app.
        """
        app = self._parts.ruleset().apps.get(principal.app)
        if app is None:
            return None
        shortest: Grant | None = None
        subjects: list[str | None] = [each.app for each in behalf]
        for subject in subjects or [None]:
            granted = grant(app, audience, scopes, principal, subject)
            if isinstance(granted, Ungranted):
                return granted
            if shortest is None or granted.ttl_s < shortest.ttl_s:
                shortest = granted
        return shortest

    def may_know(self, caller: Caller, token: CapabilityToken) -> bool:
        """Return whether `token` is anything to `caller`: its parties, its audience, and admins.

        An audience is who has it as SPIFFE ID, is the app of that name (`name_of`), or is an app
        that `introspects` it; on a plain port nobody is, nor is who was revoked.
        """
        if caller.is_admin:
            return True
        app = caller.principal.app
        if caller.binding is None or app in {"", UNKNOWN_APP}:
            return False
        svid = caller.svid
        spiffe_id, serial = ("", "") if svid is None else (svid.spiffe_id, svid.serial)
        if self._parts.is_revoked(app, spiffe_id, serial):
            return False
        return (
            token.audience in {spiffe_id, name_of(app)}
            or self._introspects(app, token.audience)
            or any(each.app == app or each.name == spiffe_id for each in token.parties)
        )

    def _introspects(self, name: str, audience: str) -> bool:
        app = self._parts.ruleset().apps.get(name)
        return app is not None and audience in app.introspects

    def _is_granted(self, token: CapabilityToken, now: float) -> bool:
        """Return whether the rules of now would grant it to who had just attested."""
        is_lease = token.binding.kind is Kind.LEASE
        evidence = (Evidence.LEASE if is_lease else Evidence.CERTIFICATE,)
        fresh = (Attestation(token.level, 0),)
        principal = Principal(token.holder.app, evidence, fresh)
        behalf = token.parties[:-1]
        granted = self.granted(principal, token.audience, token.scopes, behalf)
        return isinstance(granted, Grant) and now < token.at + granted.ttl_s
