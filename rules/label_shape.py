"""What labels look like: numbers for people who judge a finding, never a reason to refuse.

Octets that were made text by hex, base32 or base64url, lower-cased as names are.  Entropy tells
little alone: hex stays under 4 bits a character, and hosts of content networks pass it.
"""

import re
from collections import Counter
from collections.abc import Iterable
from math import log2

_HEX = re.compile(r"(?=.*\d)(?=.*[a-f])[0-9a-f]{8,}")  # RFC 4648, section 8
_BASE32 = re.compile(r"(?=.*[2-7])(?=.*[a-z])[a-z2-7]{12,}")  # RFC 4648, section 6
_BASE32_HEX = re.compile(r"(?=.*\d)(?=.*[g-v])[0-9a-v]{12,}")  # RFC 4648, section 7
_BASE64 = re.compile(r"(?=.*\d.*\d)(?=.*[w-z])[a-z0-9_-]{16,}")  # RFC 4648, section 5


def looks_hex(label: str) -> bool:
    """Return whether a label may be octets in hex."""
    return _HEX.fullmatch(label) is not None


def looks_base32(label: str) -> bool:
    """Return whether a label may be octets in base32, and not in hex."""
    is_base32 = _BASE32.fullmatch(label) or _BASE32_HEX.fullmatch(label)
    return is_base32 is not None and not looks_hex(label)


def looks_base64(label: str) -> bool:
    """Return whether a label may be octets in base64url, and neither in hex nor in base32."""
    return _BASE64.fullmatch(label) is not None and not looks_hex(label) and not looks_base32(label)


def entropy(label: str) -> float:
    """Return the entropy of a label's own characters, in bits a character (Shannon, 1948)."""
    octets = len(label)
    return sum(-count / octets * log2(count / octets) for count in Counter(label).values())


def shape(labels: Iterable[str]) -> dict[str, float]:
    """Return the mean octets and entropy of `labels`, and the shares that look encoded."""
    seen = list(labels)
    count = max(len(seen), 1)
    return {
        "label_octets_mean": round(sum(map(len, seen)) / count, 2),
        "label_bits_per_octet": round(sum(map(entropy, seen)) / count, 2),
        "hex_share": round(sum(map(looks_hex, seen)) / count, 3),
        "base32_share": round(sum(map(looks_base32, seen)) / count, 3),
        "base64_share": round(sum(map(looks_base64, seen)) / count, 3),
    }
