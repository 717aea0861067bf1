"""The value of Authorization and Proxy-Authorization: Basic (RFC 7617) and Bearer (RFC 6750).

Read strictly: a value that two readers could take for two secrets is none.  What a credential
is worth is asked of `proxy.identify`; here it is only taken apart.
"""

import binascii
import re
from base64 import b64decode, b64encode
from typing import Literal, override

from msgspec import Struct

CREDENTIAL_OCTETS = 8000
"""Of the whole value: the largest attestation result that we issue has a few octets less.

One with all 24 PCRs has 3 KiB.  nginx takes a line of 8 KiB, as `limits.doh_head_octets` is.
"""

# RFC 9110, section 11.4: scheme, then spaces, then token68.  The scheme is matched in any case.
_BASIC = re.compile(rb"[Bb][Aa][Ss][Ii][Cc] ++([A-Za-z0-9+/]++={0,2})")
_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] ++([A-Za-z0-9\-._~+/]++=*+)")
# RFC 7617, section 2: "The user-id and password MUST NOT contain any control characters".
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


class Credential(Struct, frozen=True, repr_omit_defaults=True):
    """What a client presents; `user` is empty for Bearer.  Its `repr` keeps the secret."""

    scheme: Literal["basic", "bearer"]
    user: str
    secret: str

    @override
    def __repr__(self) -> str:
        return f"Credential({self.scheme!r}, {self.user!r}, ...)"


def read_credential(value: bytes) -> Credential | None:
    """Return the credential that the field's `value` presents; None where it is not understood.

    None is another scheme, more than one credential, a broken encoding, control characters, an
    empty secret, or more than `CREDENTIAL_OCTETS`: presented all the same, and known to nobody.
    """
    if len(value) > CREDENTIAL_OCTETS:
        return None
    if match := _BEARER.fullmatch(value):
        return Credential("bearer", "", match[1].decode("ascii"))
    match = _BASIC.fullmatch(value)
    return None if match is None else _read_pair(match[1])


def _read_pair(encoded: bytes) -> Credential | None:
    """Return what RFC 7617, section 2, calls user-pass: the first colon parts the two."""
    try:
        octets = b64decode(encoded, validate=True)
        text = octets.decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None
    user, colon, secret = text.partition(":")
    is_canonical = b64encode(octets) == encoded  # RFC 4648, section 3.5: one spelling of each
    if not (is_canonical and colon and secret) or _CONTROL.search(text):
        return None
    return Credential("basic", user, secret)
