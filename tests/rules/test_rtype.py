"""Record types are written by mnemonic, or as TYPE123."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.rtype import BY_MNEMONIC, mnemonic, number


@pytest.mark.parametrize(
    ("written", "value"),
    [("A", 1), ("aaaa", 28), ("Https", 65), ("TYPE0", 0), ("type65", 65), ("TYPE65535", 65535)],
)
def test_reads_mnemonics_in_any_case_and_numbers_as_rfc_3597_does(written: str, value: int) -> None:
    assert number(written) == value


@pytest.mark.parametrize(
    "written",
    ["", "AAAAA", "TYPE", "TYPE65536", "TYPE-1", "TYPE1 ", "TYPE100000", "1", "TYPE\u0661"],
)
def test_anything_else_is_no_type(written: str) -> None:
    assert number(written) is None


@given(st.integers(0, 65535))
def test_every_type_is_read_back_from_its_mnemonic(rtype: int) -> None:
    assert number(mnemonic(rtype)) == rtype


def test_every_mnemonic_is_the_name_of_its_own_number() -> None:
    assert {name: mnemonic(rtype) for name, rtype in BY_MNEMONIC.items()} == {
        name: name for name in BY_MNEMONIC
    }
    assert mnemonic(999) == "TYPE999"
