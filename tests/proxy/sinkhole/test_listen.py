"""Which addresses are up, whom they are given to, and what is said of those that are not."""

import errno
import socket
from pathlib import Path

import pytest
from msgspec import structs

from proxy.config_sinkhole import SinkholeSettings
from proxy.errors import BindError
from proxy.sinkhole.listen import PORTS, Sinkhole, _explain
from proxy.sinkhole.visits import Desk
from proxy.transport.listen import bind_tcp
from rules.decision import Refuse
from rules.name import parse
from rules.rtype import AAAA, HTTPS, TXT, A
from rules.ruleset import DenyRule
from tests.proxy.composed import exact
from tests.proxy.egress.world import connect
from tests.proxy.egress.world import get as world_get
from tests.proxy.egress.world import opened as world_opened
from tests.proxy.sinkhole.stand import BOTH, ID, LISTED, NEAR, V4, V6, get, opened

ONE = SinkholeSettings(str(V4))
FAR = "192.0.2.1:53"
LENT = "lease:box:do53"


def made(
    desk: Desk,
    settings: SinkholeSettings = ONE,
    *,
    far: bool = False,
) -> Sinkhole:
    return Sinkhole(settings, (*NEAR, FAR) if far else NEAR, desk, (0, 0))


async def test_is_up_where_both_ports_listen(tmp_path: Path) -> None:
    async with opened(tmp_path) as stand:
        it = stand.sinkhole
        assert (it.is_up(4), it.is_up(6), it.problem) == (True, False, "")
        assert it.addresses == {V4}
        assert len(it.sockets) == len(PORTS) == 2


async def test_gives_its_address_for_its_own_family_only(tmp_path: Path) -> None:
    async with opened(tmp_path) as stand:
        it = stand.sinkhole
        assert it.records(A, NEAR[0]) == (V4.packed,)
        assert [it.records(rtype, NEAR[1]) for rtype in (AAAA, TXT, HTTPS)] == [()] * 3


async def test_who_was_given_the_address_is_told_why(tmp_path: Path) -> None:
    async with opened(tmp_path) as stand:
        stand.sinkhole.told("coder", parse("bad.example.com"), ID, LISTED)
        reply = await stand.visit(get("bad.example.com"))
    assert reply.startswith(f"HTTP/1.1 403 sallyport list {ID}\r\n".encode())


async def test_without_a_word_there_is_none(tmp_path: Path) -> None:
    async with opened(tmp_path) as stand:
        it = made(stand.desk, SinkholeSettings())
        it.bind()
        assert (it.records(A, NEAR[0]), it.problem, it.addresses) == (None, "", frozenset())
        assert it.is_same_for_all


async def test_a_port_that_is_taken_keeps_the_whole_address_down(tmp_path: Path) -> None:
    """The first of both ports is let go of again: nothing of the address is given out."""
    async with opened(tmp_path) as stand:
        with socket.create_server((str(V4), 0)) as taken:
            port = taken.getsockname()[1]
            it = Sinkhole(SinkholeSettings(str(V4)), NEAR, stand.desk, (0, port))
            it.bind()
        assert (it.is_up(4), it.sockets, it.records(A, NEAR[0])) == (False, [], None)
        assert f"cannot bind TCP {V4} port {port}: Address already in use" in it.problem
        assert "on an address of its own" in it.problem


async def test_an_address_that_no_interface_holds_is_down_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as stand:
        it = made(stand.desk, BOTH)
        it.bind()
        try:
            assert (it.is_up(4), it.is_up(6)) == (True, False)
            assert f"`ip address add {V6} dev lo`" in it.problem
            assert it.records(AAAA, NEAR[0]) == ()
        finally:
            it.stop()


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.EACCES, "CAP_NET_BIND_SERVICE"),
        (errno.EPERM, "CAP_NET_BIND_SERVICE"),
        (errno.EADDRNOTAVAIL, "ip address add fd53::53 dev lo"),
        (errno.EADDRINUSE, "on an address of its own"),
        (errno.EAFNOSUPPORT, "take sinkhole.v6 away"),
        (errno.EIO, "bind(2)"),
        (None, "bind(2)"),
    ],
)
def test_says_what_to_do(number: int | None, cure: str) -> None:
    error = BindError("cannot bind TCP fd53::53 port 80: so; choose a higher port")
    error.__cause__ = None if number is None else OSError(number, "so")
    said = _explain(V6, error, (0, 0))
    assert said.startswith("cannot bind TCP fd53::53 port 80: so; ")
    assert cure in said
    assert "higher port" not in said


async def test_a_loopback_address_is_given_to_this_host_alone(tmp_path: Path) -> None:
    """What asks from elsewhere would go to its own loopback, where nobody explains anything."""
    async with opened(tmp_path) as stand:
        it = made(stand.desk, far=True)
        it.bind()
        try:
            assert it.records(A, NEAR[0]) == (V4.packed,)
            assert it.records(A, FAR) is None
            assert not it.is_same_for_all
            assert stand.sinkhole.is_same_for_all
        finally:
            it.stop()


async def test_a_sandbox_with_a_lease_is_given_none(tmp_path: Path) -> None:
    async with opened(tmp_path) as stand:
        assert stand.sinkhole.records(A, LENT) is None


async def test_a_unique_local_address_is_given_to_all(tmp_path: Path) -> None:
    async with opened(tmp_path) as stand:
        it = made(stand.desk, far=True)
        it._bound[6] = V6, []
        assert it.records(AAAA, FAR) == (V6.packed,)
        assert it.records(A, FAR) == ()
        assert it.is_same_for_all


async def test_gives_nothing_out_once_it_stops(tmp_path: Path) -> None:
    async with opened(tmp_path) as stand:
        stand.sinkhole.stop()
        assert stand.sinkhole.records(A, NEAR[0]) is None
        with pytest.raises(ConnectionRefusedError):
            await stand.visit(get("bad.example.com"))


async def test_what_was_bound_and_never_served_is_closed(tmp_path: Path) -> None:
    async with opened(tmp_path) as stand:
        it = made(stand.desk)
        it.bind()
        port = it.sockets[0].getsockname()[1]
        await it.close()
        bind_tcp(str(V4), port).close()


async def test_nobody_can_listen_beside_us(tmp_path: Path) -> None:
    """threats.md, "Identity": SO_REUSEPORT lets another process of the user share our port."""
    async with opened(tmp_path) as stand:
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with pytest.raises(OSError, match="in use"):
                other.bind((str(V4), stand.ports[0]))


@pytest.mark.parametrize(
    "octets", [connect("bad.example:443"), world_get("bad.example"), connect("bad.example:80")]
)
async def test_the_proxy_refuses_a_sunk_name_itself_and_dials_nothing(
    tmp_path: Path, octets: bytes
) -> None:
    """On the proxy plane there is somebody to tell: our address would only hide the reason."""
    deny = DenyRule("no", (exact("bad.example"),), text="known bad")
    async with world_opened(tmp_path) as world:
        app = structs.replace(world.listener_app(deny), refuse=Refuse.SINKHOLE)
        world.use_all(2, app)
        reply = await world.ask(octets)
        assert world.names.asked == []
        (line,) = await world.lines()
    assert reply.status == 403
    assert b'"how":"known bad; ' in reply.body
    assert (line["reason"], line["rule"]) == ("rule", "no")
