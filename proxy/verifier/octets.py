"""Octets as JSON has them: base64url without padding (RFC 4648, section 5; RFC 7515, section 2)."""

import base64


def text_of(octets: bytes) -> str:
    """Return `octets` as base64url without padding."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def octets_of(text: str) -> bytes:
    """Return what `text` is the one base64url of.

    Raises:
        ValueError: it is none, or not the one that `text_of` makes.
    """
    try:
        octets = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise ValueError("it is no base64url without padding") from None
    # RFC 4648, section 3.5: bits that no octet has are zero, so that two texts are never the same
    if text_of(octets) != text:
        raise ValueError("it is no base64url without padding")
    return octets
