"""What the token endpoints take and give; `proxy.agent_api.content` has read the form already."""

import re
from typing import Any, Final

from msgspec import Struct, field

from proxy.agent_api.asked import OAuthError

EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a kind of token
_SCOPES: Final = 64  # in a request; GitHub has about 40 in all
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}")  # RFC 6749, section 3.3: scope-token
_TARGET = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,1024}")  # a URI, a SPIFFE ID or a name


class ExchangeForm(Struct, frozen=True, kw_only=True):
    """What `POST /token` takes (RFC 8693, section 2.1); one of `audience` and `resource`."""

    grant_type: str = ""
    subject_token: str = ""
    subject_token_type: str = ""
    scope: str = ""
    audience: str = ""
    resource: str = ""
    requested_token_type: str = ""
    actor_token: str = ""
    actor_token_type: str = ""


class TokenForm(Struct, frozen=True):
    """What `POST /introspect` and `POST /revoke` take (RFC 7662, 2.1; RFC 7009, 2.1)."""

    token: str = ""
    token_type_hint: str = ""


class ExchangeAnswer(Struct, frozen=True, kw_only=True):
    """What `POST /token` gives (RFC 8693, section 2.2.1); `expires_in` is seconds."""

    access_token: str
    issued_token_type: str
    token_type: str
    expires_in: int
    scope: str


class IntrospectionAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What `POST /introspect` gives (RFC 7662, section 2.2): claims, where it is active."""

    active: bool
    iss: str = ""
    sub: str = ""
    aud: str = ""
    client_id: str = ""
    scope: str = ""
    token_type: str = ""
    iat: int = 0
    exp: int = 0
    jti: str = ""
    level: str = ""
    cnf: dict[str, str] = field(default_factory=dict)
    act: dict[str, Any] = field(default_factory=dict)


class Wanted(Struct, frozen=True, kw_only=True):
    """What is asked for: `scopes` at `target`.  Without an actor the `actor_token` is ""."""

    subject_token: str
    subject_type: str
    target: str
    scopes: tuple[str, ...]
    actor_token: str = ""


def read_exchange(form: ExchangeForm) -> Wanted:
    """Return what is wanted.

    Raises:
        OAuthError: it is no well-formed request for an exchange; no value of it is in the text.
    """
    if not form.grant_type:
        raise OAuthError("invalid_request", "grant_type is missing")
    if form.grant_type != EXCHANGE:
        raise OAuthError("unsupported_grant_type", f"grant_type is {EXCHANGE} here")
    if not form.subject_token:
        raise OAuthError("invalid_request", "subject_token is missing: your attestation result")
    _check_types(form)
    return Wanted(
        subject_token=form.subject_token,
        subject_type=form.subject_token_type,
        target=_target(form),
        scopes=_scopes(form.scope),
        actor_token=form.actor_token,
    )


def token_of(form: TokenForm) -> str:
    """Return the token that is asked about.

    Raises:
        OAuthError: there is none.
    """
    if not form.token:
        raise OAuthError("invalid_request", "token is missing")
    return form.token


def _check_types(form: ExchangeForm) -> None:
    if form.subject_token_type not in {JWT, ACCESS_TOKEN}:
        text = f"subject_token_type is {JWT} of an attestation result, {ACCESS_TOKEN} of a token"
        raise OAuthError("invalid_request", text)
    # RFC 8693, section 2.1: "REQUIRED when the actor_token parameter is present in the request but
    # MUST NOT be included otherwise"
    if form.actor_token_type != (JWT if form.actor_token else ""):
        text = f"actor_token_type is {JWT} where there is an actor_token, and absent elsewhere"
        raise OAuthError("invalid_request", text)
    if form.requested_token_type not in {"", ACCESS_TOKEN}:
        raise OAuthError("invalid_request", f"requested_token_type is {ACCESS_TOKEN} here")


def _target(form: ExchangeForm) -> str:
    """RFC 8693, section 2.2.2: what no token can be issued for is invalid_target."""
    targets = [each for each in (form.audience, form.resource) if each]
    if not targets:
        raise OAuthError("invalid_target", "name the target: one audience, or one resource")
    if len(targets) > 1:
        raise OAuthError("invalid_target", "a token has one target: an audience or a resource")
    if not _TARGET.fullmatch(targets[0]):
        raise OAuthError("invalid_target", "no target has such characters, or so many")
    return targets[0]


def _scopes(text: str) -> tuple[str, ...]:
    """Return the scopes that are asked for, each once and in order of the alphabet."""
    if not text:
        # RFC 6749, section 3.3: a default, or this
        raise OAuthError("invalid_scope", "scope is missing: name what the token is for")
    scopes = text.split(" ")
    if len(scopes) > _SCOPES or not all(_SCOPE.fullmatch(each) for each in scopes):
        raise OAuthError("invalid_scope", "scope is malformed, or too long")
    return tuple(sorted(set(scopes)))
