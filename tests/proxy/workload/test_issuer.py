"""The life of the child that holds the keys: begun when needed, kept, ended with us."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.limits import Limits
from proxy.workload import issuer
from proxy.workload.issuer import Issuer, next_wait
from tests.proxy.lines import until
from tests.proxy.workload.stand import DOMAIN, FAILING, SILENT, Stand, standing

SOON = Limits(issuer_restart_s=0.05, issuer_restart_most_s=0.2)


def _ours() -> Iterator[str]:
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # of this very look
            yield str(each.readlink())


def child(stand: Stand) -> Issuer:
    return stand.workload._issuer


async def test_it_reads_the_settings_from_a_descriptor_and_not_from_its_arguments() -> None:
    async with standing() as stand:
        agent = await stand.agent()
        await agent.connect()
        assert (await agent.ask(do="told"))["state"] == stand.settings.state
        arguments = Path(f"/proc/{child(stand).pid}/cmdline").read_bytes()
        assert stand.settings.state.encode() not in arguments


async def test_it_holds_none_of_our_other_descriptors() -> None:
    async with standing() as stand:
        await (await stand.agent()).connect()
        held = [each.readlink() for each in Path(f"/proc/{child(stand).pid}/fd").iterdir()]
        shared = {str(each) for each in held} & set(_ours())
        assert not any(each.startswith(("socket", "anon_inode:[pidfd")) for each in shared)


async def test_it_gets_no_signals_of_our_terminal() -> None:
    async with standing() as stand:
        await (await stand.agent()).connect()
        assert os.getsid(child(stand).pid) == child(stand).pid != os.getsid(0)


async def test_its_connections_end_with_it_and_the_next_one_serves_again() -> None:
    async with standing(limits=SOON) as stand:
        agent = await stand.agent()
        await agent.connect()
        first = child(stand).pid
        assert await agent.ask(do="die") == {}
        await until(lambda: child(stand).pid not in {0, first} and stand.workload.is_up)
        assert stand.workload.connections == 0
        assert (await agent.connect())["app"] == "coder"
        assert stand.metrics.issuer_restarts.value() == 1
        assert stand.workload.problem is None
        assert [line["change"] for line in await stand.lines()] == ["last-words"]


async def test_one_that_hangs_up_is_ended_and_replaced() -> None:
    async with standing(limits=SOON) as stand:
        agent = await stand.agent()
        await agent.connect()
        first = child(stand).pid
        await agent.tell('send {"do": "hang-up"}')
        await until(lambda: child(stand).pid not in {0, first} and stand.workload.is_up)
        assert not Path(f"/proc/{first}").exists()


async def test_one_whose_channel_a_child_of_its_own_holds_open_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(issuer, "_LAST_S", 0.05)
    async with standing(limits=SOON) as stand:
        agent = await stand.agent()
        await agent.connect()
        first = child(stand).pid
        await agent.tell('send {"do": "leave-an-heir"}')
        await until(lambda: bool(stand.trusted))
        await until(lambda: child(stand).pid not in {0, first} and stand.workload.is_up)
        os.kill(int(stand.trusted[0]["heir"]), 9)


async def test_without_a_descriptor_for_its_channel_it_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none_left(*_: object) -> None:
        raise OSError(24, "Too many open files")

    async with standing(limits=SOON) as stand:
        with monkeypatch.context() as patched:
            patched.setattr(socket, "socketpair", none_left)
            stand.workload.wake()
            await until(lambda: "Too many open" in (stand.workload.problem or ""))
        await until(lambda: stand.workload.is_up)


async def test_one_that_ends_at_once_is_tried_again_ever_more_rarely() -> None:
    limits = Limits(issuer_restart_s=0.01)
    async with standing(limits=limits, module=FAILING) as stand:
        stand.workload.wake()
        await until(lambda: child(stand)._wait_s == 0.04)
        assert "ended with 5" in (stand.workload.problem or "")
        assert not stand.workload.is_up
        assert stand.metrics.issuer_restarts.value() == 2


@pytest.mark.parametrize(
    ("before_s", "lived_s", "wait_s"),
    [(0, 0, 1), (1, 0, 2), (2, 59.9, 4), (32, 5, 60), (60, 5, 60), (60, 60, 1)],
)
def test_each_wait_is_twice_the_last_up_to_a_minute(
    before_s: float, lived_s: float, wait_s: float
) -> None:
    assert next_wait(before_s, lived_s, Limits()) == wait_s


async def test_while_none_is_to_begin_yet_connections_are_refused_at_once() -> None:
    async with standing(limits=Limits(issuer_restart_s=60), module=FAILING, envoy=True) as stand:
        agent = await stand.agent()
        assert await agent.connect() == {}  # it waited for the one that failed
        await until(lambda: child(stand).is_resting)
        assert await agent.connect() == {}
        envoy = await stand.agent(path=stand.folder / "run" / "ext_authz.sock")
        assert await envoy.connect() == {}
        refused = stand.metrics.connections
        assert refused.value("workload", "refused") == refused.value("ext_authz", "refused") == 1
        signed = await stand.workload.sign(f"{DOMAIN}/coder")
        assert "ended with 5" in signed.problem


async def test_one_that_is_not_ready_in_time_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuer, "_STOP_S", 0.05)
    limits = Limits(issuer_start_s=0.3, issuer_restart_s=60)
    async with standing(limits=limits, module=SILENT) as stand:
        agent = await stand.agent()
        assert await agent.connect() == {}
        assert "not ready within 0.3 s" in (stand.workload.problem or "")
        assert stand.met("issuer_start_s") == 1
        assert child(stand).pid == 0


async def test_one_that_cannot_be_started_is_said_and_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = asyncio.create_subprocess_exec

    async def none_left(*_: object, **__: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    async with standing(limits=SOON) as stand:
        agent = await stand.agent()
        monkeypatch.setattr(asyncio, "create_subprocess_exec", none_left)
        assert await agent.connect() == {}
        assert "cannot be started: Resource" in (stand.workload.problem or "")
        monkeypatch.setattr(asyncio, "create_subprocess_exec", real)
        await until(lambda: stand.workload.is_up)


async def test_it_ends_with_us_even_while_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuer, "_STOP_S", 0.05)
    async with standing(module=SILENT) as stand:
        stand.workload.wake()
        await until(lambda: child(stand).pid != 0)
        pid = child(stand).pid
    assert not Path(f"/proc/{pid}").exists()
