"""From an allowed origin to a connection to an address that was decided on."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy.egress import dial as dialling
from proxy.egress.dial import (
    KnownDial,
    Undialled,
    dial,
    endpoint,
    interleave,
    is_allowed,
    known_target,
)
from proxy.egress.errand import Errand
from proxy.egress.origin import OriginConnection, OriginKey
from proxy.flow import Flow, Plane
from rules.address import parse_address
from rules.decision import Decision, Reason, Verdict
from rules.facts import Connect, Evidence, Principal
from rules.name import parse
from rules.rtype import AAAA, A
from tests.proxy.egress.world import (
    LOOPBACK,
    QUICK,
    Origin,
    World,
    addresses,
    connect,
    opened,
    settled,
)
from tests.rules.written import allow

ME = Principal("me", (Evidence.LISTENER,))
BOTH = frozenset({A, AAAA})


def errand_to(port: int, host: str = "example.com") -> Errand:
    literal = host[0].isdigit()
    connect = Connect(ME, parse_address(host) if literal else parse(host), port)
    return Errand(
        Flow("0" * 32, ME, Plane.HTTP), connect, OriginKey(ME, connect.host, connect.port)
    )


@pytest.mark.parametrize(
    ("given", "tried"),
    [
        ([], []),
        (["192.0.2.1"], ["192.0.2.1"]),
        (["192.0.2.1", "192.0.2.2"], ["192.0.2.1", "192.0.2.2"]),
        (
            ["2001:db8::1", "2001:db8::2", "192.0.2.1"],
            ["2001:db8::1", "192.0.2.1", "2001:db8::2"],
        ),
        (["192.0.2.1", "2001:db8::1", "2001:db8::2"], ["192.0.2.1", "2001:db8::1", "2001:db8::2"]),
    ],
)
def test_families_take_turns(given: list[str], tried: list[str]) -> None:
    """RFC 8305, section 4."""
    targets = [(address, str(address)) for address in addresses(*given)]
    assert [text for _, text in interleave(targets)] == tried


async def test_dials_the_address_that_was_decided_on(tmp_path: Path) -> None:
    async with Origin().running() as origin:
        rule = allow("example.com", ports=[origin.port], addresses=[LOOPBACK])
        async with opened(tmp_path, rule) as world:
            world.names.flow = "f" * 32
            errand = errand_to(origin.port)
            connection = await dial(world.egress, errand, BOTH)
            assert isinstance(connection, OriginConnection)
            peer = connection.transport.get_extra_info("peername")
            assert peer[:2] == ("127.0.0.1", origin.port)
            assert errand.flow.id == "f" * 32
            assert world.names.asked == [("example.com", BOTH)]


async def test_drops_the_addresses_that_are_refused(tmp_path: Path) -> None:
    """threats.md, "Between name and address": "Rebinding"."""
    async with Origin().running() as origin:
        rule = allow("example.com", ports=[origin.port], addresses=["127.0.0.1/32"])
        async with opened(tmp_path, rule) as world:
            world.names.table["example.com"] = ["10.0.0.1", "127.0.0.1", "169.254.169.254"]
            connection = await dial(world.egress, errand_to(origin.port), BOTH)
            assert isinstance(connection, OriginConnection)
            assert connection.address_text == "127.0.0.1"


async def test_goes_on_to_the_next_address_when_one_refuses(tmp_path: Path) -> None:
    async with Origin().running() as origin:
        rule = allow("example.com", ports=[origin.port], addresses=[LOOPBACK, "::1/128"])
        async with opened(tmp_path, rule) as world:
            world.names.table["example.com"] = ["::1", "127.0.0.9", "127.0.0.1"]
            connection = await dial(world.egress, errand_to(origin.port), BOTH)
            assert isinstance(connection, OriginConnection)
            assert connection.address_text == "127.0.0.1"


async def test_begins_the_next_attempt_while_one_hangs(tmp_path: Path) -> None:
    """RFC 8305, section 5."""
    limits = msgspec.structs.replace(QUICK, connect_stagger_s=0.02)
    with hanging() as port:
        rule = allow("example.com", ports=[port], addresses=[LOOPBACK])
        async with (
            Origin().running("127.0.0.1", port),
            opened(tmp_path, rule, limits=limits) as world,
        ):
            world.names.table["example.com"] = [HANGING, "127.0.0.1"]
            connection = await dial(world.egress, errand_to(port), BOTH)
            assert isinstance(connection, OriginConnection)
            assert connection.address_text == "127.0.0.1"


async def test_an_origin_that_is_gone_before_anybody_uses_it_is_no_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever began a request on it would wait for ever: it tells of its end no second time."""

    async def script(*_: object) -> None:
        """End at once."""

    async with Origin(script).running() as origin:
        rule = allow("example.com", ports=[origin.port], addresses=[LOOPBACK])
        async with opened(tmp_path, rule) as world:

            async def connected(*arguments: Any) -> OriginConnection:
                made = await attempt(*arguments)
                await settled(made.transport.is_closing)  # as in the turns that a race takes
                return made

            attempt = dialling._attempt
            monkeypatch.setattr(dialling, "_attempt", connected)
            found = await dial(world.egress, errand_to(origin.port), BOTH)
            assert isinstance(found, Undialled)
            assert found.decision.reason is Reason.UPSTREAM_UNREACHABLE


async def test_gives_up_after_a_while(tmp_path: Path) -> None:
    limits = msgspec.structs.replace(QUICK, connect_s=0.05)
    with hanging() as port:
        rule = allow("example.com", ports=[port], addresses=[LOOPBACK])
        async with opened(tmp_path, rule, limits=limits) as world:
            world.names.table["example.com"] = [HANGING]
            found = await dial(world.egress, errand_to(port), BOTH)
            assert isinstance(found, Undialled)
            assert found.decision.verdict is Verdict.FAIL
            assert found.decision.reason is Reason.UPSTREAM_TIMEOUT
            assert world.metrics.bounds.value("connect_s") == 1


