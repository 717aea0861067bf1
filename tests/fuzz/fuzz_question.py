"""The head and question of a DNS message: `PeerError` is allowed."""

from proxy.errors import PeerError
from proxy.wire.question import HEAD_OCTETS, read_head, read_question, write_name
from rules.errors import MalformedNameError
from rules.name import from_labels

_HEAD = bytes.fromhex("abcd01200001000000000001")
SEEDS: tuple[bytes, ...] = (
    _HEAD + b"\3wWw\7example\3com\0\0\x1c\0\1",
    _HEAD + b"\0\0\2\0\1",
    _HEAD + b"\3a.b\0\0\1\0\1",
    _HEAD + b"\1a\xc0\x0c\0\1\0\1",
    _HEAD + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1",
)


def target(data: bytes) -> None:
    """A question that is taken has a name of at most 255 octets that can be written again."""
    try:
        read_head(data)
        question = read_question(data)
    except PeerError:
        return
    assert HEAD_OCTETS + 5 <= question.end <= len(data)
    try:
        name = from_labels(question.labels)
    except MalformedNameError:
        return
    wire = write_name(name)
    assert len(wire) <= 255
    assert wire == data[HEAD_OCTETS : question.end - 4].lower()
