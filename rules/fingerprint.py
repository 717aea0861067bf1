"""What is kept of a registered secret: keyed digests of the windows of its forms, nothing else.

A name carries a secret in the letters and digits that names have, so that every form is lower-cased
and squeezed to these: dots, hyphens and underscores tell nothing.  Forms that do not begin at the
begin of what was encoded are known too: base32 has five such alignments, base64 three.
"""

import re
from base64 import b32encode, b32hexencode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from hashlib import blake2b
from itertools import chain
from typing import Final

from msgspec import Struct

LEAST_OCTETS: Final = 8
"""Of a secret: fewer stand in names by chance, and are guessed from a digest."""
WINDOW: Final = 12
"""Characters of a form that must stand in a name, or all of a shorter form; 36^12 is 2^62."""
STRIDE: Final = 12
"""Of so many windows of a name one is looked at: 23 characters in a row are always found."""
DIGEST_OCTETS: Final = 8
KEY_OCTETS: Final = 32
_LEAST_FORM = 8  # characters; a shorter form stands in names by chance
_LEAST_KINDS = 3  # of characters in a window: zeros in a row stand in names of clouds
_LEAST_SECRET_KINDS = 5  # of octets in a secret
_DENSE_OCTETS = 128  # of a longer secret only some windows are kept: as many as of this one
_PEM_HEAD_OCTETS = 48  # of base64 that all keys of a kind begin with: PKCS #8 of P-256 has 48

HOWS: Final = tuple(
    f"{form}{way}" for form in ("plain", "hex", "base32", "base64") for way in ("", "-reversed")
)
"""Every form, as a hit names it."""

_OTHERS = bytes(set(range(256)) - set(b"abcdefghijklmnopqrstuvwxyz0123456789"))
_PEM = re.compile(rb"-----[A-Z0-9 ]+-----")
_PREFIX = re.compile(
    rb"\s*(?:Bearer |Basic )?(?:"
    rb"sk-(?:(?:ant|proj|svcacct|admin|or|live|test|[a-z]{3,6}\d\d|v1)-)*|[rps]k_(?:live|test)_|"
    rb"gh[a-z]_|github_pat_|gl[a-z]{2,5}-|xox[a-z]-|xapp-|A(?:KIA|SIA|GPA|IDA|ROA)|AIza|ya29\.|"
    rb"hf_|npm_|pypi-(?:AgEIcHlwaS5vcmc)?|do[opr]_v1_|SG\.|eyJ[\w-]+\.(?=eyJ)"
    rb")?"
)


class WeakSecretError(Exception):
    """Why a secret cannot be looked for, and what to do; nothing of it stands in the text."""


class Windows(Struct, frozen=True):
    """Digests of windows of `characters` each, of one form; of `DIGEST_OCTETS` each, joined.

    `shortest` is how many characters the shortest form has that these are windows of.
    """

    how: str
    characters: int
    shortest: int
    digests: bytes


def fingerprint(secret: bytes, key: bytes) -> tuple[Windows, ...]:
    """Return what to keep of `secret`; `key` is random, and the same for all.

    Raises:
        WeakSecretError: names would hold it by chance, or it is not the secret alone.
    """
    own = own_part(secret)
    period = STRIDE * -(-len(own) // _DENSE_OCTETS)
    found: dict[tuple[str, int], set[bytes]] = {}
    shortest: dict[tuple[str, int], int] = {}
    for how, form in forms(own):
        if len(form) < _LEAST_FORM:
            continue
        size = min(len(form), WINDOW)
        windows = {each for each in _windows(form, size, period) if len({*each}) >= _LEAST_KINDS}
        found.setdefault((how, size), set()).update(digest(key, each) for each in windows)
        shortest[how, size] = min(shortest.get((how, size), len(form)), len(form))
    return tuple(
        Windows(*each, shortest[each], b"".join(sorted(digests))) for each, digests in found.items()
    )


def digest(key: bytes, window: bytes) -> bytes:
    """Return what is kept of a window.  The key goes first: BLAKE2 needs no more (RFC 7693)."""
    return blake2b(key + window).digest()[:DIGEST_OCTETS]


def own_part(secret: bytes) -> bytes:
    """Return `secret` without what all secrets of its kind begin or end with.

    Raises:
        WeakSecretError: what is left is too little, or holds a URL.
    """
    own = secret.strip()
    if b"://" in own:
        raise WeakSecretError("it holds a URL, whose host stands in names; give the key alone")
    if _PEM.match(own):
        own = _PEM.sub(b"", own).strip()[_PEM_HEAD_OCTETS:]
    own = own[_PREFIX.match(own).end() :]  # type: ignore[union-attr]  # it matches nothing, too
    if len(own) < LEAST_OCTETS:
        least = f"a secret has {LEAST_OCTETS} octets at least"
        raise WeakSecretError(f"{least}, not counted a prefix such as sk- that others share")
    if len({*own}) < _LEAST_SECRET_KINDS:
        raise WeakSecretError("it is the same few characters over and over; make a random one")
    return own


def squeezed(text: bytes) -> bytes:
    """Return the letters and digits of `text`, in lower case."""
    return text.lower().translate(None, _OTHERS)


def forms(own: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield what may stand in names of a secret: how it is encoded, and its squeezed form."""
    for how, text in _encoded(own):
        form = squeezed(text)
        yield how, form
        yield f"{how}-reversed", form[::-1]


def _encoded(own: bytes) -> Iterator[tuple[str, bytes]]:
    yield "plain", own
    yield "hex", own.hex().encode()
    for before in range(5):
        yield "base32", _aligned(b32encode, 5, own, before)
        yield "base32", _aligned(b32hexencode, 5, own, before)
    for before in range(3):
        yield "base64", _aligned(urlsafe_b64encode, 6, own, before)


def _aligned(encode: Callable[[bytes], bytes], bits: int, own: bytes, before: int) -> bytes:
    """Return the characters that `own` alone decides, where `before` other octets go before it."""
    first, end = -(-8 * before // bits), 8 * (before + len(own)) // bits
    return encode(bytes(before) + own)[first:end]


def _windows(form: bytes, size: int, period: int) -> Iterator[bytes]:
    """Yield windows: `STRIDE` in a row in each `period`, so that a name's stride meets one."""
    last = len(form) - size
    starts = (each for each in range(last + 1) if each % period < STRIDE)
    for start in chain(starts, range(max(last - STRIDE + 1, 0), last + 1)):
        yield form[start : start + size]
