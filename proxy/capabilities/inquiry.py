"""Tokens asked about (RFC 7662), and revoked by who has to do with them (RFC 7009)."""

from proxy.agent_api.asked import Answer, Asked, OAuthError, encoded
from proxy.capabilities.claims import claims_of
from proxy.capabilities.form import IntrospectionAnswer, token_of
from proxy.capabilities.parts import Parts
from proxy.capabilities.refused import UNAVAILABLE
from proxy.capabilities.standing import Standing
from proxy.capabilities.told import Told
from proxy.errors import BindError

_INACTIVE = IntrospectionAnswer(active=False)


class Inquiry:
    """Answers `POST /introspect` and `POST /revoke`."""

    def __init__(self, parts: Parts, standing: Standing, told: Told) -> None:
        self._parts = parts
        self._standing = standing
        self._told = told

    async def introspect(self, asked: Asked) -> Answer:
        """Return the claims of a token that counts, to who may know; else that it does not.

        RFC 7662, section 2.2: what is not to be disclosed is "active": false, without a reason.
        """
        token = self._parts.live.known.find(token_of(asked.value))
        is_active = (
            token is not None
            and self._standing.may_know(asked.caller, token)
            and self._standing.stands(token, self._parts.wall())
        )
        self._told.introspected(active=is_active)
        if token is None or not is_active:
            return encoded(_INACTIVE)
        claims = claims_of(token, self._parts.issuer)
        return encoded({"active": True, "token_type": "Bearer", **claims})

    async def revoke(self, asked: Asked) -> Answer:
        """Void a token and all that was made of it; it is on the disk when this returns.

        Raises:
            OAuthError: it is not the caller's to revoke, or cannot be written.
        """
        token = self._parts.live.known.find(token_of(asked.value))
        if token is not None:
            if not self._standing.may_know(asked.caller, token):
                text = "a token is revoked by its parties and its audience, over TLS or in a lease"
                raise OAuthError("unauthorized_client", text)
            app = asked.caller.principal.app
            why = f"revoked by {app or 'an admin'}"
            self._told.voided(self._parts.live.void((token.id,), why), why, app)
            try:
                await self._parts.live.settled()
            except BindError:
                # RFC 7009, section 2.2.1: with a 503 "the client must assume the token still
                # exists and may retry"
                text = "it counts no more, but that is not on the disk yet: try again"
                raise OAuthError(UNAVAILABLE, text, 503) from None
        # RFC 7009, section 2.2: 200 also where there is no such token
        return encoded({})
