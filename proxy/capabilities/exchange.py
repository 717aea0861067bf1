"""Tokens for what an agent may do elsewhere: exchanged, asked about and revoked.

    POST /token (RFC 8693)   POST /introspect (RFC 7662)   POST /revoke (RFC 7009)

A resource server verifies a token by itself (`GET /jwks.json`); who asks here as well learns of a
revocation at once.
"""

from collections.abc import Callable

from msgspec import structs

from proxy.agent_api.api import Route
from proxy.agent_api.asked import Answer, Asked, Caller, OAuthError, encoded
from proxy.agent_api.issuing import ACCESS
from proxy.attested.binding import Binding
from proxy.attested.result import Result
from proxy.capabilities.claims import encode_claims
from proxy.capabilities.form import (
    ACCESS_TOKEN,
    ExchangeAnswer,
    ExchangeForm,
    IntrospectionAnswer,
    TokenForm,
    Wanted,
    read_exchange,
)
from proxy.capabilities.ground import Ground, Grounds
from proxy.capabilities.inquiry import Inquiry
from proxy.capabilities.known import FullError
from proxy.capabilities.parts import Parts
from proxy.capabilities.refused import unavailable, unproven
from proxy.capabilities.standing import Standing
from proxy.capabilities.token import CapabilityToken, digest
from proxy.capabilities.told import Told
from proxy.errors import BindError, ConfigError
from rules.decision import Reason

_ID_OCTETS = 16  # RFC 7519, section 4.1.7: no two tokens have the same


class UnknownCapabilityError(ConfigError):
    """No token is meant by what was written."""


