"""Where the content of a message ends."""

import pytest

from proxy.egress.content import CloseReader, LengthReader, reader_of
from proxy.limits import Limits
from proxy.wire.body import ChunkedReader
from proxy.wire.fields import request_malformed
from proxy.wire.head import Body, BodyKind


def test_a_length_is_read_in_pieces() -> None:
    reader = LengthReader(5)
    assert (reader.feed(b"he"), reader.done) == ([b"he"], False)
    assert (reader.feed(b"llo"), reader.done, reader.leftover) == ([b"llo"], True, b"")


def test_what_follows_a_length_is_left_over() -> None:
    reader = LengthReader(2)
    assert (reader.feed(b"okGET"), reader.leftover) == ([b"ok"], b"GET")


def test_no_content_is_done_at_once() -> None:
    reader = LengthReader(0)
    assert reader.done
    assert (reader.feed(b"GET"), reader.leftover) == ([], b"GET")


def test_until_close_takes_everything() -> None:
    reader = CloseReader()
    assert (reader.feed(b"a"), reader.done, reader.trailers) == ([b"a"], False, ())


@pytest.mark.parametrize(
    ("kind", "reader"),
    [
        (BodyKind.NONE, LengthReader),
        (BodyKind.LENGTH, LengthReader),
        (BodyKind.CHUNKED, ChunkedReader),
        (BodyKind.UNTIL_CLOSE, CloseReader),
    ],
)
def test_each_kind_has_its_reader(kind: BodyKind, reader: type) -> None:
    assert isinstance(reader_of(Body(kind, 1), Limits(), request_malformed), reader)
