import asyncio
import os
import stat
import timeit
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.audit import Audit, AuditSettings
from proxy.audit_file import series
from proxy.errors import BindError
from proxy.flow import Plane
from proxy.limits import Limits
from proxy.metrics import Metrics
from rules.decision import Reason
from tests.proxy.lines import FLOW, Clock, line, read, refused, small_disk, until


class Bench:
    """An audit of a temporary file, with its metrics and a clock that the test turns."""

    def __init__(self, folder: Path, limits: Limits | None = None, **settings: Any) -> None:
        self.file = folder / "audit.jsonl"
        self.clock = Clock()
        self.metrics = Metrics()
        self.audit = Audit(
            AuditSettings(str(self.file), **settings),
            limits or Limits(),
            self.metrics,
            self.clock,
            os.urandom,
        )

    def lines(self) -> list[dict[str, Any]]:
        """Everything that was written, the oldest first."""
        return read(*reversed(series(self.file)))

    def count(self, outcome: Any) -> int:
        return self.metrics.audit_lines.value(outcome)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 128 << 10) as folder:
        yield folder


async def test_a_line_says_what_was_decided(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.audit.start()
    id = bench.audit.write(refused(detail={"name": "denied.example", "type": "A"}))  # noqa: A001 - the field's own name
    await bench.audit.close()
    assert bench.lines() == [
        {
            "time": "2026-09-21T14:13:20.000000Z",
            "id": id,
            "flow": FLOW,
            "app": "coder",
            "evidence": ["listener"],
            "plane": "dns",
            "fact": "question",
            "verdict": "deny",
            "reason": "host-not-listed",
            "rule": None,
            "generation": 1,
            "count": 1,
            "target": "denied.example A",
            "name": "denied.example",
            "type": "A",
        }
    ]
    assert stat.S_IMODE(bench.file.stat().st_mode) == 0o600


async def test_lines_reach_the_file_while_the_appliance_runs(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.audit.start()
    bench.audit.write(line())
    bench.clock.now += 1
    await until(lambda: bench.count("written") == 1)
    assert len(bench.lines()) == 1
    assert bench.metrics.audit_octets.value() == bench.file.stat().st_size
    await bench.audit.close()


async def test_identical_lines_of_a_second_fold_into_one_with_a_count(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.audit.start()
    ids = {bench.audit.write(line(detail={"name": "example.com"})) for _ in range(1000)}
    bench.clock.now += 1
    bench.audit.flush(bench.clock.now)
    ids |= {bench.audit.write(line(detail={"name": "example.com"}))}
    await bench.audit.close()
    read = bench.lines()
    assert [(entry["id"] in ids, entry["count"], entry["name"]) for entry in read] == [
        *((True, 1000, "example.com"), (True, 1, "example.com"))
    ]
    assert len(ids) == 2
    assert (bench.count("written"), bench.count("folded")) == (2, 999)


async def test_a_flow_is_written_when_it_is_decided_and_when_it_ends(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.audit.start()
    connect = {"plane": Plane.HTTP, "fact": "connect"}
    first = bench.audit.write(line("a.example:443", **connect))
    end = {"octets_up": 517, "octets_down": 4096, "duration": 1.25}
    assert bench.audit.write(line("a.example:443", **connect, detail=end), first) == first
    await bench.audit.close()
    decided, ended = bench.lines()
    assert decided["id"] == ended["id"] == first
    assert "duration" not in decided
    assert (ended["octets_up"], ended["octets_down"], ended["duration"]) == (517, 4096, 1.25)


async def test_ends_that_fold_sum_their_octets(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.audit.start()
    for octets in (1, 2, 3):
        end = {"port": 80, "octets_up": octets, "octets_down": octets * 10, "duration": octets / 2}
        bench.audit.write(line(detail=end))
    await bench.audit.close()
    (entry,) = bench.lines()
    summed = ("count", "port", "octets_up", "octets_down", "duration")
    assert [entry[key] for key in summed] == [3, 80, 6, 60, 1.5]


async def test_a_flood_of_refusals_is_told_with_samples(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.audit.start()
    for number in range(1000):
        bench.audit.write(refused(f"{number}.example A", detail={"name": f"{number}.example"}))
    await bench.audit.close()
    read = bench.lines()
    assert len(read) == Limits().refusals_a_second + 1
    assert sum(entry["count"] for entry in read) == 1000
    widest = read[-1]
    assert (widest["target"], widest["reason"], "name" in widest) == (
        *(None, "host-not-listed"),
        False,
    )
    assert widest["samples"] == [f"{number}.example A" for number in range(200, 205)]


async def test_what_an_app_writes_over_its_quota_names_no_rule_that_may_differ(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, Limits(audit_quota_octets=1))
    bench.audit.start()
    for number in range(10):
        bench.audit.write(line(f"{number} A", rule=f"me.yaml:{number}"))
    await bench.audit.close()
    assert [(entry["rule"], entry["count"]) for entry in bench.lines()] == [
        *(("me.yaml:0", 1), (None, 9))
    ]


async def test_a_flood_of_one_app_is_stopped_and_the_others_lines_survive(tmp_path: Path) -> None:
    """threats.md, "Evidence as a weapon": one agent rolls the history out with allowed look-ups."""
    limits = Limits(audit_quota_octets=64 << 10)
    bench = Bench(tmp_path, limits, rotate=32 << 10, keep=4)
    bench.audit.start()
    quiet = {bench.audit.write(line(f"q{number} A", "quiet")) for number in range(20)}
    stopped = 0
    for number in range(20_000):
        if bench.audit.admits("loud") is None:
            bench.audit.write(line(f"{number}.example A", "loud"))
        else:
            assert bench.audit.admits("loud") is Reason.AUDIT_QUOTA
            bench.audit.write(refused(f"{number}.example A", "loud", reason=Reason.AUDIT_QUOTA))
            stopped += 1
        assert bench.audit.admits("quiet") is None
        if number % 1000 == 0:
            bench.clock.now += 0.05
            bench.audit.flush(bench.clock.now)
    quiet |= {bench.audit.write(line("last A", "quiet"))}
    await bench.audit.close()
    read = bench.lines()
    assert {entry["id"] for entry in read if entry["app"] == "quiet"} == quiet
    assert sum(entry["count"] for entry in read if entry["app"] == "loud") == 20_000
    assert stopped > 15_000
    assert bench.metrics.bounds.value("audit_quota_octets") == 2 * stopped


async def test_the_quota_flows_back(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Limits(audit_quota_octets=600))
    bench.audit.start()
    for number in range(2):
        bench.audit.write(line(f"{number} A"))
    assert bench.audit.admits("coder") is Reason.AUDIT_QUOTA
    bench.clock.now += 2
    bench.audit.flush(bench.clock.now)
    await until(lambda: bench.count("written") == 2)
    bench.clock.now += 1
    bench.audit.flush(bench.clock.now)
    assert bench.audit.admits("coder") is None
    await bench.audit.close()


async def test_rotation_under_load_loses_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Limits(audit_quota_octets=1 << 30), rotate=16 << 10, keep=64)
    bench.audit.start()
    for number in range(2000):
        bench.audit.write(line(f"{number} A"))
        if number % 20 == 0:
            bench.clock.now += 1
            bench.audit.flush(bench.clock.now)
    await bench.audit.close()
    assert [entry["target"] for entry in bench.lines()] == [f"{number} A" for number in range(2000)]
    files = series(bench.file)
    assert len(files) > 30
    assert all(path.stat().st_size <= 16 << 10 for path in files)
    assert bench.count("dropped") == 0


async def test_a_burst_is_handed_over_in_slices(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Limits(audit_quota_octets=1 << 30))
    bench.audit.start()
    for number in range(1000):
        bench.audit.write(line(f"{number} A"))
    bench.clock.now += 1
    await until(lambda: bench.count("written") == 1000)
    assert [entry["target"] for entry in bench.lines()] == [f"{number} A" for number in range(1000)]
    await bench.audit.close()


async def test_a_full_disk_refuses_says_so_and_heals(disk: Path) -> None:
    """A full disk: allows are refused, the file says why, and it ends by itself."""
    bench = Bench(disk, Limits(audit_reserve_octets=8192))
    (disk / "ballast").write_bytes(b"x" * (100 << 10))
    bench.audit.start()
    for number in range(100):
        bench.audit.write(line(f"{number} A"))
    bench.clock.now += 1
    await until(lambda: bench.audit.status() is not None)
    assert bench.audit.status() == "No space left on device"
    assert bench.audit.admits("coder") is Reason.AUDIT_UNAVAILABLE
    await until(lambda: b"audit-unavailable" in bench.file.read_bytes())
    said = bench.lines()[-1]
    assert (said["plane"], said["verdict"], said["problem"]) == (
        *("control", "fail"),
        "No space left on device",
    )
    (disk / "ballast").unlink()
    await until(lambda: bench.audit.status() is None)
    assert bench.audit.admits("coder") is None
    await bench.audit.close()
    targets = [entry["target"] for entry in bench.lines() if entry["app"] == "coder"]
    assert targets == [f"{number} A" for number in range(100)]
    assert [entry["verdict"] for entry in bench.lines() if entry["plane"] == "control"] == [
        *("fail", "allow")
    ]


async def test_a_full_disk_refuses_nothing_where_the_admin_says_so(disk: Path) -> None:
    bench = Bench(disk, Limits(audit_reserve_octets=8192), on_failure="allow")
    (disk / "ballast").write_bytes(b"x" * (112 << 10))
    bench.audit.start()
    for number in range(100):
        bench.audit.write(line(f"{number} A"))
    bench.clock.now += 1
    await until(lambda: bench.audit.status() is not None)
    assert bench.audit.admits("coder") is None
    await bench.audit.close()
    assert bench.count("dropped") > 0


async def test_a_disk_slower_than_the_lines_refuses_and_keeps_folding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue is full while the test holds the disk up; then everything is written."""
    may_write, write = asyncio.Event(), os.write
    loop = asyncio.get_running_loop()

    def hang(fd: int, data: bytes) -> int:
        asyncio.run_coroutine_threadsafe(may_write.wait(), loop).result(10)
        return write(fd, data)

    bench = Bench(tmp_path, Limits(audit_queue_octets=1000))
    bench.audit.start()
    monkeypatch.setattr(os, "write", hang)
    for number in range(10):
        bench.audit.write(line(f"{number} A"))
    bench.clock.now += 1
    bench.audit.flush(bench.clock.now)
    assert bench.audit.status() == "the disk is slower than the lines: the queue is full"
    assert bench.audit.admits("coder") is Reason.AUDIT_UNAVAILABLE
    assert bench.metrics.bounds.value("audit_queue_octets") == 1
    bench.audit.flush(bench.clock.now)
    for number in range(100):
        bench.audit.write(refused(f"{number} A"))
    may_write.set()
    await until(lambda: bench.audit.status() is None)
    await bench.audit.close()
    read = bench.lines()
    assert [entry["count"] for entry in read] == [1] * 10 + [100]
    assert bench.count("dropped") == 0


async def test_lines_that_find_no_room_anywhere_are_counted(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Limits(audit_queue_octets=0, audit_folds=64))
    for number in range(65):
        bench.audit.write(line(f"{number} A"))
    assert bench.count("dropped") == 64


async def test_a_file_that_cannot_be_opened_stops_the_start(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.file.mkdir()
    with pytest.raises(BindError, match="a folder stands there"):
        bench.audit.start()
    await bench.audit.close()


async def test_after_the_end_nothing_is_admitted(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.audit.start()
    await bench.audit.close()
    assert bench.audit.status() == "closed"
    assert bench.audit.admits("coder") is Reason.AUDIT_UNAVAILABLE


async def test_a_target_without_end_is_kept_in_part(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Limits(audit_target_characters=30))
    bench.audit.start()
    bench.audit.write(line("GET http://a.example:80/" + "x" * 60_000))
    await bench.audit.close()
    assert bench.lines()[0]["target"] == "GET http://a.example:80/xxxxxx"


async def test_reports_what_a_line_costs(tmp_path: Path, report: list[str]) -> None:
    bench = Bench(tmp_path, Limits(audit_quota_octets=1 << 40, audit_folds=1 << 20))
    bench.audit.start()
    repeat, number = line(), 5000
    bench.audit.write(repeat)
    again = min(timeit.repeat(lambda: bench.audit.write(repeat), number=number, repeat=3))
    lines = iter([line(f"{at} A") for at in range(number)])
    new = timeit.timeit(lambda: bench.audit.write(next(lines)), number=number)
    bench.clock.now += 1
    flush = timeit.timeit(lambda: bench.audit.flush(bench.clock.now), number=1)
    await bench.audit.close()
    report.append(
        f"audit: a repeat costs {again / number * 1e6:.1f} us, a new line {new / number * 1e6:.1f} "
        f"us and {flush / number * 1e6:.1f} us a second later"
    )
    assert bench.count("written") == number + 1