async def test_tries_a_bounded_number_of_addresses(tmp_path: Path) -> None:
    limits = msgspec.structs.replace(QUICK, connect_addresses=2)
    async with Origin().running() as origin:
        rule = allow("example.com", ports=[origin.port], addresses=[LOOPBACK])
        async with opened(tmp_path, rule, limits=limits) as world:
            world.names.table["example.com"] = ["127.0.0.7", "127.0.0.8", "127.0.0.1"]
            found = await dial(world.egress, errand_to(origin.port), BOTH)
            assert isinstance(found, Undialled)
            assert found.decision.reason is Reason.UPSTREAM_UNREACHABLE
            assert world.metrics.bounds.value("connect_addresses") == 1


@pytest.mark.parametrize("found", [[], Decision(Verdict.FAIL, Reason.NO_ADDRESS)])
async def test_a_name_without_addresses(tmp_path: Path, found: list[str] | Decision) -> None:
    async with opened(tmp_path, allow("example.com")) as world:
        world.names.table["example.com"] = found
        undialled = await dial(world.egress, errand_to(443), BOTH)
        assert isinstance(undialled, Undialled)
        assert undialled.decision.reason is Reason.NO_ADDRESS


async def test_a_decision_holds_on_the_same_grounds_only(tmp_path: Path) -> None:
    async with Origin().running() as origin:
        rule = allow("example.com", ports=[origin.port], addresses=[LOOPBACK])
        async with opened(tmp_path, rule) as world:
            errand = errand_to(origin.port)
            connection = await dial(world.egress, errand, BOTH)
            assert isinstance(connection, OriginConnection)
            assert is_allowed(world.egress, errand, connection)
            assert is_allowed(world.egress, errand, connection)
            world.own.listeners = {(parse_address("127.0.0.1"), origin.port)}
            assert not is_allowed(world.egress, errand, connection)
            world.own.listeners = set()
            world.use(2, allow("example.com", ports=[origin.port]))
            assert not is_allowed(world.egress, errand, connection)
            connection.end()


async def test_an_address_of_an_older_answer_is_not_dialled_again(tmp_path: Path) -> None:
    """threats.md, "Between name and address": first answer public, second private."""
    async with Origin().running() as origin:
        rule = allow("example.com", ports=[origin.port], addresses=["127.0.0.1/32"])
        async with opened(tmp_path, rule) as world:
            errand = errand_to(origin.port)
            errand.route = world.egress.routes.get(ME, parse("example.com"), origin.port)
            made = await dial(world.egress, errand, BOTH)
            assert isinstance(made, OriginConnection)
            made.end()
            world.names.table["example.com"] = ["127.0.0.2"]
            assert isinstance(await dial(world.egress, errand, BOTH), Undialled)
            assert known_target(world.egress, errand.route, 0.0) is None  # at whatever time


async def test_the_fact_says_whose_address_it_is(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        world.own.interfaces = {parse_address("192.0.2.1")}
        own = endpoint(world.egress, errand_to(world.port).connect, parse_address("127.0.0.1"))
        assert (own.own_listener, own.own_interface) == (True, False)
        interface = endpoint(world.egress, errand_to(443).connect, parse_address("192.0.2.1"))
        assert (interface.own_listener, interface.own_interface) == (False, True)
        literal = endpoint(
            world.egress, errand_to(443, "192.0.2.7").connect, parse_address("192.0.2.7")
        )
        assert literal.name is None


HANGING = "127.0.0.66"


@contextmanager
def hanging() -> Iterator[int]:
    """Yield a port of `HANGING` whose queue is full, so that one more attempt hangs."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind((HANGING, 0))
        server.listen(0)
        port: int = server.getsockname()[1]
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((HANGING, port))
        yield port


class KnownAddress:
    """A known dial to an address where nobody answers, and what it came to."""

    def __init__(self, world: World, port: int) -> None:
        self.found: list[OriginConnection | Undialled] = []
        target = (parse_address(HANGING), HANGING)
        self.dial = KnownDial(world.egress, errand_to(port), target, self.found.append)
        self.dial.begin()


async def test_a_known_dial_is_ended_by_who_began_it(tmp_path: Path) -> None:
    with hanging() as port:
        async with opened(tmp_path, allow("example.com", ports=[port])) as world:
            late, left = KnownAddress(world, port), KnownAddress(world, port)
            late.dial.late()
            left.dial.cancel()
            await asyncio.sleep(0)
            assert left.found == []
            assert len(late.found) == 1
            assert isinstance(late.found[0], Undialled)
            assert late.found[0].decision.reason is Reason.UPSTREAM_TIMEOUT


async def test_a_connect_to_a_known_address_has_its_limit_too(tmp_path: Path) -> None:
    limits = msgspec.structs.replace(QUICK, connect_s=0.05)
    with hanging() as port:
        rule = allow("example.com", ports=[port], addresses=[LOOPBACK])
        async with opened(tmp_path, rule, limits=limits) as world:
            world.names.table["example.com"] = [HANGING]
            for _ in range(2):
                reply = await world.ask(connect(f"example.com:{port}"))
                assert (reply.status, reply.field("x-deny-reason")) == (504, "upstream-timeout")
            assert len(world.names.asked) == 1
            client = await world.client()
            client.send(connect(f"example.com:{port}"))
            await settled(lambda: any(each.is_busy for each in world.egress.deadlines.present()))
            client.reset()
            await settled(lambda: not world.egress.connections)
