"""Workloads at the socket of the Workload API: named, entitled, handed over, and cut."""

import asyncio
import contextlib
import hashlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from proxy.channel import Ready
from proxy.limits import Limits
from proxy.workload.callers import cgroup_mount
from proxy.workload.doors import Handed
from tests.proxy.lines import until
from tests.proxy.workload.stand import (
    CODER,
    DOMAIN,
    MY_UID,
    NOBODY,
    SILENT,
    app,
    ruleset,
    standing,
)

FDS = Path("/proc/self/fd")
IS_ROOT = os.geteuid() == 0
NOT_LONG = Limits(workload_look_s=0.02)
# All processes of a machine may be of one cgroup, and each of their descriptors is looked at.
ROOMY = Limits(process_fds=1 << 24, process_s=10.0)
PYTHON = hashlib.sha256(Path(sys.executable).resolve().read_bytes()).hexdigest()
SLEEP = Path("/bin/sleep")
ROOT = Path(__file__).parents[3]


async def test_a_caller_is_handed_over_with_what_his_app_is_entitled_to() -> None:
    async with standing() as stand:
        agent = await stand.agent()
        found = await agent.connect()
        assert found == {
            "type": "adopt", "connection": 1, "kind": "workload", "app": "coder",
            "ids": [f"{DOMAIN}/coder"], "uid": MY_UID, "pid": agent.pid,
        }  # fmt: skip
        assert stand.workload.connections == stand.workload.is_up == 1
        assert stand.metrics.connections.value("workload", "accepted") == 1
        await agent.tell("close")
        await until(lambda: stand.workload.connections == 0)


async def test_the_issuer_is_started_by_the_first_that_needs_it() -> None:
    async with standing() as stand:
        assert stand.workload._issuer.pid == 0
        await (await stand.agent()).connect()
        assert stand.workload._issuer.pid > 0
        assert b"sallyport_issuer_up 1" in stand.metrics.render()
        assert b"sallyport_workload_connections 1" in stand.metrics.render()


async def test_a_caller_whom_no_line_names_is_entitled_to_nothing() -> None:
    async with standing(app("coder", f"{DOMAIN}/coder", uid=4321)) as stand:
        found = await (await stand.agent()).connect()
        assert (found["app"], found["ids"]) == ("", [])


async def test_an_app_without_spiffe_ids_is_entitled_to_none() -> None:
    async with standing(app("coder", uid=MY_UID)) as stand:
        found = await (await stand.agent()).connect()
        assert (found["app"], found["ids"]) == ("coder", [])


async def test_the_line_with_most_keys_names_the_caller() -> None:
    if cgroup_mount() is None:
        return
    here = next(
        line[3:]
        for line in Path("/proc/self/cgroup").read_text().splitlines()
        if line.startswith("0::")
    )
    fine = app("fine", f"{DOMAIN}/fine", uid=MY_UID, cgroup=here)
    async with standing(CODER, fine) as stand:
        assert (await (await stand.agent()).connect())["app"] == "fine"


async def test_our_own_process_is_never_evidence() -> None:
    """threats.md, "Identity": evidence of ourselves: the appliance's own process is none."""
    async with standing() as stand:
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            client.connect(str(stand.path))
            octets = await asyncio.get_running_loop().sock_recv(client, 4096)
        assert b'"app":""' in octets


async def test_another_user_does_not_get_what_is_ours() -> None:
    """threats.md, "Identity": another uid at the socket is named by his own uid."""
    if not IS_ROOT:
        return
    other = app("other", f"{DOMAIN}/other", uid=NOBODY)
    async with standing(CODER, other, is_open=True) as stand:
        found = await (await stand.agent(NOBODY)).connect()
        assert (found["app"], found["ids"], found["uid"]) == ("other", [f"{DOMAIN}/other"], NOBODY)


async def test_another_user_does_not_reach_the_socket_of_a_user() -> None:
    if IS_ROOT:
        async with standing() as stand:
            found = await (await stand.agent(NOBODY)).connect()
            assert found == {"error": "Permission denied"}


