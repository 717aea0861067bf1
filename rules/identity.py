"""Lines of `identity` -> what names an app; and which lines of two apps cannot both stand."""

import re
from collections.abc import Callable, Iterable
from itertools import combinations

from msgspec import UNSET, UnsetType

from rules import document
from rules.address import parse_address
from rules.errors import MalformedAddressError
from rules.node import MappingNode, MistakeError, Node, Report, at, quote
from rules.ruleset import IdentityLine

# SPIFFE-ID, sections 2.1 and 2.2: these characters only, no empty segment, no trailing slash.
_SPIFFE = re.compile(r"spiffe://[a-z0-9._-]{1,255}(?:/[A-Za-z0-9._-]+)+", re.ASCII)
_SPIFFE_OCTETS = 2048  # SPIFFE-ID, section 2.3
_CGROUP_OCTETS = 4096  # PATH_MAX of Linux
_PORT = re.compile(r"[1-9]\d{0,4}", re.ASCII)
_DOTS = frozenset({"", ".", ".."})
_LACKING = ("lease",)
_KEYS = ("uid", "cgroup", "exe_sha256")
_NOT_LEASED = {
    "process": "the processes of a sandbox are in a network namespace of their own",
    "listener": "a lease has listeners of its own",
}
"""What stands beside `lease` in vain, and why."""

type Claim = tuple[IdentityLine, str, MappingNode, Report]
"""A line, the app that it names, and where it stands."""


def read_line(entry: document.Identity, node: MappingNode, report: Report) -> IdentityLine | None:
    """Return one line of `identity`; None where something is wrong, which is reported."""
    before = report.errors
    _check_keys(node, report)
    process = document.Process() if entry.process is UNSET else entry.process
    line = IdentityLine(
        id=report.line_id(node),
        lease=_given(entry.lease),
        spiffe=_checked(entry.spiffe, read_spiffe, node, report, "spiffe"),
        token=_given(entry.token),
        listener=_checked(entry.listener, read_listener, node, report, "listener"),
        uid=_given(process.uid),
        cgroup=_checked(process.cgroup, read_cgroup, node, report, "process", "cgroup"),
        exe_sha256=_given(process.exe_sha256),
    )
    if line.listener is not None and not _is_presented(line) and _is_local(line.listener):
        report.warn(
            node.key("listener"),
            f"any local user can dial {line.listener} and is then this app",
            "use an address of a bridge or sandbox that only the app reaches",
        )
    return None if node.flawed or report.errors > before else line


def check_claims(claims: Iterable[Claim]) -> None:
    """Report two apps on one listener, token or certificate, and lines of two that may tie."""
    listeners: dict[str, Claim] = {}
    ties: dict[tuple[str | None, ...], _Ties] = {}
    for claim in claims:
        line, app, node, report = claim
        if line.listener is not None and not _is_presented(line):
            first = listeners.setdefault(line.listener, claim)
            if first[1] != app:
                message = f"the listener {line.listener} names {first[1]} already, at {first[0].id}"
                report.error(node.key("listener"), message, "give each app a listener of its own")
        elif not line.lease:
            # A line with a listener outranks one without, and two listeners are in conflict; so
            # does one with both a token and a certificate outrank one with either.
            ties.setdefault((line.spiffe, line.token, line.listener), _Ties()).add(claim)


def read_spiffe(text: str) -> str:
    """Return a SPIFFE ID.

    Raises:
        MistakeError: not spiffe://TRUST-DOMAIN/PATH (SPIFFE-ID, section 2).
    """
    segments = text.split("/")[3:]
    if not _SPIFFE.fullmatch(text) or len(text) > _SPIFFE_OCTETS or _DOTS & {*segments}:
        message = f"{quote(text)} is no SPIFFE ID"
        raise MistakeError(message, "write spiffe://TRUST-DOMAIN/PATH, without query or dots")
    return text


