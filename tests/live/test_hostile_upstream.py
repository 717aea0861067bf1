"""An upstream that lies, stalls, truncates or resets, through the whole appliance.

What each of them may do to a message is tested in tests/proxy/resolver; here is what the agent,
the evidence and the admin see of it.  A wrong certificate is in test_faults.
"""

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy.control.client import ControlClient
from tests.internet import Namespace, until
from tests.live.appliance import Folders, running

pytestmark = pytest.mark.live

CONFIG = """
listen:
  do53: ["127.0.0.1:5300"]
  dot: []
  doh: []
  proxy: []
  metrics: []
resolver: {upstreams: ["udp://127.0.0.1:5399"]}
limits: {upstream_timeout_s: 2, upstream_failures: 3}
"""
RULES = """
apps:
  asker:
    identity: [{listener: "127.0.0.1:5300"}]
    allow: [{name: sites, host: ["*.example.com"]}]
"""
LINGER = struct.pack("ii", 1, 0)  # SO_LINGER: close resets

type Reply = Callable[[bytes], bytes | None]


def question_of(query: bytes) -> bytes:
    """Return the question section of a query that has one question."""
    at = 12
    while query[at]:
        at += query[at] + 1
    return query[12 : at + 5]


def lies(query: bytes) -> bytes:
    """Answer another question, with the right id."""
    return query[:2] + b"\x81\x80\0\1\0\0\0\0\0\0" + b"\4evil\7example\0\0\1\0\1"


def stalls(_query: bytes) -> None:
    """Say nothing."""


def truncates(query: bytes) -> bytes:
    """Say that the answer is too long for UDP; TCP is reset."""
    return query[:2] + b"\x83\x80\0\1\0\0\0\0\0\0" + question_of(query)


def breaks(query: bytes) -> bytes:
    """Count an answer that is not there."""
    return query[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + question_of(query)


def answer(datagrams: socket.socket, reply: Reply) -> None:
    """Answer until an empty datagram comes."""
    while True:
        query, peer = datagrams.recvfrom(4096)
        if not query:
            return
        said = reply(query)
        if said is not None:
            datagrams.sendto(said, peer)


def reset(listening: socket.socket) -> None:
    """Reset every connection, until the socket is shut down."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listening.accept()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
            connection.close()


@contextlib.contextmanager
def upstream(space: Namespace, reply: Reply) -> Iterator[None]:
    """Serve UDP with `reply`; TCP connections are reset."""
    with space.entered():
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        listening = socket.create_server(("127.0.0.1", 5399))
    datagrams.bind(("127.0.0.1", 5399))
    threads = [
        threading.Thread(target=answer, args=(datagrams, reply), daemon=True),
        threading.Thread(target=reset, args=(listening,), daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        with space.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", 5399))
        listening.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        datagrams.close()
        listening.close()


@pytest.fixture
def space() -> Iterator[Namespace]:
    if os.geteuid() != 0:
        pytest.skip("needs root to make a network namespace")
    with Namespace.made("hostile") as made:
        yield made


@pytest.mark.parametrize(
    ("reply", "reasons"),
    [
        pytest.param(lies, {"upstream-malformed", "upstream-timeout"}, id="lies"),
        pytest.param(stalls, {"upstream-timeout"}, id="stalls"),
        pytest.param(truncates, {"upstream-unreachable"}, id="truncates, then resets"),
        pytest.param(breaks, {"upstream-malformed", "upstream-timeout"}, id="breaks"),
    ],
)
def test_a_hostile_upstream_is_told_of_to_everybody(
    space: Namespace, folders: Folders, reply: Reply, reasons: set[str]
) -> None:
    """threats.md, "Parser, transport, cache": response mismatch; one bad packet ends the wait."""
    folders.configure(CONFIG)
    folders.rule(RULES)
    with upstream(space, reply), running(space, folders) as appliance:
        names = [f"n{number}.example.com" for number in range(3)]
        asked = ["kdig", "@127.0.0.1", "-p", "5300", "+edns", "+timeout=10", "+retry=0"]
        for name in names:
            shown = space.run([*asked, name]).stdout
            assert "SERVFAIL" in shown
            assert any(f"sallyport {reason}" in shown for reason in reasons), shown

        def fails() -> list[dict[str, object]]:
            return [line for line in appliance.audit() if line["verdict"] == "fail"]

        until(lambda: len(fails()) == len(names), "a line for each")
        assert {str(line["reason"]) for line in fails()} <= reasons
        control = ControlClient(Path(folders.env["XDG_RUNTIME_DIR"], "sallyport", "control.sock"))
        [state] = control.get("/status")["upstreams"]
        # One that answers, whatever it says, is not passed over: the next name may be well.
        assert (state["state"] == "closed") == (reply is breaks), state
