"""How far the reading of lists has come, over a pipe that nobody waits for."""

import asyncio
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.reload.progress import (
    Progress,
    ProgressReader,
    ProgressWriter,
    Seldom,
    hearing,
    logged,
    untold,
)

FIRST = Progress("lists/a.txt", 1, 2)
LATER = Progress("lists/a.txt", 1, 2, 65536)
SECOND = Progress("lists/b.txt", 2, 2)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe2(os.O_NONBLOCK)
    yield reading, writing
    os.close(reading)
    os.close(writing)


def test_says_which_file_and_how_much_of_it() -> None:
    assert LATER.text == "reading lists: lists/a.txt (1 of 2), 65,536 lines"


def test_tells_of_each_file_at_once_and_of_the_same_one_now_and_then() -> None:
    heard: list[Progress] = []
    times = iter((0.0, 0.1, 0.3, 0.31, 0.32))
    told = Seldom(heard.append, lambda: next(times), 0.2)
    for progress in (FIRST, LATER, LATER, SECOND, SECOND):
        told(progress)
    assert heard == [FIRST, LATER, SECOND]


def test_a_long_reading_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    times = iter((0.0, 1.0, 6.0))
    log = logged(lambda: next(times))
    with caplog.at_level(logging.INFO):
        for progress in (FIRST, LATER, LATER):
            log(progress)
    assert caplog.messages == [LATER.text]


def test_the_last_line_counts(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    heard: list[Progress] = []
    reader, write = ProgressReader(reading, heard.append), ProgressWriter(writing)
    reader.read()  # nothing is there yet
    for progress in (FIRST, LATER):
        write(progress)
    reader.read()
    assert heard == [LATER]


@pytest.mark.parametrize("octets", [b"{}\n", b"no line", b"\n", b"\xff\n"])
def test_what_is_no_news_is_none(pipe: tuple[int, int], octets: bytes) -> None:
    os.write(pipe[1], octets)
    heard: list[Progress] = []
    ProgressReader(pipe[0], heard.append).read()
    assert heard == []


def test_who_reads_lists_waits_for_nobody(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    write = ProgressWriter(writing)
    for _ in range(65536 // len(FIRST.file)):  # more than a pipe holds
        write(FIRST)
    heard: list[Progress] = []
    ProgressReader(reading, heard.append).read()
    assert heard == [FIRST]


def test_it_goes_on_when_nobody_listens_any_more() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ProgressWriter(writing)(FIRST)
    os.close(writing)


def test_a_long_name_is_told_in_part(pipe: tuple[int, int]) -> None:
    heard: list[Progress] = []
    ProgressWriter(pipe[1])(Progress("x" * 4096, 1, 1))
    ProgressReader(pipe[0], heard.append).read()
    assert [each.file for each in heard] == ["x" * 256]


async def test_it_is_heard_on_the_loop_and_nothing_is_left_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    arrived = asyncio.Event()
    with hearing(lambda _: arrived.set()) as descriptor:
        ProgressWriter(descriptor)(FIRST)
        await asyncio.wait_for(arrived.wait(), 5)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_nobody_may_be_told() -> None:
    untold(FIRST)
