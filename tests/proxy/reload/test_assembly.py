"""A generation is put together beside the one in force: what is new, what stays, what fails."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proxy.reload.assembly import NO_RULES, Assembly, Generation, Pace, RebuildError
from proxy.reload.handover import Heading, Request, write_piece
from proxy.reload.table import ReadList, ReadLists
from rules.decide import decide
from rules.decision import Verdict
from rules.errors import RuleSyntaxError
from rules.facts import Evidence, Principal, Question
from rules.listed import NO_LISTS
from rules.match import Steps
from rules.name import parse
from rules.rtype import A
from rules.ruleset import ListSource

APP = "  %s:\n    identity: [{listener: '%s:53'}]\n    allow: [{host: %s}]\n"
LISTENING = ("127.0.0.1:53", "127.0.0.2:53")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "rules"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
async def assembly() -> AsyncIterator[Assembly]:
    with ThreadPoolExecutor(1) as executor:
        yield Assembly(executor, 60.0, time.perf_counter)


def write(folder: Path, **hosts: str) -> Request:
    addresses = iter(LISTENING)
    apps = [APP % (app, next(addresses)[:-3], host) for app, host in hosts.items()]
    (folder / "a.yaml").write_text("apps:\n" + "".join(apps) if apps else "{}\n")
    return Request((str(folder),), listening=LISTENING)


def allows(generation: Generation, app: str, name: str) -> bool:
    question = Question(Principal(app, (Evidence.LISTENER,)), parse(name), A)
    return decide(generation.index, question).verdict is Verdict.ALLOW


async def test_the_first_generation_decides_by_the_files(folder: Path, assembly: Assembly) -> None:
    made = await assembly.build(write(folder, one="a.org", two="b.org"), NO_RULES)
    assert made.number == made.index.generation == made.ruleset.generation == 1
    assert [line.listener for line in made.ruleset.apps["one"].identity] == ["127.0.0.1:53"]
    assert allows(made, "one", "a.org")
    assert not allows(made, "one", "b.org")
    assert made.files == (str(folder / "a.yaml"),)


async def test_apps_that_did_not_change_go_on_as_they_are(folder: Path, assembly: Assembly) -> None:
    first = await assembly.build(write(folder, one="a.org", two="b.org"), NO_RULES)
    second = await assembly.build(write(folder, one="a.org", two="c.org"), first)
    assert second.number == 2
    assert second.parts["one"] is first.parts["one"]
    assert not allows(second, "two", "b.org")
    assert allows(second, "two", "c.org")
    assert allows(first, "two", "b.org")  # what is in force until the swap


async def test_the_same_files_are_the_same_generation(folder: Path, assembly: Assembly) -> None:
    request = write(folder, one="a.org")
    first = await assembly.build(request, NO_RULES)
    (folder / "a.yaml").touch()
    assert await assembly.build(request, first) is first


async def test_files_that_say_the_same_are_no_new_generation(
    folder: Path, assembly: Assembly
) -> None:
    first = await assembly.build(write(folder, one="a.org"), NO_RULES)
    with (folder / "a.yaml").open("a") as file:
        file.write("# a remark\n")
    second = await assembly.build(Request((str(folder),), listening=LISTENING), first)
    assert second.number == first.number
    assert second.digest != first.digest


async def test_an_app_that_is_gone_is_a_new_generation(folder: Path, assembly: Assembly) -> None:
    first = await assembly.build(write(folder, one="a.org", two="b.org"), NO_RULES)
    second = await assembly.build(write(folder, one="a.org"), first)
    assert (second.number, list(second.parts)) == (2, ["one"])
    assert not allows(second, "two", "b.org")


async def test_no_rules_at_all_are_rules(folder: Path, assembly: Assembly) -> None:
    assert (await assembly.build(write(folder), NO_RULES)).number == 1


async def test_broken_files_are_told_with_place_and_cure(folder: Path, assembly: Assembly) -> None:
    request = write(folder, one="192.0.2.1")
    with pytest.raises(RuleSyntaxError) as raised:
        await assembly.build(request, NO_RULES)
    (problem,) = raised.value.problems
    assert str(problem.place) == f"{folder}/a.yaml:4:20"
    assert problem.cure


async def test_what_takes_too_long_is_given_up(folder: Path) -> None:
    with ThreadPoolExecutor(1) as executor:
        assembly = Assembly(executor, 0.001, time.perf_counter)
        with pytest.raises(RebuildError, match="not read within"):
            await assembly.build(write(folder, one="a.org"), NO_RULES)


async def test_a_child_that_is_ended_hands_nothing_over(folder: Path, assembly: Assembly) -> None:
    building = asyncio.create_task(assembly.build(write(folder, one="a.org"), NO_RULES))
    while assembly._child is None:  # noqa: ASYNC110 - a thread sets it
        await asyncio.sleep(0.001)
    assembly.kill()
    with pytest.raises(RebuildError, match="ended with -9"):
        await building
    assembly.kill()  # of nothing is nothing


async def test_what_it_asks_the_child_stands_in_no_command_line(
    folder: Path, assembly: Assembly
) -> None:
    """threats.md, "Identity": names of other apps.  A command line is short, and every user's."""
    many = "".join(f"  app-{each}: {{allow: []}}\n" for each in range(1500))
    (folder / "a.yaml").write_text(f"apps:\n{many}")
    request = Request((str(folder),), listening=LISTENING)
    made = await assembly.build(request, NO_RULES)
    (folder / "b.yaml").write_text("apps: {one: {allow: [{host: a.org}]}}")
    building = asyncio.create_task(assembly.build(request, made))
    while (child := assembly._child) is None and not building.done():  # noqa: ASYNC110 - a thread sets it
        await asyncio.sleep(0.001)
    assert child is not None, building.exception()
    assert b"app-" not in Path(f"/proc/{child.pid}/cmdline").read_bytes()
    assert len((await building).parts) == 1501


