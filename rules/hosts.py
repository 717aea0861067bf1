"""Host patterns from text: names in every safe spelling, and wildcards that are not too wide.

International names become A-labels by UTS 46, non-transitional (RFC 5891; the `idna` library).
"""

import re
from collections.abc import Callable
from functools import cached_property

import idna

from rules.address import parse_address
from rules.errors import MalformedAddressError, MalformedNameError
from rules.name import NAME_CHARACTERS, ROOT, DomainName, ancestors, parent, parse
from rules.node import MistakeError, Node, Report, one_or_more, quote
from rules.pattern import HostPattern, PatternKind
from rules.suffix import PublicSuffixes

# Canonical already and no literal, for the top label is of letters: nearly all of a long list.
_PLAIN = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z]{2,63}")
# What ends in a number is an IPv4 address to many parsers (WHATWG URL, section 3.5).
_NUMERIC = re.compile(r"(?:.*\.)?(?:\d+|0[xX][0-9a-fA-F]*)\.?", re.ASCII)
_WITH_PORT = re.compile(r"[^:]*:\d{1,5}", re.ASCII)
_STARS = {"*": PatternKind.CHILD, "**": PatternKind.BELOW}
_EVERY = HostPattern(PatternKind.EVERY, ROOT)


class HostReader:
    """Reads `host`, in allow and in deny, against one public suffix list."""

    def __init__(self, suffixes: PublicSuffixes) -> None:
        self._suffixes = suffixes

    def denied(self, texts: list[str], node: Node, report: Report) -> tuple[HostPattern, ...]:
        """Return the patterns of a deny; what is wrong is reported."""
        return _gather(texts, node, report, lambda _pattern: None)

    def allowed(
        self, texts: list[str], node: Node, report: Report, *, tenants: bool
    ) -> tuple[HostPattern, ...]:
        """Return the patterns of an allow; `tenants` accepts wildcards over many tenants."""
        check = self._refuse_registries if tenants else self._refuse_wide
        return _gather(texts, node, report, check)

    def _refuse_wide(self, pattern: HostPattern) -> None:
        self._refuse_registries(pattern)
        if pattern.kind is not PatternKind.EXACT and self._reaches_tenants(pattern):
            raise MistakeError(
                f"{quote(str(pattern))} covers names of many tenants (public suffix list, private)",
                "list the names, or add `multi_tenant: accepted` to the rule",
            )

    def _refuse_registries(self, pattern: HostPattern) -> None:
        if pattern.kind is PatternKind.EXACT:
            return
        if pattern.kind is PatternKind.EVERY:
            raise MistakeError("`*` would allow every name", "list the names; `*` is for deny only")
        below = pattern.kind is PatternKind.BELOW and pattern.base in self._above_registries
        if below or self._suffixes.is_registry(pattern.base):
            raise MistakeError(
                f"{quote(str(pattern))} covers every customer of a registry (public suffix list)",
                "list the names, or wildcards below a name of one owner",
            )

    def _reaches_tenants(self, pattern: HostPattern) -> bool:
        # What the wildcard matches is at or below a private suffix if its base is, or if a suffix
        # lies within its reach: any depth for `**`, one label for `*`.
        base = pattern.base
        if self._suffixes.is_shared(base):
            return True
        reach = self._suffixes.above_private
        return base in reach and (
            pattern.kind is PatternKind.BELOW or base in self._next_to_private
        )

    @cached_property
    def _next_to_private(self) -> frozenset[DomainName]:
        private = self._suffixes.private
        bases = {parent(DomainName(suffix)) for suffix in private.exact}
        return frozenset(bases | {DomainName(base) for base in private.wild})

    @cached_property
    def _above_registries(self) -> frozenset[DomainName]:
        # `**.nordland.no` reaches the customers of the registry `bo.nordland.no`.
        exact = self._suffixes.icann.exact
        return frozenset(up for suffix in exact for up in ancestors(DomainName(suffix)))


def parse_pattern(text: str) -> HostPattern:
    """Return the pattern that `text` spells, in canonical form.

    Raises:
        MistakeError: a literal address, a URL, a port, a `*` elsewhere than as the first label,
            no domain name.
    """
    if text == "*":
        return _EVERY
    stars, dot, rest = text.partition(".")
    if "*" in rest or ("*" in stars and not (dot and stars in _STARS)):
        raise MistakeError(
            f"{quote(text)}: a `*` stands for whole labels, first",
            "write *.example.com (one label) or **.example.com (one or more)",
        )
    if stars in _STARS:
        return HostPattern(_STARS[stars], parse_host(rest))
    return HostPattern(PatternKind.EXACT, parse_host(text))


def parse_host(text: str) -> DomainName:
    """Return the canonical name of `text`; U-labels become A-labels.

    Raises:
        MistakeError: anything else than a domain name.
    """
    try:
        name = parse(text if text.isascii() else _to_ascii(text))
    except MalformedNameError as error:
        raise _mistake(text, str(error)) from None
    if _NUMERIC.fullmatch(name):
        raise _literal(text)
    return name


def _to_ascii(text: str) -> str:
    # A name of A-labels is longer than its U-labels; longer text is not looked at (idna's cost).
    if len(text) > NAME_CHARACTERS:
        raise MalformedNameError(f"{quote(text)} is longer than {NAME_CHARACTERS} characters")
    try:
        return idna.encode(text, uts46=True).decode("ascii")
    except idna.IDNAError as error:
        raise MalformedNameError(f"{quote(text)} is no international name: {error}") from None


def _mistake(text: str, message: str) -> MistakeError:
    cure = "write a domain name such as www.example.com"
    if "/" in text:
        cure = "write the host alone: no scheme, no path; networks stand in `addresses`"
    elif _WITH_PORT.fullmatch(text):
        cure = "take the port out and list it in `ports`"
    try:
        parse_address(text.removeprefix("[").removesuffix("]"))
    except MalformedAddressError:
        return MistakeError(message, cure)
    return _literal(text)


def _literal(text: str) -> MistakeError:
    cure = "list it in `addresses` of a rule without `host`, with its `ports`"
    return MistakeError(f"{quote(text)} is an address, not a name", cure)


def _gather(
    texts: list[str], node: Node, report: Report, check: Callable[[HostPattern], None]
) -> tuple[HostPattern, ...]:
    found: dict[str, HostPattern] = {}
    for text, item in zip(texts, one_or_more(node), strict=True):
        if _PLAIN.fullmatch(text) and len(text) <= NAME_CHARACTERS:
            if text not in found:
                found[text] = HostPattern(PatternKind.EXACT, DomainName(text))
            continue
        try:
            pattern = parse_pattern(text)
            check(pattern)
        except MistakeError as mistake:
            report.error(item, str(mistake), mistake.cure)
        else:
            found.setdefault(str(pattern), pattern)
    return tuple(found.values())
