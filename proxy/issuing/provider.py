"""The OpenID provider whose people approve enrolments, as a client of its device flow (RFC 8628).

We are the client that the provider knows, and public: nothing secret is configured.  The device
code never leaves this process.
"""

from typing import override

import msgspec
from msgspec import Struct

from proxy.config_identity import Oidc
from proxy.errors import ProxyError
from proxy.issuing.outgoing import Outgoing, UnreachableError

_GRANT = "urn:ietf:params:oauth:grant-type:device_code"  # RFC 8628, section 3.4
_SCOPE = "openid email profile"
_INTERVAL_S = 5  # RFC 8628, section 3.2: where the provider names none
_LEAST_INTERVAL_S, _MOST_INTERVAL_S = 1, 60
_TEXT = 2048  # characters of a code or an address


class Began(Struct, frozen=True):
    """A flow at the provider (RFC 8628, section 3.2)."""

    device_code: str
    user_code: str
    verification_uri: str
    expires_in: float
    verification_uri_complete: str = ""
    interval: float = _INTERVAL_S

    @override
    def __repr__(self) -> str:
        """Show what may stand in a log."""
        return f"Began({self.verification_uri!r})"


class _Metadata(Struct):
    """What we need of OpenID Connect Discovery 1.0, section 3, and RFC 8628, section 4."""

    issuer: str
    token_endpoint: str
    jwks_uri: str
    device_authorization_endpoint: str = ""


class _Tokens(Struct):
    id_token: str


class _Refusal(Struct):
    error: str


class ProviderError(ProxyError):
    """The provider ended a flow, or cannot begin one; `code` is that of RFC 8628, section 3.5."""

    def __init__(self, text: str, code: str = "access_denied") -> None:
        super().__init__(text)
        self.code = code


class Waiting(ProxyError):  # noqa: N818 - no error: nobody has approved yet
    """Nobody has approved yet; `slow_down` where the provider wants to be asked less often."""

    def __init__(self, *, slow_down: bool = False) -> None:
        super().__init__("nobody has approved yet")
        self.slow_down = slow_down


class Provider:
    """The provider that `oidc` names."""

    def __init__(self, oidc: Oidc, outgoing: Outgoing) -> None:
        self._oidc = oidc
        self._outgoing = outgoing

    async def begin(self) -> Began:
        """Begin a flow.

        Raises:
            UnreachableError: the provider does not answer.
            ProviderError: it does not know us, or has no device flow.
            ConfigError: the file of authorities cannot be used.
        """
        metadata = await self._metadata()
        if not metadata.device_authorization_endpoint:
            raise ProviderError("the OpenID provider has no device flow")
        form = {"client_id": self._oidc.client_id, "scope": _SCOPE}
        answer = await self._outgoing.ask("POST", metadata.device_authorization_endpoint, form)
        if answer.status != 200:
            code = _code(answer.content)
            raise ProviderError(f"the OpenID provider began no device flow: {code}")
        began = _read(answer.content, Began)
        shown = (began.user_code, began.verification_uri, began.verification_uri_complete)
        if any(len(each) > _TEXT or not each.isprintable() for each in shown):
            raise ProviderError("the OpenID provider's answer is not for showing to people")
        if not began.verification_uri.startswith("https://"):
            raise ProviderError("the OpenID provider's page has no https:// address")
        interval = min(max(began.interval, _LEAST_INTERVAL_S), _MOST_INTERVAL_S)
        return msgspec.structs.replace(began, interval=interval)

    async def ask(self, device_code: str) -> str:
        """Return the ID token of a flow that was approved.

        Raises:
            Waiting: nobody approved yet.
            ProviderError: somebody denied it, or its time is over.
            UnreachableError: the provider does not answer, for now.
        """
        metadata = await self._metadata()
        form = {
            "grant_type": _GRANT,
            "device_code": device_code,
            "client_id": self._oidc.client_id,
        }
        answer = await self._outgoing.ask("POST", metadata.token_endpoint, form)
        if answer.status == 200:
            return _read(answer.content, _Tokens).id_token
        if answer.status >= 500:
            raise UnreachableError(f"the OpenID provider answered {answer.status}")
        code = _code(answer.content)
        if code in {"authorization_pending", "slow_down"}:
            raise Waiting(slow_down=code == "slow_down")
        if code == "expired_token":
            raise ProviderError("nobody approved in time: begin again", code)
        raise ProviderError(f"the OpenID provider refused: {code}")

    async def keys(self) -> bytes:
        """Return the provider's keys, a JWK set; raises as `begin`."""
        return await self._outgoing.get((await self._metadata()).jwks_uri)

    async def _metadata(self) -> _Metadata:
        issuer = self._oidc.issuer
        place = f"{issuer.removesuffix('/')}/.well-known/openid-configuration"
        found = _read(await self._outgoing.get(place), _Metadata)
        # OpenID Connect Discovery 1.0, section 4.3: MUST be the same
        if found.issuer != issuer:
            raise ProviderError("the OpenID provider says that it is another one: correct `issuer`")
        return found


def _read[T](content: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, RecursionError):
        raise ProviderError("the OpenID provider's answer is not what it should be") from None


def _code(content: bytes) -> str:
    """Return the error code of RFC 6749, section 5.2, fit for a text."""
    try:
        code = msgspec.json.decode(content, type=_Refusal).error
    except (msgspec.MsgspecError, RecursionError):
        return "no reason given"
    return "".join(each for each in code[:64] if each.isalnum() or each in "_-. ")
