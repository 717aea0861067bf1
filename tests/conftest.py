"""Fixtures that more than one folder of tests uses."""

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable, Iterator
from inspect import iscoroutinefunction
from pathlib import Path

import pytest
from hypothesis import settings

from tests.internet import Internet

# A busy machine is no counterexample: how long an example takes is a benchmark's to say.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Less than the 120 s of pyproject.toml, whose signal a loop that is never idle may swallow.
ASYNC_TEST_S = 110.0

REPORT = pytest.StashKey[list[str]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bound each asynchronous test of what is live, so that one that hangs fails alone."""
    for item in items:
        is_live = item.get_closest_marker("live") is not None
        if is_live and isinstance(item, pytest.Function) and iscoroutinefunction(item.obj):
            item.obj = _bounded(item.obj)


def _bounded(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def bounded(*args: object, **kwargs: object) -> None:
        async with asyncio.timeout(ASYNC_TEST_S):
            await test(*args, **kwargs)

    return bounded


@pytest.fixture
def report(request: pytest.FixtureRequest) -> list[str]:
    """Lines put here are shown after the run, for figures that a person wants to see."""
    return request.config.stash.setdefault(REPORT, [])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Show what tests reported."""
    for line in config.stash.get(REPORT, []):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    """Network namespaces with DNS, web and git servers, without a link to the outside."""
    if os.geteuid() != 0:
        pytest.skip("needs root to make network namespaces")
    with Internet.open(Path(tmp_path_factory.mktemp("internet"))) as world:
        yield world
