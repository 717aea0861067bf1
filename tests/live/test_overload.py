"""More queries than can be served: each is answered or counted.

`scripts/bench overload` has the times.
"""

import os
import signal
import socket
from collections.abc import Iterator

import pytest

from tests.internet import Namespace, until
from tests.live.appliance import Folders, running

pytestmark = pytest.mark.live

OFFERED = 3000
CONFIG = """
listen:
  do53: ["127.0.0.1:5300"]
  dot: []
  doh: []
  proxy: []
  metrics: ["127.0.0.1:9153"]
  control: ""
  proxy_tls: []
  workload: ""
resolver: {upstreams: ["udp://9.9.9.9:5999"]}
"""
RULES = 'apps: {asker: {identity: [{listener: "127.0.0.1:5300"}]}}'
TOLD = ("sallyport_dns_udp_overflows_total", 'sallyport_bounds_total{limit="dns_udp_wait_s"}')


@pytest.fixture
def space() -> Iterator[Namespace]:
    if os.geteuid() != 0:
        pytest.skip("needs root to make a network namespace")
    with Namespace.made("busy") as made:
        yield made


def query(number: int) -> bytes:
    label = f"n{number}".encode()
    name = bytes([len(label)]) + label + b"\7example\3net\0"
    return number.to_bytes(2) + b"\1\0\0\1\0\0\0\0\0\0" + name + b"\0\1\0\1"


def told(space: Namespace) -> dict[str, int]:
    page = space.run(["curl", "-sS", "http://127.0.0.1:9153/metrics"]).stdout
    samples = dict(row.rsplit(" ", 1) for row in page.splitlines() if not row.startswith("#"))
    return {name: int(float(samples.get(name, 0))) for name in TOLD}


def answers(client: socket.socket) -> set[int]:
    """Return the ids of what was answered so far."""
    found = set()
    while True:
        try:
            found.add(int.from_bytes(client.recv(1232, socket.MSG_DONTWAIT)[:2]))
        except BlockingIOError:
            return found


def test_what_is_not_answered_is_counted(
    space: Namespace, folders: Folders, report: list[str]
) -> None:
    """threats.md, "Parser, transport, cache": twice as many queries as can be served."""
    folders.configure(CONFIG)
    folders.rule(RULES)
    with running(space, folders) as appliance:
        pid = appliance.ready.pid
        with space.entered():
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            client.connect(("127.0.0.1", 5300))
            os.kill(pid, signal.SIGSTOP)  # as busy as can be
            try:
                for number in range(OFFERED):
                    client.send(query(number))
            finally:
                os.kill(pid, signal.SIGCONT)
            answered: set[int] = set()

            def is_accounted_for() -> bool:
                answered.update(answers(client))
                return len(answered) + sum(told(space).values()) == OFFERED

            until(is_accounted_for, "every query is answered or counted")
        shed = told(space)
        report.append(f"overload: {OFFERED} at once, {len(answered)} answered, told {shed}")
        # The queue is short, so that nobody waits for an answer that comes too late.
        assert shed["sallyport_dns_udp_overflows_total"] > OFFERED / 2
        assert answered
        assert appliance.stop()[0] == 0
