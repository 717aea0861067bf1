"""What stands in a request is read into values, or refused with words of our own."""

import pytest
from msgspec import Struct

from proxy.control.asked import RefusedError, read_content


class Wish(Struct, forbid_unknown_fields=True):
    """What a test asks for."""

    name: str
    count: int = 0


def test_content_becomes_a_value() -> None:
    assert read_content(b'{"name": "coder"}', Wish) == Wish("coder")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"name": 1}', b'{"name": "x", "more": 1}', b"\xff"]
)
def test_other_content_is_refused_without_being_quoted(content: bytes) -> None:
    with pytest.raises(RefusedError, match="not what is wanted") as caught:
        read_content(content, Wish)
    assert caught.value.status == 400


def test_a_secret_in_the_wrong_place_is_not_told() -> None:
    with pytest.raises(RefusedError) as caught:
        read_content(b'{"name": "x", "count": "spt_secret"}', Wish)
    assert "spt_secret" not in str(caught.value)
