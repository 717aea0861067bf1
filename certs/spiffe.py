"""SPIFFE IDs and trust domains, by the letter of the SPIFFE-ID standard.

An ID has exactly one spelling: what could be spelled twice (upper case in the scheme or the trust
domain, percent-encoding, dot segments, a trailing slash) is refused, never normalised.
"""

import re
from typing import override

from msgspec import Struct

from certs.errors import SpiffeError

SCHEME = "spiffe://"
MOST_ID_OCTETS = 2048  # SPIFFE-ID, section 2.3
MOST_TRUST_DOMAIN_OCTETS = 255  # SPIFFE-ID, section 2.1: as the host of RFC 3986, section 3.2.2
_SHOWN_CHARACTERS = 80  # of what somebody else wrote
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+", re.ASCII)  # SPIFFE-ID, section 2.1
_SEGMENT = re.compile(r"[a-zA-Z0-9._-]+", re.ASCII)  # SPIFFE-ID, section 2.2
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)


class SpiffeId(Struct, frozen=True):
    """Who, in which trust domain; `path` begins with a slash, or is empty for the domain itself."""

    trust_domain: str
    path: str = ""

    @override
    def __str__(self) -> str:
        """Return the one spelling."""
        return f"{SCHEME}{self.trust_domain}{self.path}"


def parse_id(text: str) -> SpiffeId:
    """Return the ID that `text` spells; one of a workload has a path, see `workload_id`.

    Raises:
        SpiffeError: it is none (SPIFFE-ID, section 2).
    """
    if len(text) > MOST_ID_OCTETS:
        raise SpiffeError(f"a SPIFFE ID has {MOST_ID_OCTETS} octets at most: shorten it")
    if not text.startswith(SCHEME):
        raise SpiffeError(f"{shown(text)} is no SPIFFE ID: begin it with {SCHEME}")
    trust_domain, slash, path = text[len(SCHEME) :].partition("/")
    check_trust_domain(trust_domain)
    if not slash:
        return SpiffeId(trust_domain)
    for segment in path.split("/"):
        # `fullmatch`: `$` would let a newline pass
        if not _SEGMENT.fullmatch(segment) or segment in {".", ".."}:
            raise SpiffeError(
                f"{shown(text)} is no SPIFFE ID: the path has letters, digits, '.', '-' and '_' "
                "between single slashes, no dot segments and no slash at its end"
            )
    return SpiffeId(trust_domain, f"/{path}")


def workload_id(text: str, trust_domain: str) -> SpiffeId:
    """Return the ID of a workload of `trust_domain`.

    Raises:
        SpiffeError: `text` is no ID, is of another trust domain, or has no path
            (X509-SVID, section 3.1; JWT-SVID, section 3.1).
    """
    found = parse_id(text)
    if found.trust_domain != trust_domain:
        raise SpiffeError(f"{shown(text)} is not of the trust domain {trust_domain}")
    if not found.path:
        raise SpiffeError(f"{shown(text)} is the trust domain itself: a workload has a path")
    return found


def check_trust_domain(text: str) -> None:
    """See that `text` is a trust domain's name.

    Raises:
        SpiffeError: it is not (SPIFFE-ID, section 2.1).
    """
    if len(text) > MOST_TRUST_DOMAIN_OCTETS or not _TRUST_DOMAIN.fullmatch(text):
        raise SpiffeError(
            f"{shown(text)} is no trust domain: it has lower-case letters, digits, '.', '-' and "
            f"'_', {MOST_TRUST_DOMAIN_OCTETS} octets at most"
        )


def check_own_trust_domain(text: str) -> None:
    """See that we can be the issuer of the trust domain `text`.

    It stands in a name constraint: a host name, and no address (RFC 5280, section 4.2.1.10).

    Raises:
        SpiffeError: we cannot.
    """
    check_trust_domain(text)
    labels = text.split(".")
    if not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdigit():
        raise SpiffeError(
            f"{shown(text)} cannot be our trust domain: set `identity.trust_domain` to a host "
            "name such as desk.example"
        )


def shown(text: str) -> str:
    """Return what somebody else wrote as an error may quote it: short, no control characters."""
    short = text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
    return ascii(short)
