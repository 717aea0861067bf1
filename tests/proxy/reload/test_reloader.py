"""When rules are read again, and what follows; with real files and a real child process."""

import asyncio
import logging
import time
import weakref
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.reload.assembly import NO_RULES, Assembly, Generation
from proxy.reload.handover import Request
from proxy.reload.reloader import Reloader
from proxy.reload.watch import look
from rules.listed import NO_LISTS
from rules.name import parse

RULES = "apps: {me: {identity: [{process: {uid: 7}}], allow: [{host: %s}]}}\n"
LIMITS = Limits(reload_look_s=0.02, reload_quiet_s=0.01, reload_settle_s=0.1)
NEVER = Limits(reload_look_s=3600.0)


class Running:
    """A reloader, and what it did."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "a.yaml"
        self.metrics = Metrics()
        self.used: list[Generation] = []
        self.swept: list[int] = []
        self.holding = asyncio.Event()
        self.holding.set()

    async def sweep(self, generation: int) -> int:
        self.swept.append(generation)
        await self.holding.wait()
        return 3

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - files and a thread bring it about
                await asyncio.sleep(0.005)

    def write(self, host: str) -> None:
        """As editors do: write beside it, and rename."""
        beside = self.file.with_name("a.yaml~")
        beside.write_text(RULES % host)
        beside.rename(self.file)

    def counts(self) -> tuple[int, int, int]:
        count = self.metrics.reloads.value
        return count("changed"), count("unchanged"), count("failed")


@asynccontextmanager
async def reloading(
    tmp_path: Path, limits: Limits = NEVER
) -> AsyncIterator[tuple[Running, Reloader]]:
    folder = tmp_path / "rules"
    folder.mkdir(mode=0o700)
    running = Running(folder)
    running.write("a.example.com")
    request = Request((str(folder),))
    seen = look(request.folders)
    with ThreadPoolExecutor(1) as executor:
        first = await Assembly(executor, 60.0, time.perf_counter).build(request, NO_RULES)
    reloader = Reloader(
        first, request, seen, running.used.append, running.sweep, limits, running.metrics,
        time.time, time.perf_counter,
    )  # fmt: skip
    reloader.start()
    try:
        yield running, reloader
    finally:
        await reloader.close()


async def test_a_file_that_is_renamed_into_its_place_is_in_force_soon(tmp_path: Path) -> None:
    async with reloading(tmp_path, LIMITS) as (running, reloader):
        running.write("b.example.com")
        await running.until(lambda: running.counts()[0] == 1)
        status = reloader.status()
    assert (status.generation, status.outcome, status.why) == (2, "changed", "files")
    assert status.cut == 3
    assert running.swept == [2]
    (used,) = running.used
    (rule,) = used.ruleset.apps["me"].allows
    assert [str(pattern) for pattern in rule.patterns] == ["b.example.com"]
    assert running.metrics.generation.value == 2


async def test_a_touched_file_is_no_new_generation(tmp_path: Path) -> None:
    """threats.md, Order of checks: a cache flush per file touch as a herd."""
    async with reloading(tmp_path, LIMITS) as (running, reloader):
        running.file.touch()
        await running.until(lambda: running.counts()[1] == 1)
        assert reloader.status().outcome == "unchanged"
        assert reloader.status().generation == 1
    assert (running.used, running.swept) == ([], [])


async def test_the_last_good_rules_stay_and_the_reason_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with reloading(tmp_path) as (running, reloader):
        running.file.write_text("apps:\n  me:\n    alow: []\n")
        status = await reloader.reload("control")
        assert (status.generation, status.outcome, status.why) == (1, "failed", "control")
        (problem,) = status.problems
        assert str(problem.place) == f"{running.file}:3:5"
        assert str(problem.place) in caplog.text
        assert problem.cure in caplog.text
        assert status.told == (problem.render(),)
        assert "generation 1 stays in force" in caplog.text
        assert running.metrics.rule_problems.value == 1
        assert running.used == []
        running.write("a.example.com")  # as it is in force
        status = await reloader.reload("control")
        assert (status.outcome, status.problems) == ("unchanged", ())
        assert running.metrics.rule_problems.value == 0
        running.write("b.example.com")
        assert (await reloader.reload("control")).generation == 2


async def test_what_is_asked_for_meanwhile_is_one_more_build_after_it(tmp_path: Path) -> None:
    async with reloading(tmp_path) as (running, reloader):
        running.holding.clear()
        running.write("b.example.com")
        reloader.request("signal")
        await running.until(lambda: running.swept == [2])
        running.write("c.example.com")
        for _ in range(3):
            reloader.request("signal")
        after = asyncio.create_task(reloader.reload("control"))
        await asyncio.sleep(0)
        assert running.counts() == (0, 0, 0)
        running.holding.set()
        status = await after
        assert running.swept == [2, 3]
        assert running.counts() == (2, 0, 0)
    assert (status.generation, status.outcome) == (3, "changed")


async def test_a_build_that_cannot_be_had_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reloading(tmp_path) as (running, reloader):
        monkeypatch.setattr("sys.executable", "/nowhere/python")
        status = await reloader.reload("signal")
        assert status.outcome == "failed"
        assert "no process" in status.failure
        assert status.told == (status.failure,)
        assert running.metrics.rule_problems.value == 1
        monkeypatch.undo()
        running.write("b.example.com")
        assert (await reloader.reload("signal")).outcome == "changed"


async def test_a_bug_of_ours_ends_one_reload_and_not_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with reloading(tmp_path) as (running, reloader):

        def broken(_: Generation) -> None:
            raise ZeroDivisionError

        reloader._use = broken
        running.write("b.example.com")
        with caplog.at_level(logging.CRITICAL):
            assert (await reloader.reload("control")).failure == "ZeroDivisionError"
        reloader._use = running.used.append
        running.write("c.example.com")
        assert (await reloader.reload("control")).outcome == "changed"


async def test_a_look_that_fails_does_not_end_watching(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("can't start new thread")

    async with reloading(tmp_path, LIMITS) as (running, _):
        with caplog.at_level(logging.CRITICAL):
            monkeypatch.setattr("proxy.reload.reloader.look", broken)
            await running.until(lambda: running.counts() == (0, 0, 1))
            monkeypatch.undo()
        running.write("b.example.com")
        await running.until(lambda: running.counts()[0] == 1)


async def test_warnings_are_told_when_they_are_new(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with reloading(tmp_path) as (running, reloader):
        warned = RULES % "b.example.com, paths: [/x]"
        for text in (warned, warned + "# again\n", warned.replace("/x", "/y")):
            running.file.write_text(text)
            await reloader.reload("control")
        assert len(reloader.status().warnings) == 1
    assert caplog.text.count("warning:") == 2


async def test_closing_ends_what_is_under_way(tmp_path: Path) -> None:
    async with reloading(tmp_path) as (running, reloader):
        running.write("b.example.com")
        waiting = asyncio.create_task(reloader.reload("control"))
        await running.until(lambda: reloader._assembly._child is not None)
        await reloader.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert running.used == []


async def test_rules_are_restated_under_a_number_of_their_own(tmp_path: Path) -> None:
    """threats.md, "Order of checks": what is remembered is decided again."""
    async with reloading(tmp_path) as (running, reloader):
        assert reloader.restate() == 2
        (used,) = running.used
        assert (used.number, list(used.ruleset.apps)) == (2, ["me"])
        assert running.metrics.generation.value == 2
        assert (await reloader.reload("control")).outcome == "unchanged"
        running.write("b.example.com")
        assert (await reloader.reload("control")).generation == 3
        assert reloader.restate() == 4


@pytest.mark.parametrize("is_changed", [True, False])
async def test_rules_that_are_restated_while_files_are_read_never_share_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_changed: bool
) -> None:
    """Two generations of one number would let what the first allowed stand under the second."""
    build = Assembly.build

    async def build_and_restate(
        assembly: Assembly, request: Request, before: Generation
    ) -> Generation:
        made = await build(assembly, request, before)
        assert reloader.restate() == 2
        return made

    async with reloading(tmp_path) as (running, reloader):
        monkeypatch.setattr(Assembly, "build", build_and_restate)
        if is_changed:
            running.write("b.example.com")
        status = await reloader.reload("control")
        numbers = [used.number for used in running.used]
    assert status.generation == (3 if is_changed else 2)
    assert numbers == ([2, 3] if is_changed else [2])


def listing(running: Running, *names: str, file: str = "bad.txt") -> Path:
    """Have the rules name a list of these names; return its file."""
    folder = running.file.parent
    found = folder / file
    beside = folder / f".{file}"
    beside.write_text("".join(f"{name}\n" for name in names))
    beside.rename(found)
    (folder / "lists.yaml").write_text(f"lists: [{{file: {file}}}]\n")
    return found


def denies(generation: Generation, name: str) -> bool:
    return generation.index.lists.find("me", parse(name)) is not None


async def test_a_list_that_changed_is_in_force_soon(tmp_path: Path) -> None:
    async with reloading(tmp_path, LIMITS) as (running, reloader):
        listing(running, "bad.example.com")
        await running.until(lambda: len(running.used) == 1)
        listing(running, "worse.example.com")
        await running.until(lambda: len(running.used) == 2)
        await running.until(lambda: running.counts()[0] == 2)
        first, second = running.used
        assert (denies(first, "bad.example.com"), denies(second, "bad.example.com")) == (
            True,
            False,
        )
        assert denies(second, "worse.example.com")
        assert (second.number, running.swept) == (3, [2, 3])
        assert first.parts["me"] is second.parts["me"]
        # What was read is not read again.
        assert await reloader._look() == reloader._watch._settled
        assert running.counts() == (2, 0, 0)
        assert reloader.listed() is second.listed


async def test_a_list_that_is_missing_changes_nothing_until_it_is_there(tmp_path: Path) -> None:
    """A name must not pass because the file that denies it could not be read."""
    async with reloading(tmp_path, LIMITS) as (running, reloader):
        file = listing(running, "bad.example.com")
        await running.until(lambda: running.counts()[0] == 1)
        file.unlink()
        await running.until(lambda: running.counts()[2] == 1)
        status = reloader.status()
        assert (status.outcome, status.generation) == ("failed", 2)
        assert status.problems[0].message.startswith("bad.txt cannot be read")
        assert denies(running.used[-1], "bad.example.com")
        assert len(running.used) == 1
        listing(running, "worse.example.com")
        await running.until(lambda: running.counts()[0] == 2)
        assert denies(running.used[-1], "worse.example.com")


async def test_a_list_that_was_never_there_is_waited_for(tmp_path: Path) -> None:
    async with reloading(tmp_path, LIMITS) as (running, reloader):
        (running.file.parent / "lists.yaml").write_text("lists: [{file: later.txt}]\n")
        await running.until(lambda: running.counts()[2] == 1)
        assert reloader.listed().lists is NO_LISTS
        (running.file.parent / "later.txt").write_text("bad.example.com\n")
        await running.until(lambda: running.counts()[0] == 1)
        assert denies(running.used[-1], "bad.example.com")


async def test_a_touched_list_is_no_new_generation(tmp_path: Path) -> None:
    """threats.md, Order of checks: a cache flush per file touch as a herd."""
    async with reloading(tmp_path, LIMITS) as (running, _):
        file = listing(running, "bad.example.com")
        await running.until(lambda: running.counts()[0] == 1)
        file.touch()
        await running.until(lambda: running.counts()[1] == 1)
        assert len(running.used) == 1


async def test_rules_that_change_and_restated_ones_keep_the_table(tmp_path: Path) -> None:
    async with reloading(tmp_path) as (running, reloader):
        listing(running, "bad.example.com")
        await reloader.reload("control")
        running.write("b.example.com")
        assert (await reloader.reload("control")).outcome == "changed"
        reloader.restate()
        tables = [used.listed.table for used in running.used]
        assert len({id(table) for table in tables}) == 1
        assert all(denies(used, "bad.example.com") for used in running.used)
        assert [source.shown for source in running.used[-1].ruleset.lists] == ["bad.txt"]


async def test_a_table_that_nobody_needs_is_freed(tmp_path: Path) -> None:
    async with reloading(tmp_path) as (running, reloader):
        listing(running, "bad.example.com")
        await reloader.reload("control")
        table = running.used.pop().listed.table
        assert table is not None
        mapped = weakref.ref(table.obj)
        del table
        listing(running, "worse.example.com")
        await reloader.reload("control")
        assert mapped() is None
        (running.file.parent / "lists.yaml").unlink()
        await reloader.reload("control")
        assert reloader.listed().table is None


async def test_while_lists_are_read_it_says_how_far_that_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with reloading(tmp_path) as (running, reloader):
        listing(running, *(f"n{each}.example.com" for each in range(140_000)))
        assert reloader.progress() is None
        with caplog.at_level(logging.INFO):
            reading = asyncio.create_task(reloader.reload("control"))
            await running.until(lambda: reloader.progress() is not None)
            progress = reloader.progress()
            assert progress is not None
            assert (progress.file, progress.number, progress.files) == ("bad.txt", 1, 1)
            assert running.used == []  # what was in force answers meanwhile
            await reading
        assert reloader.progress() is None
        assert reloader.listed().read.files[0].names == 140_000


async def test_warnings_of_a_list_are_told_and_counted(tmp_path: Path) -> None:
    async with reloading(tmp_path) as (running, reloader):
        listing(running, "bad.example.com", "b a d", "worse.example.com", "more.example.com")
        status = await reloader.reload("control")
        assert [str(each.place) for each in status.warnings] == ["bad.txt:2:1"]
        assert sum(reloader.listed().read.files[0].skipped.values()) == 1