class Exchange:
    """Everything about capability tokens; call it from the loop's thread only."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._standing = Standing(parts)
        self._grounds = Grounds(parts, self._standing)
        self._told = Told(parts)
        self._inquiry = Inquiry(parts, self._standing, self._told)

    def routes(self) -> tuple[Route, ...]:
        """Return what is answered at the API of agents."""
        return (
            Route(
                "POST", "/token", "Exchange an attestation result for a token (RFC 8693)",
                self._exchange, ExchangeForm, ExchangeAnswer, form=True,
            ),
            Route(
                "POST", "/introspect", "Ask whether a token counts (RFC 7662)",
                self._inquiry.introspect, TokenForm, IntrospectionAnswer, form=True,
            ),
            Route(
                "POST", "/revoke", "Revoke a token, and all made of it (RFC 7009)",
                self._inquiry.revoke, TokenForm, form=True,
            ),
        )  # fmt: skip

    def all(self) -> tuple[CapabilityToken, ...]:
        """Return every token that has not expired."""
        return self._parts.live.known.all()

    def stands(self, token: CapabilityToken) -> bool:
        """Return whether `token` counts now."""
        return self._standing.stands(token, self._parts.wall())

    def revoke(self, which: str, why: str) -> tuple[CapabilityToken, ...]:
        """Void a token by its id, its text or the digest of that; return all that this voided.

        It is in force when this returns, and on the disk when `settled` does.

        Raises:
            UnknownCapabilityError: there is none.
        """
        token = self._parts.live.known.get(digest(which) if "." in which else which)
        if token is None:
            raise UnknownCapabilityError("no such token; `sallyport capabilities list` shows all")
        voided = self._parts.live.void((token.id,), why)
        self._parts.metrics.capabilities_voided.add(n=len(voided))
        return voided

    async def settled(self) -> None:
        """Return once everything that was voided is on the disk.

        Raises:
            BindError: it cannot be written; it is in force, and written later.
        """
        await self._parts.live.settled()

    def void(self, results: tuple[Result, ...], why: str = "attestation") -> int:
        """Void what was made of results that were voided because what they were of has changed.

        So is what was made of earlier results of the same attester, or for the same binding.
        """
        bindings = {each.binding for each in results}
        attesters = {(each.app, each.attester) for each in results}
        return self._void(
            lambda token: (
                token.binding in bindings or (token.holder.app, token.attester) in attesters
            ),
            why,
        )

    def void_attester(self, app: str, attester: str, why: str = "attestation") -> int:
        """Void what an app has by an attester, also where no result of it stands any more."""
        wanted = app, attester
        return self._void(lambda token: (token.holder.app, token.attester) == wanted, why)

    def void_binding(self, binding: Binding, why: str = "lease") -> int:
        """Void what was made for a binding that has ended."""
        return self._void(lambda token: token.binding == binding, why)

    def void_revoked(self) -> int:
        """Void what has a party that is revoked: for good, also if that is restored."""
        return self._void(
            lambda token: any(map(self._standing.is_revoked, token.parties)), "revoked"
        )

    def _void(self, which: Callable[[CapabilityToken], bool], why: str) -> int:
        voided = self._parts.live.void([each.id for each in self.all() if which(each)], why)
        self._told.voided(voided, why)
        return len(voided)

    async def _exchange(self, asked: Asked) -> Answer:
        target = ""
        try:
            wanted = read_exchange(asked.value)
            target = wanted.target
            return await self._granted(wanted, asked.caller)
        except OAuthError as error:
            self._told.refused(asked.caller, error, target or asked.caller.listener)
            raise

    async def _granted(self, wanted: Wanted, caller: Caller) -> Answer:
        parts = self._parts
        ground = self._grounds.find(wanted, caller, parts.wall())
        await self._check_record(ground.result.app)
        try:
            with parts.live.known.room(ground.result.app, ground.binding):
                token, text = await self._signed(ground, wanted, caller)
        except FullError as error:
            text = f"there are too many tokens: {error}; use those you have, or wait"
            raise unavailable(text, "full", Reason.CAPACITY) from None
        parts.live.keep(token)
        self._told.exchanged(caller, token)
        # RFC 8693, section 2.2.1
        return encoded(
            ExchangeAnswer(
                access_token=text,
                issued_token_type=ACCESS_TOKEN,
                token_type="Bearer",  # noqa: S106 - RFC 8705, section 3: also of a bound one
                expires_in=token.expires - int(parts.wall()),
                scope=" ".join(token.scopes),
            )
        )

    async def _signed(
        self, ground: Ground, wanted: Wanted, caller: Caller
    ) -> tuple[CapabilityToken, str]:
        """Return the token and its text, for which everything still holds once it is signed."""
        parts = self._parts
        token = self._made(ground, caller)
        claims, app = encode_claims(token, parts.issuer), token.holder.app
        signed = await parts.signer.sign_claims(claims, ACCESS, app)
        if signed.problem:
            text = f"the token was not signed: {signed.problem}"
            raise unavailable(text, "unsigned", Reason.CAPACITY)
        again = self._grounds.find(wanted, caller, parts.wall())  # revoked meanwhile?
        if again.result.id != ground.result.id or again.grant.ttl_s < ground.grant.ttl_s:
            raise unproven("the rules or your attestation changed meanwhile; try again")
        return structs.replace(token, token_sha256=digest(signed.token)), signed.token

    def _made(self, ground: Ground, caller: Caller) -> CapabilityToken:
        now, ends = int(self._parts.wall()), ground.ends
        expires = int(min(now + ground.grant.ttl_s, ends))
        if expires <= now:
            raise unproven("your certificate, or the token to pass on, is about to end")
        levels = [ground.result.level, *(() if ground.parent is None else (ground.parent.least,))]
        return CapabilityToken(
            id=self._parts.entropy(_ID_OCTETS).hex(),
            token_sha256="",
            parties=ground.parties,
            audience=ground.audience,
            scopes=ground.grant.scopes,
            level=ground.result.level,
            least=min(levels),
            binding=ground.binding,
            attester=ground.result.attester,
            result=ground.result.id,
            rule=ground.grant.rule,
            at=now,
            expires=expires,
            thumbprint="" if caller.svid is None else caller.svid.sha256,
            parent="" if ground.parent is None else ground.parent.id,
        )

    async def _check_record(self, app: str) -> None:
        """Refuse what could not be told of: a token that nobody knows cannot be revoked."""
        barred = self._parts.admits(app)
        if barred is not None:
            raise unavailable("audit cannot take it; ask the operator", "unrecorded", barred)
        try:
            await self._parts.live.ready()
        except BindError:
            text = "tokens cannot be recorded now; ask the operator"
            raise unavailable(text, "unrecorded", Reason.CAPACITY) from None
        if self._parts.live.is_full:
            raise unavailable("too many tokens wait for the disk", "full", Reason.CAPACITY)
