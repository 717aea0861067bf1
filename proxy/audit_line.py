"""An audit line, and its octets: one JSON object, safe to show to a person, and a line feed.

Names, paths and texts in it were chosen by agents.  Besides what JSON itself escapes, every
character that could move a cursor, hide text or turn its direction is written as an escape.
"""

import json
import re
import time
from collections.abc import Mapping
from functools import lru_cache

import msgspec
from msgspec import Struct

from proxy.flow import Plane
from rules.decision import Reason, Verdict
from rules.facts import Evidence

# C0, DEL and C1 (ECMA-48 control functions), soft hyphen, zero-width and directional characters
# (UAX 9), line and paragraph separators, invisible operators, the byte order mark, interlinear
# marks, and tags.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)
_SURROGATES = re.compile("[\ud800-\udfff]")
_ENCODER = msgspec.json.Encoder(enc_hook=str)


class Line(Struct, gc=False):
    """What is recorded of one decision or of the end of one flow.

    `fact` is `question`, `connect`, `endpoint` or `request`; None where an admin changed something.
    `detail` holds what else stands in
    the line; `octets_up` and `octets_down` in it are summed where lines fold, and the longest
    `duration` (seconds) stays.
    """

    flow: str
    app: str
    evidence: tuple[Evidence, ...]
    plane: Plane
    fact: str | None
    verdict: Verdict
    reason: Reason
    rule: str | None
    generation: int
    target: str
    detail: dict[str, object]


class Record(Struct, gc=False):
    """The fields of every line, in the order in which they stand in it (reference.md)."""

    time: str
    id: str
    flow: str | None
    app: str | None
    evidence: tuple[Evidence, ...]
    plane: Plane
    fact: str | None
    verdict: Verdict
    reason: Reason
    rule: str | None
    generation: int | None
    count: int
    target: str | None


_FIELDS = frozenset(Record.__struct_fields__)


def encode(record: Record, detail: Mapping[str, object]) -> bytes:
    """Return `record` and then `detail` as one line; a field is never replaced by a detail.

    Never raises: a detail that JSON cannot hold is worded as text, or left out and said so.
    """
    if not _FIELDS.isdisjoint(detail):
        detail = {key: value for key, value in detail.items() if key not in _FIELDS}
    try:
        text = _ENCODER.encode(record)
        if detail:
            text = b"%b,%b" % (text[:-1], _ENCODER.encode(detail)[1:])
    except Exception:  # noqa: BLE001 - whatever a value's own code raises, the line must stand
        text = _encode_anyhow(msgspec.structs.asdict(record), detail)
    if not text.isascii() or b"\x7f" in text:
        # Unsafe characters stand in strings only, so that they can be escaped in the whole.
        text = printable(text.decode()).encode()
    return text + b"\n"


def printable(text: str) -> str:
    """Return `text` as it may be shown on a terminal: unsafe characters as JSON escapes."""
    return _UNSAFE.sub(_escape, text)


def rfc3339(now: float) -> str:
    """Return Unix time as RFC 3339 text in UTC with microseconds."""
    seconds, micros = divmod(round(now * 1_000_000), 1_000_000)
    return f"{_date(seconds)}.{micros:06}Z"


@lru_cache(maxsize=4)
def _date(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _encode_anyhow(fields: Mapping[str, object], detail: Mapping[str, object]) -> bytes:
    try:
        text = json.dumps({**fields, **detail}, ensure_ascii=False, default=str)
        msgspec.json.decode(_SURROGATES.sub("\ufffd", text))
    except Exception:  # noqa: BLE001 - as above: cycles, integers beyond bounds, NaN
        text = json.dumps({**fields, "detail": "not encodable"}, ensure_ascii=False, default=str)
    # Half a surrogate pair is no Unicode text (RFC 8259, section 8.2): no reader would take it.
    return _SURROGATES.sub("\ufffd", text).encode()


def _escape(found: re.Match[str]) -> str:
    # RFC 8259, section 7: beyond the basic plane, a UTF-16 surrogate pair.
    units = found.group().encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
