"""Evidence fits the reference values, or the text says which part does not and what to do."""

import pytest

from rules.appraise import appraise_key, appraise_launch, appraise_quote
from rules.ruleset import Launched, ReferenceValues

A, B, C = "a" * 64, "b" * 64, "c" * 64
VALUES = ReferenceValues(
    pcrs={0: frozenset({A}), 7: frozenset({A, B})},
    tpms=frozenset({C}),
    keys=frozenset({B}),
    launched=(Launched(A), Launched(A, B, C)),
)


def test_a_quote_of_known_values_fits() -> None:
    assert appraise_quote(VALUES, {0: A, 7: B}, C) == ""
    assert appraise_quote(VALUES, {0: A, 7: A, 16: C}, C) == ""
    assert appraise_quote(ReferenceValues(pcrs={0: frozenset({A})}), {0: A}, "any") == ""


@pytest.mark.parametrize(
    ("pcrs", "tpm", "words"),
    [
        ({0: A, 7: C}, C, f"PCR 7 is {C}, which is not among its `reference_values`; boot what"),
        ({0: B, 7: C}, C, f"PCR 0 is {B}, "),
        ({0: A}, C, "PCR 7 is not quoted; quote PCR 0, 7 of the SHA-256 bank"),
        ({}, C, "PCR 0 is not quoted"),
        ({0: A.upper(), 7: A}, C, f"PCR 0 is {A.upper()}"),
        ({0: A, 7: A}, A, f"the TPM {A} is not among `reference_values.tpms`; ask the admin"),
        ({0: A, 7: A}, "", "the TPM  is not among"),
    ],
)
def test_a_quote_of_other_values_does_not(pcrs: dict[int, str], tpm: str, words: str) -> None:
    """The attack "PCR mismatch"."""
    assert appraise_quote(VALUES, pcrs, tpm).startswith(words)


def test_without_values_to_compare_with_no_quote_fits() -> None:
    """threats.md: an empty or absent list taken as "open"."""
    told = appraise_quote(ReferenceValues(), {0: A}, C)
    assert told.startswith("no PCR values are known to compare with")


def test_any_key_fits_unless_the_rules_list_which() -> None:
    assert appraise_key(ReferenceValues(), A) == ""
    assert appraise_key(VALUES, B) == ""
    assert appraise_key(VALUES, A).startswith(f"the key {A} is not among `reference_values.keys`")
    assert appraise_key(ReferenceValues(keys=frozenset()), A)


@pytest.mark.parametrize("parts", [(A, None, None), (A, "", ""), (A, B, C)])
def test_what_may_be_launched_fits_as_a_whole(parts: tuple[str, str | None, str | None]) -> None:
    assert appraise_launch(VALUES, *parts) == ""


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ((A, B, None), "file aaaaaaaaaaaaaaaa, script bbbbbbbbbbbbbbbb is not among"),
        ((A, None, C), "file aaaaaaaaaaaaaaaa, interpreter cccccccccccccccc is not among"),
        ((B, None, None), "file bbbbbbbbbbbbbbbb is not among `reference_values.launched`; ask"),
    ],
)
def test_what_is_launched_with_another_part_does_not(
    parts: tuple[str, str | None, str | None], words: str
) -> None:
    assert appraise_launch(VALUES, *parts).startswith(words)


def test_where_nothing_may_be_launched_nothing_fits() -> None:
    """threats.md: an empty or absent list taken as "open"."""
    told = appraise_launch(ReferenceValues(), A, None, None)
    assert told.startswith("nothing is known that may be launched")
