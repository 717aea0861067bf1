"""Whether an app may have a token for an audience: what nothing lists is not granted.

An entry is about one audience, compared octet by octet.  Those that hold all that is asked for
decide together, as equal allows do: the shortest time, and all that any of them requires.
"""

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum

from msgspec import Struct

from rules.facts import Principal
from rules.node import quote
from rules.required import lack, total
from rules.ruleset import App, Capability

_SHOWN = 8  # scopes in a text


class GrantError(StrEnum):
    """Why nothing is granted; the first two are RFC 8693, section 2.2.2, and RFC 6749, 5.2."""

    INVALID_TARGET = "invalid_target"
    INVALID_SCOPE = "invalid_scope"
    ATTESTATION_REQUIRED = "attestation-required"


class Grant(Struct, frozen=True):
    """What a token may say: `scopes` for `ttl_s` seconds, by the rule `rule`."""

    scopes: tuple[str, ...]
    ttl_s: int
    rule: str


class Ungranted(Struct, frozen=True):
    """Why there is no token; `text` is for who asks."""

    error: GrantError
    text: str


def grant(
    app: App,
    audience: str,
    scopes: Sequence[str],
    principal: Principal,
    subject_app: str | None,
) -> Grant | Ungranted:
    """Return what `principal`, of `app`, gets for `scopes` at `audience`, or why nothing.

    `subject_app` is whose token is passed on, None or the app's own name where nobody acts for
    another.
    """
    entries = [entry for entry in app.capabilities if entry.audience == audience]
    if not entries:
        return _no_target(f"no capability of {app.name} is for {quote(audience)}")
    holding = _holding(entries, scopes)
    if isinstance(holding, Ungranted):
        return holding
    if subject_app is not None and subject_app != app.name:
        holding = [entry for entry in holding if subject_app in entry.on_behalf_of]
        if not holding:
            return _no_target(f"{app.name} may not act on behalf of {subject_app} there")
    lacking = lack(total([app.require, *(entry.require for entry in holding)]), principal)
    if lacking is not None:
        text = lacking.text or "a client certificate is needed: use proxy_tls or DoH with yours"
        return Ungranted(GrantError.ATTESTATION_REQUIRED, text)
    ttl_s = min(entry.ttl_s for entry in holding)
    return Grant(tuple(dict.fromkeys(scopes)), ttl_s, min(entry.id for entry in holding))


def _no_target(text: str) -> Ungranted:
    cure = "ask the admin to list it under `capabilities`"
    return Ungranted(GrantError.INVALID_TARGET, f"{text}; {cure}")


def _holding(entries: Sequence[Capability], scopes: Sequence[str]) -> list[Capability] | Ungranted:
    if not scopes:  # RFC 6749, section 3.3: no default here, so that nobody has more than he named
        return _no_scope(f"name the scopes: {_first(_all_scopes(entries))}")
    wanted = frozenset(scopes)
    holding = [entry for entry in entries if wanted <= entry.scopes]
    if holding:
        return holding
    unknown = wanted.difference(_all_scopes(entries))
    if unknown:
        return _no_scope(f"not listed: {_first(unknown)}; ask the admin to add them to `scopes`")
    return _no_scope("no one entry of `capabilities` has all of them: ask for each apart")


def _all_scopes(entries: Sequence[Capability]) -> Iterator[str]:
    return (scope for entry in entries for scope in entry.scopes)


def _first(scopes: Iterable[str]) -> str:
    """Return some of the scopes for a text; who asks may have named any number, of any length."""
    named = sorted(set(scopes))
    more = ["..."] if len(named) > _SHOWN else []
    return ", ".join([quote(scope) for scope in named[:_SHOWN]] + more)


def _no_scope(text: str) -> Ungranted:
    return Ungranted(GrantError.INVALID_SCOPE, text)
