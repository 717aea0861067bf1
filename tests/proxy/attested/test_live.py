"""Results and attesters over restarts, and what is done without their file."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from proxy.attested import live
from proxy.attested.attester import Attester
from proxy.attested.binding import Binding, Kind
from proxy.attested.file import AttestedFile
from proxy.attested.live import FILE_NAME, LiveAttested
from proxy.database.lazy import RETRY_S
from proxy.errors import BindError
from proxy.limits import Limits
from rules.facts import Level
from tests.proxy.attested.making import KEY, NOW, OTHER, Clock, result
from tests.proxy.issuing.stand import until


class Stand:
    def __init__(self, folder: Path, limits: Limits) -> None:
        self.clock = Clock()
        self.bounds: list[str] = []
        self.live = LiveAttested(folder / FILE_NAME, limits, self.clock, self.bounds.append)

    @property
    def held(self) -> list[str]:
        return sorted(each.id for each in self.live.attestations.all())


@asynccontextmanager
async def opened(
    folder: Path, limits: Limits | None = None, now: float = NOW
) -> AsyncIterator[Stand]:
    stand = Stand(folder, limits or Limits())
    stand.clock.now = now
    await stand.live.open()
    try:
        yield stand
    finally:
        await stand.live.close()


def attester(name: str = "a", **changed: object) -> Attester:
    made = Attester(name, "coder", "spiffe://a/b", "ee" * 32, b"\1\2", NOW)
    return replace(made, **changed)


async def test_results_stand_over_a_restart_until_they_expire(tmp_path: Path) -> None:
    kept = result("a")
    async with opened(tmp_path) as stand:
        await stand.live.ready()
        assert stand.live.keep(kept)
        assert stand.live.keep(result("b", binding=OTHER, at=NOW - 200))
        assert stand.live.keep(result("c", level=Level.TPM))
        stand.live.attestations.void(lambda each: each.id == "c")
    async with opened(tmp_path) as stand:
        assert stand.held == ["a", "b"]
        assert stand.live.attestations.find("a") == kept
    async with opened(tmp_path, now=NOW + 101) as stand:
        assert stand.held == ["a"]


async def test_what_was_voided_stays_so_over_a_crash(tmp_path: Path) -> None:
    async with opened(tmp_path) as stand:
        await stand.live.ready()
        stand.live.keep(result("a"))
        await stand.live.settled()
        stand.live.attestations.void(lambda each: each.id == "a")
        stand.live.keep(result("b", binding=OTHER))
        await stand.live.settled()
        async with opened(tmp_path) as after:  # as if this one were no more
            assert after.held == ["b"]


async def test_what_is_made_of_older_evidence_is_not_what_a_restart_finds(tmp_path: Path) -> None:
    async with opened(tmp_path) as stand:
        await stand.live.ready()
        stand.live.keep(result("younger"))
        assert stand.live.keep(result("older", at=NOW - 50))
    async with opened(tmp_path) as stand:
        assert stand.held == ["younger"]


async def test_a_newer_result_after_a_void_is_the_one_on_the_disk(tmp_path: Path) -> None:
    async with opened(tmp_path) as stand:
        await stand.live.ready()
        stand.live.keep(result("a"))
        stand.live.attestations.void(lambda _: True)
        stand.live.keep(result("b"))
        stand.live.keep(result("c"))
    async with opened(tmp_path) as stand:
        assert stand.held == ["c"]


async def test_attesters_stand_with_their_counters(tmp_path: Path) -> None:
    quoted = attester(
        "q", reset_count=2**32 - 1, restart_count=1, clock_ms=2**70, firmware=2**64 - 1, used_at=NOW
    )
    async with opened(tmp_path) as stand:
        await stand.live.ready()
        for each in (attester(), attester(app="other"), quoted):
            assert stand.live.enrol(each)
        assert stand.live.remove("a") == (attester(), attester(app="other"))
        assert stand.live.enrol(attester(app="other"))
        await stand.live.settled()
    async with opened(tmp_path) as stand:
        assert stand.live.attester("a", "coder") is None
        assert stand.live.attester("a", "other") == attester(app="other")
        found = stand.live.attester("q", "coder")
        assert found == replace(quoted, clock_ms=2**63 - 1)
        assert len(stand.live.attesters()) == 2


async def test_where_nobody_attests_there_is_no_file(tmp_path: Path) -> None:
    async with opened(tmp_path) as stand:
        assert stand.live.problem is None
        await stand.live.settled()
        stand.live.remove("a")
        assert not stand.live.is_full
    assert list(tmp_path.iterdir()) == []


async def test_a_damaged_file_is_said_and_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as stand:
        await stand.live.ready()
        stand.live.keep(result("a"))
    path = tmp_path / FILE_NAME
    good = path.read_bytes()
    path.write_bytes(b"\0" * 4096)
    monkeypatch.setattr(live, "TICK_S", 0.01)
    async with opened(tmp_path) as stand:
        assert stand.live.problem is not None
        assert "move it away" in stand.live.problem
        assert stand.held == []
        with pytest.raises(BindError):
            await stand.live.ready()
        assert path.read_bytes() == b"\0" * 4096
        path.write_bytes(good)  # restored
        assert stand.live.problem is not None
        stand.clock.now += RETRY_S
        await until(lambda: stand.live.problem is None)
        assert stand.held == ["a"]


async def test_a_row_that_we_never_wrote_is_damage(tmp_path: Path) -> None:
    async with opened(tmp_path) as stand:
        await stand.live.ready()
        stand.live.keep(result("a", binding=replace(KEY, value="no digest")))
    async with opened(tmp_path) as stand:
        assert "it is damaged" in (stand.live.problem or "")
        assert stand.held == []


async def test_it_is_full_until_something_is_written(tmp_path: Path) -> None:
    async with opened(tmp_path, Limits(attested_queue=1)) as stand:
        await stand.live.ready()
        seen = [stand.live.is_full]
        stand.live.keep(result("a"))
        seen.append(stand.live.is_full)
        await stand.live.settled()
        assert [*seen, stand.live.is_full] == [False, True, False]


async def test_what_finds_no_room_is_not_kept(tmp_path: Path) -> None:
    async with opened(tmp_path, Limits(attestations=1)) as stand:
        await stand.live.ready()
        assert stand.live.keep(result("a"))
        assert not stand.live.keep(result("b", app="other"))
    async with opened(tmp_path) as stand:
        assert stand.held == ["a"]


async def test_an_app_with_too_many_attesters_loses_the_one_it_used_longest_ago(
    tmp_path: Path,
) -> None:
    limits = Limits(attesters_per_app=2, attesters=3)
    async with opened(tmp_path, limits) as stand:
        await stand.live.ready()
        for name, used_at in (("a", 3.0), ("b", 2.0)):
            stand.live.enrol(attester(name, used_at=used_at))
        assert stand.live.enrol(attester("c", used_at=1.0))
        assert stand.bounds == ["attesters_per_app"]
        assert {each.name for each in stand.live.attesters()} == {"a", "c"}
        assert stand.live.enrol(attester("c", used_at=9.0))  # known already
        assert stand.live.enrol(attester("d", app="other"))
        assert not stand.live.enrol(attester("e", app="third"))
        assert stand.bounds[1:] == ["attesters"]
        assert stand.live.enrol(attester("f", app="other"))
        assert {each.name for each in stand.live.attesters()} == {"a", "c", "f"}


async def test_time_is_noticed_and_what_has_expired_leaves_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "TICK_S", 0.01)
    async with opened(tmp_path) as stand:
        await stand.live.ready()
        stand.live.keep(result("a"))
        await stand.live.settled()
        stand.clock.now += live.DROP_S + 1
        await until(lambda: stand.held == [])
        await stand.live.settled()
    async with opened(tmp_path, now=NOW) as stand:
        assert stand.held == []


async def test_it_is_opened_once_for_all_who_wait(tmp_path: Path) -> None:
    async with opened(tmp_path) as stand:
        await asyncio.gather(*(stand.live.ready() for _ in range(8)))
        assert stand.live.keep(result("a"))
        await stand.live.settled()
    async with opened(tmp_path) as stand:
        assert stand.held == ["a"]


async def test_one_that_was_never_opened_is_closed_before_it_began(tmp_path: Path) -> None:
    await LiveAttested(tmp_path / FILE_NAME, Limits(), Clock(), lambda _: None).close()
    assert list(tmp_path.iterdir()) == []


async def test_what_a_lease_had_ends_with_the_appliance(tmp_path: Path) -> None:
    """No lease outlives a restart; what is bound to one does not stand, here or on the disk."""
    leased = Binding(Kind.LEASE, "lease-1")
    async with opened(tmp_path) as stand:
        await stand.live.ready()
        for each in (result("a", binding=leased), result("b")):
            assert stand.live.keep(each)
    async with opened(tmp_path) as stand:
        assert stand.held == ["b"]
        await stand.live.settled()
        file = AttestedFile(tmp_path / FILE_NAME, Limits())
        assert [each.id for each in (await file.open(NOW)).results] == ["b"]
        await file.behind.close()


async def test_a_damaged_file_says_how_to_enrol_anew(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"none" * 2000)
    (tmp_path / FILE_NAME).chmod(0o600)
    async with opened(tmp_path) as stand:
        assert "`sallyport attest --tpm TCTI` enrols it, or POST /attest/enrol" in str(
            stand.live.problem
        )


async def test_a_tpm_has_four_aks_of_an_app_and_its_oldest_goes(tmp_path: Path) -> None:
    """threats.md, "Evidence as a weapon": one TPM fills a table that all need."""
    async with opened(tmp_path, Limits(attesters_per_tpm=2)) as stand:
        await stand.live.ready()
        for name, app, ek in (
            ("a", "coder", "ee"), ("b", "coder", "ee"), ("c", "coder", "ee"), ("d", "coder", "dd"),
            ("e", "other", "ee"),
        ):  # fmt: skip
            assert stand.live.enrol(attester(name, app=app, ek_sha256=ek * 32))
        assert {each.name for each in stand.live.attesters()} == {"b", "c", "d", "e"}
        assert stand.bounds == ["attesters_per_tpm"]
        assert stand.live.of_tpm("b", "coder") == {"b", "c"}
        assert stand.live.of_tpm("gone", "coder") == {"gone"}
