"""What a closed process keeps to itself, seen by another of its user, and what it still can do.

Each of these runs in a process of its own: nothing opens a closed one again.  Where the tests run
as root, that process and who looks at it are `nobody`, for root may look at everything.
"""

import ctypes
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.hardening import Closed, close_to_debuggers, closed

ROOT = Path(__file__).parent.parent.parent

# Imports come first: the interpreter's own folder may be closed to `nobody`.
BEGIN = """
import asyncio, ctypes, json, os, resource, socket, sys
from pathlib import Path
from proxy.hardening import close_to_debuggers, closed
from proxy.limits import Limits
from proxy.notify import notify
from proxy.transport.holder import holder
from proxy.transport.peer import PeerTable
import encodings.ascii, encodings.idna
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # setuid(2) has closed it
"""
CLOSED = f"{BEGIN}\nprint(json.dumps([close_to_debuggers().holds, os.getpid()]), flush=True)\n"
WAITING = f"{CLOSED}\nsys.stdin.read()\n"

LOOKING = f"""
{BEGIN}
pid = int(sys.argv[1])
found = {{}}
for what in ("environ", "mem", "maps", "fd", "auxv", "io"):
    try:
        path = f"/proc/{{pid}}/{{what}}"
        os.listdir(path) if what == "fd" else open(path, "rb").read(1)
        found[what] = True
    except OSError:
        found[what] = False
libc = ctypes.CDLL(None, use_errno=True)
PTRACE_SEIZE = 0x4206
found["ptrace"] = libc.ptrace(PTRACE_SEIZE, pid, None, None) == 0
print(json.dumps(found))
"""

# What the appliance does with /proc, descriptors and systemd, when it is closed.
WORKING = f"""
{CLOSED}
done = {{}}
memory = os.memfd_create("settings")
os.write(memory, b"settings")
done["memfd"] = open(f"/proc/self/fd/{{memory}}", "rb").read() == b"settings"
done["fds"] = memory in map(int, os.listdir("/proc/self/fd"))
done["cgroup"] = bool(open("/proc/self/cgroup").read())
done["smaps"] = "Rss:" in open("/proc/self/smaps_rollup").read()
done["owner"] = os.stat(f"/proc/{{os.getpid()}}").st_uid == os.getuid()
done["pidfd"] = os.pidfd_open(os.getpid()) > 0
listening = socket.create_server(("127.0.0.1", 0))
port = listening.getsockname()[1]
done["holder"] = holder(port, socket.SOCK_STREAM).startswith(f"pid {{os.getpid()}} ")
client = socket.create_connection(("127.0.0.1", port))
peers = PeerTable(Limits(), lambda: 0.0, print)
owner = peers.owner(client.getsockname(), client.getpeername())
done["peer"] = owner is not None and owner.uid == os.getuid()
one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
socket.send_fds(one, [b"take"], [memory])
done["passing"] = len(socket.recv_fds(other, 16, 1)[1]) == 1
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.bind("\\0sallyport-test-" + str(os.getpid()))
environ = {{"NOTIFY_SOCKET": "@sallyport-test-" + str(os.getpid())}}
done["notify"] = notify(environ, "READY=1") and manager.recv(20) == b"READY=1"
child = os.fork()
if child == 0:
    os._exit(0 if closed().holds else 1)
done["child"] = os.waitpid(child, 0)[1] == 0
print(json.dumps(done))
"""


def python(program: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", program, *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "SECRET": "of the environment"}


def run(program: str, *arguments: str) -> str:
    ended = subprocess.run(
        python(program, *arguments),
        capture_output=True, text=True, check=True, timeout=60, env=environment(),
    )  # fmt: skip
    return ended.stdout


def test_both_hold_on_this_kernel() -> None:
    assert json.loads(run(CLOSED))[0] is True


def test_a_process_of_the_same_user_may_not_look() -> None:
    """threats.md, "Identity": same-uid agents read keys."""
    with subprocess.Popen(
        python(WAITING), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        is_closed, pid = json.loads(process.stdout.readline())
        seen = json.loads(run(LOOKING, str(pid)))
        process.stdin.close()
    assert is_closed
    assert seen == dict.fromkeys(("environ", "mem", "maps", "fd", "auxv", "io", "ptrace"), False)


def test_a_process_that_is_not_closed_is_open_to_its_user() -> None:
    """What the test above would see, else."""
    program = f"{BEGIN}\nprint(os.getpid(), flush=True)\nsys.stdin.read()\n"
    with subprocess.Popen(
        python(program), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        seen = json.loads(run(LOOKING, process.stdout.readline().decode().strip()))
        process.stdin.close()
    assert seen["fd"] is True
    assert seen["maps"] is True


def test_what_we_do_with_ourselves_goes_on() -> None:
    done = json.loads(run(WORKING).splitlines()[-1])
    assert done == dict.fromkeys(done, True)
    assert len(done) == 11


@pytest.mark.parametrize("closes", [True, False])
def test_a_crash_leaves_no_core(tmp_path: Path, *, closes: bool) -> None:
    tmp_path.chmod(0o777)
    program = f"{CLOSED if closes else BEGIN}\nos.kill(os.getpid(), 11)\n"
    ended = subprocess.run(
        ["bash", "-c", f"ulimit -c unlimited; exec {shlex.join(python(program))}"],
        check=False, timeout=60, env=environment(), capture_output=True, cwd=tmp_path,
    )  # fmt: skip
    assert ended.returncode == -signal.SIGSEGV
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    _, most = resource.getrlimit(resource.RLIMIT_CORE)  # a command that ran here may have closed it
    writes_here = not closes and most != 0 and not pattern.startswith(("|", "/"))
    assert bool(list(tmp_path.iterdir())) is writes_here


def test_execve_opens_a_process_again_and_the_limit_stays() -> None:
    """So each program of ours closes itself."""
    again = (
        "import json; from proxy.hardening import closed; found = closed();"
        "print(json.dumps([found.core, found.debugger]))"
    )
    program = (
        "import os, sys; from proxy.hardening import close_to_debuggers; close_to_debuggers();"
        f"os.execv(sys.executable, [sys.executable, '-c', {again!r}])"
    )
    assert json.loads(run(program)) == [True, False]


def test_says_what_the_kernel_refuses_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_which: int, _limits: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    class Libc:
        def __init__(self, *_: object, **__: object) -> None:
            """Have no prctl, as a C library of another system."""

    monkeypatch.setattr(resource, "setrlimit", refuse)
    monkeypatch.setattr(ctypes, "CDLL", Libc)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (0, resource.RLIM_INFINITY))
    assert close_to_debuggers() == Closed(core=False, debugger=False)
    assert not closed().holds
