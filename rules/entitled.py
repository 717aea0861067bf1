"""`capabilities` of an app: what it may have tokens for, at whom, and for how long.

And `introspects`: whose tokens it takes, so that it may ask about them.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from msgspec import UNSET

from rules import document
from rules.facts import Level
from rules.identity import read_spiffe
from rules.node import MappingNode, MistakeError, Report, at, one_or_more, quote
from rules.required import union
from rules.restriction import DEFAULT_MAX_AGE_S, read_each, read_seconds, require_of
from rules.ruleset import Capability, Requirements
from rules.shape import suggest

DEFAULT_TTL_S: Final = 60
MOST_TTL_S: Final = 3600
SCOPE_CHARACTERS: Final = 128
AUDIENCE_OCTETS: Final = 2048  # as a SPIFFE ID (SPIFFE-ID, section 2.3)

_SCOPE = re.compile(r"[!#-\[\]-~]{1,128}", re.ASCII)  # RFC 6749, section 3.3
# RFC 3986, section 4.3, and no fragment (RFC 8707, section 2).  What has an authority has a host.
_CHARACTER = r"(?:[A-Za-z0-9._~:/?\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})"
_URI = re.compile(
    rf"[a-z][a-z0-9+.-]{{0,31}}:(?://[A-Za-z0-9\[]{_CHARACTER}*|(?!/){_CHARACTER}+)", re.ASCII
)
_ATTESTED = Requirements(attested=Level.SOFTWARE, max_age_s=DEFAULT_MAX_AGE_S)

type Entitled = tuple[Capability, MappingNode, Report]
"""A capability, and where it stands."""


def read_capability(
    entry: document.Capability, node: MappingNode, report: Report
) -> Capability | None:
    """Return one entry of `capabilities`; None where something is wrong, which is reported."""
    before = report.errors
    require = require_of(entry.require, node, report)
    capability = Capability(
        id=report.line_id(node),
        audience=_audience(entry, node, report),
        scopes=frozenset(read_each(entry.scopes, node.value("scopes"), read_scope, report)),
        ttl_s=_ttl_s(entry, node, report),
        on_behalf_of=frozenset() if entry.on_behalf_of is UNSET else frozenset(entry.on_behalf_of),
        require=union(require, _ATTESTED) if require.attested is None else require,
    )
    for key, texts in (("scopes", entry.scopes), ("on_behalf_of", entry.on_behalf_of)):
        if texts is not UNSET:
            _refuse_twice(texts, key, node, report)
    return None if node.flawed or report.errors > before else capability


def read_introspected(entry: document.App, node: MappingNode, report: Report) -> frozenset[str]:
    """Return the audiences of `introspects`; what is wrong with them is reported."""
    if entry.introspects is UNSET:
        return frozenset()
    _refuse_twice(entry.introspects, "introspects", node, report)
    return frozenset(read_each(entry.introspects, node.value("introspects"), read_audience, report))


def read_scope(text: str) -> str:
    """Return a scope.

    Raises:
        MistakeError: a character that no scope has (RFC 6749, section 3.3), or too many.
    """
    if not _SCOPE.fullmatch(text):
        cure = f'write 1 to {SCOPE_CHARACTERS} of the characters ! to ~, but no " and no \\'
        raise MistakeError(f"{quote(text)} is no scope", cure)
    return text


def read_audience(text: str) -> str:
    """Return the name of who takes a token, which is compared as it is written.

    Raises:
        MistakeError: no absolute URI without fragment (RFC 8707, section 2), and no SPIFFE ID.
    """
    if text.startswith("spiffe:"):
        return read_spiffe(text)
    if not _URI.fullmatch(text) or len(text) > AUDIENCE_OCTETS:
        cure = "write an absolute URI such as https://api.example.com/, or a SPIFFE ID"
        raise MistakeError(f"{quote(text)} names no audience", cure)
    return text


def refuse_same(capabilities: Iterable[Entitled]) -> None:
    """Report entries of one app that say the same scopes of the same audience."""
    seen: dict[tuple[str, frozenset[str]], Capability] = {}
    for capability, node, report in capabilities:
        first = seen.setdefault((capability.audience, capability.scopes), capability)
        if first is not capability:
            message = f"the audience {quote(capability.audience)} has these scopes at {first.id}"
            report.error(node.value("audience"), message, "keep one of the two, or merge them")


def refuse_unknown_subjects(
    entry: document.Capability, node: MappingNode, report: Report, known: Collection[str]
) -> None:
    """Report apps under `on_behalf_of` that no rule file speaks of."""
    if entry.on_behalf_of is UNSET:
        return
    for name, item in zip(entry.on_behalf_of, one_or_more(node.value("on_behalf_of")), strict=True):
        if name not in known:
            report.error(item, f"there is no app {quote(name)}", suggest(name, known))


def _audience(entry: document.Capability, node: MappingNode, report: Report) -> str:
    try:
        return read_audience(entry.audience)
    except MistakeError as mistake:
        report.error(node.value("audience"), str(mistake), mistake.cure)
        return ""


def _ttl_s(entry: document.Capability, node: MappingNode, report: Report) -> int:
    if entry.ttl is UNSET:
        return DEFAULT_TTL_S
    try:
        ttl_s = read_seconds(entry.ttl)
    except MistakeError as mistake:
        report.error(at(node, "ttl"), str(mistake), mistake.cure)
        return DEFAULT_TTL_S
    if ttl_s > MOST_TTL_S:
        cure = f"write at most 1h; the default is {DEFAULT_TTL_S}s"
        report.error(at(node, "ttl"), f"a token for {ttl_s} s long outlives what was proven", cure)
    return ttl_s


def _refuse_twice(texts: Sequence[str], key: str, node: MappingNode, report: Report) -> None:
    seen: set[str] = set()
    for text, item in zip(texts, one_or_more(node.value(key)), strict=True):
        if text in seen:
            report.error(item, f"{quote(text)} stands twice in `{key}`", "take one of them out")
        seen.add(text)