def read_listener(text: str) -> str:
    """Return ADDRESS:PORT in canonical spelling, an IPv6 address in brackets.

    Raises:
        MistakeError: anything else.
    """
    host, _, port = text.rpartition(":")
    try:
        address = parse_address(host.removeprefix("[").removesuffix("]"))
        bracketed = host.startswith("[") and host.endswith("]")
        if _PORT.fullmatch(port) and int(port) <= 65535 and bracketed == (address.version == 6):
            return f"[{address}]:{port}" if bracketed else f"{address}:{port}"
    except MalformedAddressError:
        pass
    message = f"{quote(text)} is no listen address"
    raise MistakeError(message, "write ADDRESS:PORT as in `listen:`, such as 172.18.0.1:5300")


def read_cgroup(text: str) -> str:
    """Return a cgroup's path from the root of the hierarchy.

    Raises:
        MistakeError: no absolute path in its shortest form.
    """
    segments = text.split("/")[1:]
    if not text.startswith("/") or len(text) > _CGROUP_OCTETS or _DOTS & {*segments}:
        message = f"{quote(text)} is no cgroup"
        raise MistakeError(message, "write it as /proc/PID/cgroup does: /user.slice/x.scope")
    return text


class _Ties:
    """Lines that may tie, by every part that a line of as many keys may share with them."""

    def __init__(self) -> None:
        self._first: dict[object, Claim] = {}

    def add(self, claim: Claim) -> None:
        """Report `claim` if an earlier line of another app has equal rank and no conflict."""
        line, app, node, report = claim
        values = {key: getattr(line, key) for key in _KEYS if getattr(line, key) is not None}
        for other in combinations(_KEYS, len(values)):
            shared = tuple((key, values[key]) for key in other if key in values)
            first = self._first.get((other, shared))
            if first is not None and first[1] != app:
                what = "a process" if line.token is None else f"the token {line.token}"
                what = what if line.spiffe is None else f"a certificate of {line.spiffe}"
                message = f"{what} may match this line and that of {first[1]} at {first[0].id}"
                cure = "give one line more keys, or both a key with different values"
                presented = "token" if line.spiffe is None else "spiffe"
                key = "process" if line.is_process else presented
                report.error(node.key(key), message, cure)
                break
        for size in range(len(values) + 1):
            for part in combinations(values.items(), size):
                self._first.setdefault((tuple(values), part), claim)


def _given[T](value: T | UnsetType) -> T | None:
    return None if isinstance(value, UnsetType) else value


def _checked(
    text: str | UnsetType,
    parse: Callable[[str], str],
    node: MappingNode,
    report: Report,
    *keys: str,
) -> str | None:
    if text is UNSET:
        return None
    try:
        return parse(text)
    except MistakeError as mistake:
        report.error(at(node, *keys), str(mistake), mistake.cure)
        return None


def _check_keys(node: MappingNode, report: Report) -> None:
    parts: dict[str, Node] = {"an empty identity line": node}
    if "process" in node.entries:
        parts["an empty `process`"] = node.value("process")
    for message, part in parts.items():
        if isinstance(part, MappingNode) and not (part.entries or part.flawed):
            report.error(part, message, "name at least one key that must match")
    for key in _LACKING:
        if key in node.entries:
            message = f"no launcher grants a `{key}` in this version: the line never matches"
            report.warn(node.key(key), message, "use `spiffe`, `token` or `process` until one does")
    if "lease" in node.entries:
        for key in (key for key in _NOT_LEASED if key in node.entries):
            message = f"`{key}` beside `lease` never matches: {_NOT_LEASED[key]}"
            report.warn(node.key(key), message, f"take `{key}` out, or give it a line of its own")


def _is_presented(line: IdentityLine) -> bool:
    """Return whether the line is about a credential, so that its listener alone names nobody."""
    return line.token is not None or line.spiffe is not None


def _is_local(listener: str) -> bool:
    host = listener.rpartition(":")[0].strip("[]")
    address = parse_address(host)
    return address.is_loopback or address.is_unspecified
