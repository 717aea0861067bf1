"""Base64url without padding, one text for each octets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.verifier.octets import octets_of, text_of


@given(st.binary(max_size=100))
def test_octets_come_back(octets: bytes) -> None:
    assert octets_of(text_of(octets)) == octets


@given(st.text(alphabet="AZaz09-_+/= \n", max_size=12))
def test_a_text_is_the_one_of_its_octets_or_none(text: str) -> None:
    try:
        octets = octets_of(text)
    except ValueError:
        return
    assert text_of(octets) == text


@pytest.mark.parametrize("text", ["A", "AB", "AA==", "A+/A", "AA A", "ÄÄÄÄ", "AAAAA"])
def test_what_is_no_base64url_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no base64url"):
        octets_of(text)
