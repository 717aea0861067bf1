"""`reference_values` are read with their places, and add up over files."""

import pytest

from rules.ruleset import Launched, ReferenceValues
from tests.rules.files import app_of, errors_of, me

A, B, C = "a" * 64, "b" * 64, "c" * 64


def values_of(*bodies: str) -> ReferenceValues:
    return app_of(*[me(f"reference_values:\n{body}") for body in bodies]).reference_values


def errors_in(body: str) -> list[str]:
    """Return the errors of values that begin in line 4, column 7."""
    return errors_of(me(f"reference_values:\n{body}"))


def test_values_are_held_as_they_are_written() -> None:
    assert values_of(
        f'  pcrs: {{7: ["{A}", "{B}"], "0": "{C}"}}\n'
        f'  tpms: ["{A}"]\n'
        f'  keys: ["{B}", "{B}"]\n'
        f'  launched: [{{file: "{A}"}}, {{file: "{A}", script: "{B}", interpreter: "{C}"}}]'
    ) == ReferenceValues(
        pcrs={0: frozenset({C}), 7: frozenset({A, B})},
        tpms=frozenset({A}),
        keys=frozenset({B}),
        launched=(Launched(A), Launched(A, B, C)),
    )


def test_an_app_without_them_has_none() -> None:
    assert app_of(me("allow: []")).reference_values == ReferenceValues()


def test_values_add_up_over_files() -> None:
    assert values_of(
        f'  pcrs: {{7: "{A}", 0: "{A}"}}\n  tpms: ["{A}"]\n  launched: [{{file: "{A}"}}]',
        f'  pcrs: {{7: ["{B}"]}}\n  tpms: ["{B}"]\n  keys: ["{C}"]\n'
        f'  launched: [{{file: "{B}"}}, {{file: "{A}"}}]',
    ) == ReferenceValues(
        pcrs={0: frozenset({A}), 7: frozenset({A, B})},
        tpms=frozenset({A, B}),
        keys=frozenset({C}),
        launched=(Launched(A), Launched(B)),
    )


@pytest.mark.parametrize("empty", ["tpms: []", "keys: []", "launched: []", "pcrs: {7: []}"])
def test_an_empty_list_is_an_error(empty: str) -> None:
    """threats.md: an empty or absent list taken as "open"."""
    (problem,) = errors_in(f"  {empty}")
    assert problem.startswith("a.yaml:4:")
    assert "found an empty list" in problem


@pytest.mark.parametrize("key", ["tpms", "keys", "launched", "pcrs"])
def test_a_null_is_an_error(key: str) -> None:
    (problem,) = errors_in(f"  {key}:")
    assert problem.startswith("a.yaml:4:")
    assert "found nothing" in problem


def test_a_mapping_of_nothing_is_an_error() -> None:
    assert errors_of(me("reference_values: {}")) == ["a.yaml:3:23 `reference_values` names nothing"]
    assert errors_in("  pcrs: {}") == ["a.yaml:4:13 `pcrs` names nothing"]


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        (f'pcrs: {{24: "{A}"}}', "a.yaml:4:14 a key of `pcrs` wants the index of a PCR, 0 to 23"),
        (f'pcrs: {{-1: "{A}"}}', "a.yaml:4:14 a key of `pcrs` wants the index of a PCR"),
        (f'pcrs: {{07: "{A}"}}', "a.yaml:4:14 a key of `pcrs` wants the index of a PCR"),
        ("pcrs: {7: abc}", "a.yaml:4:17 `7` wants 64 lower-case hex digits in quotes or a list"),
        (f'pcrs: {{7: ["{A[1:]}"]}}', "a.yaml:4:18 an item of `7` wants 64 lower-case hex digits"),
        (f'tpms: ["{A.upper()}"]', "a.yaml:4:14 an item of `tpms` wants 64 lower-case hex digits"),
        (f"keys: [{'1' * 64}]", "a.yaml:4:14 an item of `keys` wants 64 lower-case hex digits"),
        ('launched: [{script: "x"}]', "a.yaml:4:18 an item of `launched` lacks the key `file`"),
        (f'pcr: {{7: "{A}"}}', "a.yaml:4:7 'pcr' is no key of `reference_values`"),
        ("pcrs: [7]", "a.yaml:4:13 `pcrs` wants a mapping"),
    ],
)
def test_a_mistake_stands_at_its_word(written: str, problem: str) -> None:
    assert errors_in(f"  {written}")[0].startswith(problem)


def test_values_that_are_no_mapping_are_an_error() -> None:
    (problem,) = errors_of(me("reference_values: yes"))
    assert problem.startswith("a.yaml:3:23 `reference_values` wants a mapping")
