"""Sizes and durations as people write them."""

import pytest

from proxy.units import Life, read_count, read_octets, read_seconds


@pytest.mark.parametrize(
    ("text", "octets"),
    [(7, 7), ("7", 7), ("64 KiB", 65536), ("64KiB", 65536), ("2 MiB", 2 << 20), ("1 GiB", 1 << 30)],
)
def test_sizes(text: int | str, octets: int) -> None:
    assert read_octets(text) == octets


@pytest.mark.parametrize("text", ["64 kB", "KiB", "-1", "1.5 MiB", "", "64  KiB"])
def test_what_is_no_size_says_how_one_is_written(text: str) -> None:
    with pytest.raises(ValueError, match="64 KiB"):
        read_octets(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(3, 3.0), (0.5, 0.5), ("500ms", 0.5), ("10s", 10), ("5 m", 300), ("1h", 3600), ("7d", 604800)],
)
def test_durations(text: float | str, seconds: float) -> None:
    assert read_seconds(text) == seconds


@pytest.mark.parametrize("text", ["5 min", "-1", "soon", "", -0.5])
def test_what_is_no_duration_says_how_one_is_written(text: float | str) -> None:
    with pytest.raises(ValueError, match="500ms"):
        read_seconds(text)


def test_counts_are_whole_numbers() -> None:
    assert read_count(5) == 5
    with pytest.raises(ValueError, match="whole number"):
        read_count("5")


@pytest.mark.parametrize(
    ("value", "seconds", "told"),
    [
        (None, 60, ""),
        ("2m", 120, ""),
        ("9s", 60, "9 s is no life of a thing"),
        ("soon", 60, "is no duration"),
    ],
)
def test_a_life_out_of_bounds_is_told_and_the_default_stays(
    value: str | None, seconds: int, told: str
) -> None:
    problems: list[tuple[str, str, str]] = []
    life = Life("a thing", 60, 10, 3600, "write 10s to 1h")
    assert life.read("a.key", value, lambda *each: problems.append(each)) == seconds
    assert [told in text and key == "a.key" for key, text, _ in problems] == [True] * bool(told)
