"""A verifier with nobody attested."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.proxy.verifier.stand import Stand, standing


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    async with standing(tmp_path) as made:
        yield made
