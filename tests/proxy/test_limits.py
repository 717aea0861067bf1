"""Every bound has a name, a positive default, and its precedent beside it."""

import re
from pathlib import Path

from msgspec import structs

from proxy import limits
from proxy.limits import Limits


def test_every_default_is_positive() -> None:
    assert all(getattr(Limits(), field.name) > 0 for field in structs.fields(Limits))


def test_every_bound_says_where_its_size_comes_from() -> None:
    text = Path(limits.__file__).read_text()
    bare = [
        line.strip()
        for line in text.splitlines()
        if re.match(r"    \w+: (int|float) = ", line) and "#" not in line
    ]
    # A few are said by the line above: per-app halves and counts that follow from another.
    assert len(bare) <= 8


def test_durations_and_sizes_have_their_unit_in_the_name() -> None:
    floats = [f.name for f in structs.fields(Limits) if isinstance(f.default, float)]
    assert [name for name in floats if not name.endswith("_s")] == []
