"""What somebody means who writes what is to be revoked: a certificate, an app, or a token."""

import re
from collections.abc import Container
from typing import Literal

from certs.errors import SpiffeError
from certs.spiffe import SCHEME, parse_id
from proxy.certificates.revoked import Kind
from proxy.errors import ConfigError

type Named = Kind | Literal["token"]
"""Tokens are revoked in their own file."""

KINDS: dict[str, Named] = {**{kind.value: kind for kind in Kind}, "token": "token"}
_TOKEN = re.compile(r"[a-z0-9-]+\.[0-9]+", re.ASCII)  # the id of one, `proxy.tokens.known`
_APP = re.compile(r"[a-z0-9-]{1,64}", re.ASCII)
# RFC 5280, section 4.1.2.2: at most 20 octets; pairs may be set apart as `openssl` prints them.
_SERIAL = re.compile(r"(0x)?[0-9a-f]{1,40}|[0-9a-f]{1,2}(:[0-9a-f]{2}){1,20}", re.ASCII)


def meant(what: str, kind: str | None, apps: Container[str]) -> tuple[Named, str]:
    """Return what `what` is, and its one spelling.

    `kind` is one of `KINDS` where that was said; `apps` are those that the rules speak of.

    Raises:
        ConfigError: it is nothing of the kind, or may be more than one thing.
    """
    if kind is not None:
        return _of_kind(what, kind)
    if what.startswith(SCHEME):
        return _of_kind(what, Kind.SPIFFE_ID)
    if _TOKEN.fullmatch(what):
        return "token", what
    found = [Kind.APP] if what in apps else []
    if _SERIAL.fullmatch(what.lower()):
        found.append(Kind.SERIAL)
    if len(found) > 1:
        choices = " or ".join(f"--kind {each}" for each in found)
        raise ConfigError(f"{what} is an app, and may be a serial number: say {choices}")
    if not found:
        raise ConfigError(
            f"{what!r} is no app of the rules, SPIFFE ID, serial number or token's id;"
            " an app without rules is named with --kind app"
        )
    return _of_kind(what, found[0])


def _of_kind(what: str, kind: str) -> tuple[Named, str]:
    match KINDS.get(kind):
        case Kind.SPIFFE_ID:
            return Kind.SPIFFE_ID, _spiffe_id(what)
        case Kind.SERIAL if _SERIAL.fullmatch(what.lower()):
            return Kind.SERIAL, f"{int(what.replace(':', ''), 16):x}"
        case Kind.APP if _APP.fullmatch(what):
            return Kind.APP, what
        case "token" if _TOKEN.fullmatch(what):
            return "token", what
        case None:
            raise ConfigError(f"--kind is one of {', '.join(KINDS)}")
        case named:
            raise ConfigError(f"{what!r} is no {_WORDS[named]}")


_WORDS: dict[Named, str] = {
    Kind.SPIFFE_ID: "SPIFFE ID",
    Kind.SERIAL: "serial number: it has at most 40 hexadecimal digits, with colons or without",
    Kind.APP: "name of an app: lower-case letters, digits and hyphens",
    "token": "id of a token: NAME.NUMBER, as `sallyport app list` shows it",
}


def _spiffe_id(what: str) -> str:
    try:
        found = parse_id(what)
    except SpiffeError as error:
        raise ConfigError(str(error)) from None
    if not found.path:
        raise ConfigError(f"{what} is a trust domain: name one of its IDs")
    return str(found)