async def test_a_connection_that_was_passed_on_is_still_its_callers() -> None:
    """threats.md, "Identity": SO_PEERCRED is of who called connect, not of who holds it."""
    if not IS_ROOT:
        return
    async with standing(is_open=True) as stand:
        poor, rich = await stand.agent(NOBODY), await stand.agent()
        way = stand.folder / "way.sock"
        (stand.folder).chmod(0o777)
        assert await rich.tell(f"take {way}") == "ready"
        way.chmod(0o777)
        await poor.connect()
        await poor.tell(f"give {way}")
        assert await rich.answer() == "done"
        stand.use(ruleset(CODER, generation=2))  # looked at again, and still the poor one's
        assert await rich.ask(do="told") is not None
        assert stand.entitled() == [""]
        stand.folder.chmod(0o711)


async def test_the_program_of_who_holds_it_now_is_not_the_callers() -> None:
    """threats.md, "Identity": a passed descriptor, where a line asks for the program."""
    if cgroup_mount() is None:
        return
    rules = app("coder", f"{DOMAIN}/coder", uid=MY_UID, exe_sha256=PYTHON)
    async with standing(rules, limits=ROOMY) as stand:
        giver, taker = await stand.agent(), await stand.agent()
        assert (await giver.connect())["app"] == "coder"
        way = stand.folder / "way.sock"
        assert await taker.tell(f"take {way}") == "ready"
        await giver.tell(f"give {way}")
        await taker.answer()
        await giver.tell("close")
        stand.use(ruleset(rules, generation=2))
        assert (await taker.read())["ids"] == []
        assert stand.entitled() == [""]


async def test_who_executes_another_program_loses_what_his_program_was_entitled_to() -> None:
    """threats.md, "Identity": connect, then exec another file."""
    if cgroup_mount() is None:
        return
    rules = app("coder", f"{DOMAIN}/coder", exe_sha256=PYTHON)
    async with standing(rules, limits=replace(ROOMY, workload_look_s=0.02)) as stand:
        agent = await stand.agent()
        assert (await agent.connect())["app"] == "coder"
        await agent.tell(f"exec {SLEEP} 100")
        await until(lambda: stand.entitled() == [""])


async def test_who_executes_the_right_program_after_he_called_gets_nothing() -> None:
    """threats.md, "Identity": connect, then exec another file."""
    if cgroup_mount() is None:
        return
    digest = hashlib.sha256(SLEEP.read_bytes()).hexdigest()
    rules = app("coder", f"{DOMAIN}/coder", exe_sha256=digest)
    async with standing(rules, limits=ROOMY) as stand:
        agent = await stand.agent()
        assert (await agent.connect())["app"] == ""
        await agent.tell(f"exec {SLEEP} 100")
        exe = Path(f"/proc/{agent.pid}/exe")
        await until(lambda: exe.samefile(SLEEP))
        stand.use(ruleset(rules, generation=2))
        await until(lambda: stand.workload._looking is None or stand.workload._looking.done())
        assert stand.entitled() == [""]


async def test_a_program_that_forked_before_it_is_looked_at_is_not_known() -> None:
    """threats.md, "Identity": a child holds the socket as well, and may be anybody's by now."""
    if cgroup_mount() is None:
        return
    rules = app("coder", f"{DOMAIN}/coder", exe_sha256=PYTHON)
    async with standing(rules, limits=ROOMY) as stand:
        agent = await stand.agent()
        assert (await agent.connect())["app"] == "coder"
        child = await agent.tell("fork 60")
        stand.use(ruleset(rules, generation=2))
        assert (await agent.read())["ids"] == []
        os.kill(child, 9)