async def test_a_child_that_begins_after_the_end_is_ended_too(
    folder: Path, assembly: Assembly
) -> None:
    assembly.kill()
    with pytest.raises(RebuildError, match="ended with -9"):
        await assembly.build(write(folder, one="a.org"), NO_RULES)


async def test_no_process_is_said_so(
    folder: Path, assembly: Assembly, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(RebuildError, match="no process"):
        await assembly.build(write(folder, one="a.org"), NO_RULES)


@pytest.mark.parametrize("said", [b"", b"\0\0\0\5"])
async def test_what_is_not_handed_over_whole_is_not_used(
    folder: Path, assembly: Assembly, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: bytes
) -> None:
    shell = tmp_path / "python"
    escaped = "".join(f"\\{octet:03o}" for octet in said)
    shell.write_text(f"#!/bin/sh\nprintf '{escaped}'\n")
    shell.chmod(0o700)
    monkeypatch.setattr("sys.executable", str(shell))
    with pytest.raises(RebuildError, match="cannot be used"):
        await assembly.build(write(folder, one="a.org"), NO_RULES)


def lists_of(folder: Path, names: str) -> Request:
    request = write(folder, one="a.org")
    (folder / "bad.txt").write_text(names)
    (folder / "lists.yaml").write_text("lists: [{file: bad.txt}]\n")
    return request


async def test_lists_are_part_of_a_generation(folder: Path, assembly: Assembly) -> None:
    first = await assembly.build(lists_of(folder, "a.org\nb.org\n"), NO_RULES)
    assert not allows(first, "one", "a.org")
    assert first.index.lists is first.lists
    assert [source.shown for source in first.ruleset.lists] == ["bad.txt"]
    assert [file for file, _ in assembly.seen] == [str(folder / "bad.txt")]
    second = await assembly.build(lists_of(folder, "b.org\n"), first)
    assert (second.number, second.digest) == (2, first.digest)
    assert second.parts is first.parts
    assert allows(second, "one", "a.org")
    assert not allows(first, "one", "a.org")  # what is in force until the swap
    assert await assembly.build(lists_of(folder, "b.org\n"), second) is second


async def test_lists_that_are_gone_are_a_new_generation(folder: Path, assembly: Assembly) -> None:
    first = await assembly.build(lists_of(folder, "a.org\n"), NO_RULES)
    (folder / "lists.yaml").unlink()
    second = await assembly.build(write(folder, one="a.org"), first)
    assert second.number == 2
    assert second.lists is NO_LISTS
    assert allows(second, "one", "a.org")


async def test_files_that_do_not_load_leave_open_what_lists_they_name(
    folder: Path, assembly: Assembly
) -> None:
    await assembly.build(lists_of(folder, "a.org\n"), NO_RULES)
    seen = assembly.seen
    with pytest.raises(RuleSyntaxError):
        await assembly.build(write(folder, one="192.0.2.1"), NO_RULES)
    assert assembly.seen == seen


async def test_a_table_that_was_not_written_whole_is_not_used(
    folder: Path, assembly: Assembly, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = ListSource("a.yaml:1", "bad.txt", "bad.txt")
    lists = ReadLists("digest", (source,), (), (ReadList("plain", 1, {}),), octets=64)
    said, shell = tmp_path / "said", tmp_path / "python"
    with said.open("wb") as file:
        write_piece(file, Heading("digest", lists=lists))
    shell.write_text(f"#!/bin/sh\ncat {said}\n")
    shell.chmod(0o700)
    monkeypatch.setattr("sys.executable", str(shell))
    with pytest.raises(RebuildError, match="cannot be used"):
        await assembly.build(write(folder, one="a.org"), NO_RULES)


async def test_nothing_stays_open(folder: Path, assembly: Assembly) -> None:
    request = lists_of(folder, "a.org\n")
    made = await assembly.build(request, NO_RULES)
    before = len(list(Path("/proc/self/fd").iterdir()))
    made = await assembly.build(lists_of(folder, "b.org\n"), made)
    with pytest.raises(RuleSyntaxError):
        await assembly.build(write(folder, one="192.0.2.1"), made)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_the_collector_is_left_as_it_was(folder: Path, assembly: Assembly) -> None:
    before = gc.get_threshold()
    await assembly.build(write(folder, one="a.org"), NO_RULES)
    assert gc.get_threshold() == before


async def test_what_nobody_uses_any_more_is_taken_apart(folder: Path, assembly: Assembly) -> None:
    made = await assembly.build(write(folder, one="a.org", two="b.org"), NO_RULES)
    parts, tables = list(made.parts.values()), [made.listed]
    await assembly.dissolve(parts, tables)
    assert (parts, tables) == ([], [])
    assert not allows(made, "one", "a.org")


async def test_work_rests_so_that_others_have_their_turn() -> None:
    turns: list[str] = []

    def steps() -> Steps[int]:
        for _ in range(3):
            turns.append("work")
            yield
        return 7

    async def other() -> None:
        turns.append("other")

    ticks: Iterator[float] = iter(range(100))
    task = asyncio.create_task(other())
    assert await Pace(lambda: next(ticks)).keep(steps()) == 7
    await task
    assert turns == ["work", "other", "work", "work"]
