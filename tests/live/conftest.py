"""Folders for an appliance, and one that several tests of a module share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.internet import Internet
from tests.live.appliance import AGENT, Appliance, Folders, running


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


@pytest.fixture(scope="module")
def appliance(internet: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """One appliance with the rules of AGENT and the default upstreams."""
    folders = Folders(tmp_path_factory.mktemp("shared"))
    folders.configure(f"resolver: {{upstream_ca: {internet.ca}}}\n")
    folders.rule(AGENT)
    with running(internet.agent, folders) as shared:
        yield shared