async def test_a_connection_ends_with_its_caller_whoever_inherited_it() -> None:
    """threats.md, "Identity": fork: a child keeps the connection of a caller that has ended."""
    async with standing() as stand:
        agent = await stand.agent()
        await agent.connect()
        child = await agent.tell("fork 60")
        assert stand.entitled() == ["coder"]
        await agent.tell("exit")
        await until(lambda: stand.entitled() == [""])
        assert stand.workload.connections == 1  # the child holds it open, for nothing
        os.kill(child, 9)
        await until(lambda: stand.workload.connections == 0)


GONE = """
import os, socket, sys, time
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
child = os.fork()
if child == 0:
    os.close(1)
    time.sleep(60)
    os._exit(0)
print(child, flush=True)
"""


async def test_who_has_ended_before_he_is_looked_at_is_refused() -> None:
    """threats.md, "Identity": a process id that another process may have by now."""
    async with standing() as stand:
        # The loop stands still meanwhile: nothing is accepted before the caller has ended.
        command = [sys.executable, "-c", GONE, str(stand.path)]
        heir = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        await until(lambda: stand.metrics.connections.value("workload", "refused") == 1)
        assert stand.workload.connections == 0
    os.kill(int(heir), 9)


async def test_who_leaves_the_cgroup_loses_what_it_was_entitled_to() -> None:
    """threats.md, "Identity": a cgroup that was left, and one that was entered afterwards."""
    mount = cgroup_mount()
    if mount is None or not os.access(mount, os.W_OK):
        return
    folder = mount / f"sallyport-test-{os.getpid()}"
    folder.mkdir()
    try:
        boxed = app("boxed", f"{DOMAIN}/boxed", cgroup=f"/{folder.name}")
        async with standing(boxed, limits=NOT_LONG) as stand:
            agent = await stand.agent()
            await agent.tell(f"cgroup {folder}")
            assert (await agent.connect())["app"] == "boxed"
            await agent.tell(f"cgroup {mount}")
            assert (await agent.read())["ids"] == []
            outside = await stand.agent()
            assert (await outside.connect())["app"] == ""
            await outside.tell(f"cgroup {folder}")
            stand.use(ruleset(boxed, generation=2))
            await until(lambda: stand.workload._looking is None or stand.workload._looking.done())
            assert stand.entitled() == ["", ""]
    finally:
        await until(lambda: _removed(folder))


