"""The parts that the composition root hands in."""

import pytest

from proxy.capabilities.parts import Parts


def test_every_part_has_to_be_named() -> None:
    with pytest.raises(TypeError):
        Parts(*range(12))  # type: ignore[call-arg]  # what is tested