def _removed(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        folder.rmdir()
    return not folder.exists()


async def test_a_connection_that_is_kept_over_a_change_of_rules_follows_them() -> None:
    """threats.md, "Identity": entitlements of an open connection end with the rule."""
    async with standing() as stand:
        agent = await stand.agent()
        assert (await agent.connect())["ids"] == [f"{DOMAIN}/coder"]
        stand.use(ruleset(app("coder", f"{DOMAIN}/b", f"{DOMAIN}/a", uid=MY_UID), generation=2))
        assert (await agent.read())["ids"] == [f"{DOMAIN}/b", f"{DOMAIN}/a"]
        stand.use(ruleset(app("other", f"{DOMAIN}/other", uid=MY_UID), generation=3))
        assert (await agent.read())["ids"] == []  # at once: there is no such app
        assert (await agent.read())["app"] == "other"


async def test_what_is_revoked_is_taken_at_once_and_the_issuer_looks() -> None:
    """threats.md, "Identity": what is revoked is cut on connections that are open."""
    async with standing(app("coder", f"{DOMAIN}/a", f"{DOMAIN}/b", uid=MY_UID)) as stand:
        agent = await stand.agent()
        assert (await agent.connect())["ids"] == [f"{DOMAIN}/a", f"{DOMAIN}/b"]
        stand.barred.add(f"{DOMAIN}/a")
        stand.workload.look()
        assert stand.workload._connections.some(1)[0].entitlement.ids == (f"{DOMAIN}/b",)
        assert (await agent.read())["ids"] == [f"{DOMAIN}/b"]
        stand.barred.add("coder")
        stand.workload.look()
        assert (await agent.read())["ids"] == []
        assert (await agent.ask(do="told"))["looks"] == 3  # once when it came up
        stand.barred.clear()
        stand.workload.look()
        assert (await agent.read())["ids"] == [f"{DOMAIN}/a", f"{DOMAIN}/b"]


async def test_the_connections_of_a_user_are_bounded_and_the_newest_is_refused() -> None:
    limits = Limits(workload_connections_per_uid=2)
    async with standing(limits=limits, is_open=True) as stand:
        agent = await stand.agent()
        assert (await agent.connect())["app"] == "coder"
        assert (await agent.connect())["app"] == "coder"
        assert await agent.connect() == {}
        assert stand.met("workload_connections_per_uid") == 1
        assert stand.metrics.connections.value("workload", "refused") == 1
        if IS_ROOT:
            assert (await (await stand.agent(NOBODY)).connect())["uid"] == NOBODY


async def test_all_connections_are_bounded() -> None:
    async with standing(limits=Limits(workload_connections=1)) as stand:
        agent = await stand.agent()
        await agent.connect()
        assert await agent.connect() == {}
        assert stand.met("workload_connections") == 1


async def test_a_socket_that_is_taken_away_comes_back() -> None:
    async with standing(limits=NOT_LONG) as stand:
        stand.path.unlink()
        await until(stand.path.exists)
        assert (await (await stand.agent()).connect())["app"] == "coder"


async def test_the_issuer_is_started_by_who_enrols_and_accepts_there_itself() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
        handed = (Handed("enroll", "127.0.0.1:8444", listening),)
        async with standing(handed=handed) as stand:
            assert stand.workload._issuer.pid == 0
            reader, writer = await asyncio.open_connection(*address)
            assert await reader.read() == b"enroll 127.0.0.1:8444"
            assert stand.workload.is_up
            writer.close()


async def test_the_issuer_is_told_whose_spiffe_ids_are_an_apps() -> None:
    async with standing() as stand:
        agent = await stand.agent()
        await agent.connect()
        found = await agent.ask(do="whose", call=7, app="coder")
        assert found == {"type": "named", "call": 7, "app": "coder", "ids": [f"{DOMAIN}/coder"]}
        assert (await agent.ask(do="whose", call=8, app="nobody"))["app"] == ""
        assert (await agent.ask(do="whose", call=9, app="unknown"))["ids"] == []


async def test_whom_to_believe_is_passed_on_and_what_is_wrong_with_it_told() -> None:
    async with standing() as stand:
        agent = await stand.agent()
        await agent.connect()
        await agent.ask(do="trust", bundles={"a.example": "PEM"}, problem="b.example is gone")
        await until(lambda: stand.trusted == [{"a.example": "PEM"}])
        assert stand.workload.problem == "b.example is gone"
        await agent.ask(do="trust", bundles={}, problem="the keys cannot be read")
        await until(lambda: stand.workload.problem == "the keys cannot be read")
        assert len(stand.trusted) == 1  # nobody's trust ends with the issuer's


async def test_events_of_the_issuer_are_audited() -> None:
    async with standing() as stand:
        agent = await stand.agent()
        await agent.connect()
        await agent.ask(do="event", change="issued", app="coder", target=f"{DOMAIN}/coder")
        lines = await stand.lines()
    assert [(line["change"], line["app"], line["evidence"]) for line in lines] == [
        ("issued", "coder", ["process"])
    ]


async def test_envoy_is_handed_over_without_an_entitlement() -> None:
    async with standing(envoy=True) as stand:
        agent = await stand.agent(path=stand.folder / "run" / "ext_authz.sock")
        found = await agent.connect()
        assert (found["kind"], found["app"], found["ids"]) == ("ext_authz", "", [])
        question = {"call": 4, "spiffe_id": f"{DOMAIN}/coder", "method": "GET", "scheme": "https"}
        asked = await agent.ask(do="judge", **question, authority="a.example", path="/")
        assert (asked["type"], asked["call"], asked["allowed"]) == ("judged", 4, False)
        await agent.tell("close")
        await until(lambda: not stand.workload._envoys)


async def test_the_connections_of_envoy_are_bounded() -> None:
    async with standing(envoy=True, limits=Limits(ext_authz_connections=1)) as stand:
        agent = await stand.agent(path=stand.folder / "run" / "ext_authz.sock")
        assert (await agent.connect())["kind"] == "ext_authz"
        assert await agent.connect() == {}
        assert stand.met("ext_authz_connections") == 1


async def test_who_may_not_vouch_for_others_is_refused_even_where_he_can_connect() -> None:
    """threats.md, "Identity": the agent reaches the admin side: he would vouch for himself."""
    if not IS_ROOT:
        return
    async with standing(envoy=True) as stand:
        path = stand.folder / "run" / "ext_authz.sock"
        agent = await stand.agent(NOBODY, path)
        assert await agent.connect() == {"error": "Permission denied"}
        for each in (stand.folder, path.parent):
            each.chmod(0o711)
        path.chmod(0o666)
        assert await agent.connect() == {}
        assert stand.metrics.connections.value("ext_authz", "refused") == 1


async def test_nothing_of_it_stays_open() -> None:
    before = set(FDS.iterdir())
    async with standing(envoy=True) as stand:
        agent = await stand.agent()
        await agent.connect()
        pid = stand.workload._issuer.pid
    assert not Path(f"/proc/{pid}").exists()
    assert not stand.path.exists()
    await until(lambda: set(FDS.iterdir()) <= before)


LIBRARIES = "cryptography", "grpclib", "aiohttp", "google.protobuf", "jwt"
LOOK = f"import sys, proxy.workload.doors; print([n for n in {LIBRARIES} if n in sys.modules])"


async def test_none_of_the_issuers_libraries_is_in_our_process() -> None:
    command = [sys.executable, "-c", LOOK]
    found = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    assert found.stdout == "[]\n"


async def test_many_connections_are_looked_at_in_several_turns() -> None:
    async with standing() as stand:
        agent = await stand.agent()
        for _ in range(70):
            await agent.connect()
        stand.use(ruleset(app("other", f"{DOMAIN}/other", uid=MY_UID), generation=2))
        assert set(stand.entitled()) == {""}  # at once
        await until(lambda: set(stand.entitled()) == {"other"})


async def test_envoys_that_wait_end_with_us_and_with_the_issuer() -> None:
    async with standing(envoy=True, module=SILENT, limits=Limits(issuer_start_s=0.2)) as stand:
        agent = await stand.agent(path=stand.folder / "run" / "ext_authz.sock")
        assert await agent.connect() == {}
        assert not stand.workload._envoys


async def test_descriptors_that_nobody_asked_for_are_closed() -> None:
    async with standing() as stand:
        stray = os.open("/dev/null", os.O_RDONLY)
        stand.workload._receive(Ready(), (stray,))
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(stray)


async def test_nothing_is_issued_while_it_cannot_be_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SECURITY.md: what cannot be recorded is refused."""
    async with standing(limits=NOT_LONG) as stand:
        agent, late = await stand.agent(), await stand.agent()
        assert (await agent.connect())["ids"] == [f"{DOMAIN}/coder"]
        monkeypatch.setattr(stand.audit, "status", lambda: "No space left on device")
        assert (await agent.read())["ids"] == []
        assert (await late.connect())["ids"] == []
        assert "No space left" in (await stand.workload.sign(f"{DOMAIN}/coder")).problem
        monkeypatch.undo()
        assert (await agent.read())["ids"] == (await late.read())["ids"] == [f"{DOMAIN}/coder"]


async def test_it_is_issued_all_the_same_where_the_admin_says_so() -> None:
    """`audit.on_failure: allow`."""
    async with standing(on_failure="allow") as stand:
        await stand.audit.close()
        assert (await (await stand.agent()).connect())["ids"] == [f"{DOMAIN}/coder"]
        assert (await stand.workload.sign(f"{DOMAIN}/coder")).problem == ""
