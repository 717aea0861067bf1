"""Real tunnels through an allowed wildcard: what leaks before the door is shut, and that it stays.

Octets are counted on the wire between the appliance and its upstream.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.internet import Internet, until
from tests.live.appliance import Appliance, Folders, running
from tests.live.tunnel_stand import (
    DNS2TCP,
    ECHO_PORT,
    INNER,
    IODINE,
    LOCAL_PORT,
    RESPELLING,
    Desk,
    Far,
    Leak,
    told,
)

pytestmark = pytest.mark.live

MOST_OCTETS = 512  # in two minutes, of distinct sub-names (docs/detection.md)
PAYLOAD = 1024
HERE = "127.0.0.1"


@pytest.fixture(scope="module")
def far(internet: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    with Far.open(internet, Path(tmp_path_factory.mktemp("tunnels"))) as opened:
        yield opened


@pytest.fixture
def desk(internet: Internet, folders: Folders) -> Desk:
    return Desk(internet, folders)


def refused(desk: Desk, name: str) -> bool:
    shown = desk.ask(name)
    return "EDE: 17 (Filtered)" in shown and "sallyport tunnel-detected" in shown


def push(far: Far, address: str, port: int) -> None:
    """Try to send octets through a tunnel that may shut at any moment."""
    far.echoed(address, port, os.urandom(PAYLOAD))


def shown_leak(tool: str, leak: Leak, payload: int) -> str:
    return (
        f"{tool}: {payload} octets of payload arrived; {len(leak.names)} names left, of"
        f" {leak.octets} octets, {leak.distinct_octets} of them new ones (the budget's)"
    )


def assert_held(desk: Desk, appliance: Appliance, zone: str, leak: Leak) -> None:
    """The block is listed, in audit and in the answer, with what the wire says leaked."""
    view = desk.listed(zone)
    assert (view["app"], view["state"]) == ("agent", "held")
    assert view["limit"] == MOST_OCTETS
    assert view["samples"]
    (line,) = told(appliance, change="tunnel-blocked", target=zone)
    assert (line["app"], line["reason"], line["id"]) == ("agent", "tunnel-detected", view["id"])
    assert leak.distinct_octets <= MOST_OCTETS
    before = leak.names
    assert refused(desk, f"one-more.{zone}")
    assert refused(desk, f"{before[0]}.{zone}")
    assert leak.names == before


@pytest.fixture(scope="class", name="unwatched")
def _unwatched(internet: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    desk = Desk(internet, Folders(tmp_path_factory.mktemp("unwatched")))
    desk.watch("off")
    with running(internet.agent, desk.folders) as appliance:
        yield appliance


@pytest.mark.usefixtures("unwatched")
class TestUnwatched:
    """The witness: the stand works, and what stops the tunnels elsewhere is the detector."""

    def test_dns2tcp_as_it_is_leaks_nothing(
        self, far: Far, unwatched: Appliance, report: list[str]
    ) -> None:
        """threats.md, "One name, many spellings": its names are none, so that no octet leaves."""
        already = far.echo.octets
        with far.world.capture() as capture:
            with far.dns2tcp(HERE):
                push(far, HERE, LOCAL_PORT)
            until(lambda: bool(told(unwatched, reason="name-malformed")), "audit says why")
            leak = Leak(capture, DNS2TCP)
            report.append(shown_leak("dns2tcp as it is", leak, far.echo.octets - already))
            assert not leak.names
        assert far.echo.octets == already

    def test_iodine_carries_octets(self, far: Far) -> None:
        sent = os.urandom(PAYLOAD)
        with far.world.capture() as capture, far.iodine():
            until(lambda: far.echoed(INNER, ECHO_PORT, sent) == PAYLOAD, "it carries")
            until(lambda: Leak(capture, IODINE).octets > PAYLOAD, "names were seen")

    def test_dns2tcp_spelt_anew_carries_octets(self, far: Far) -> None:
        sent = os.urandom(PAYLOAD)
        with far.world.capture() as capture, far.dns2tcp(RESPELLING):
            until(lambda: far.echoed_in_pieces(HERE, LOCAL_PORT, sent) == PAYLOAD, "it carries")
            until(lambda: Leak(capture, DNS2TCP).octets > PAYLOAD, "names were seen")


def test_iodine_is_shut_out_within_the_budget_until_an_admin_lets_go(
    far: Far, desk: Desk, report: list[str]
) -> None:
    """threats.md, "The resolver as a channel": an allowed wildcard; TXT, NULL, private types.

    It stays shut through kill -9 and a new start.
    """
    desk.watch("block")
    already, carried = far.echo.octets, far.carried()
    with running(desk.world.agent, desk.folders) as first, far.world.capture() as capture:
        leak = Leak(capture, IODINE)
        with far.iodine():
            until(lambda: far.is_near() or desk.is_held(), "the tunnel is up, or shut")
            push(far, INNER, ECHO_PORT)
            until(desk.is_held, "it is shut")
            report.append(shown_leak("iodine", leak, far.echo.octets - already))
            report.append(f"iodine: {far.carried() - carried} octets of IP packets arrived")
            assert_held(desk, first, IODINE, leak)
        first.process.kill()
        first.wait()
    with running(desk.world.agent, desk.folders), far.world.capture() as capture:
        leak = Leak(capture, IODINE)
        assert refused(desk, f"after-a-crash.{IODINE}")
        assert not leak.names
        desk.cli("tunnels", "clear", "agent", IODINE)
        assert not refused(desk, f"let-go.{IODINE}")
        until(lambda: leak.names == ["let-go"], "the name went out")


def test_dns2tcp_spelt_anew_is_shut_out_within_the_budget(
    far: Far, desk: Desk, report: list[str]
) -> None:
    desk.watch("block")
    already = far.echo.octets
    with running(desk.world.agent, desk.folders) as appliance, far.world.capture() as capture:
        leak = Leak(capture, DNS2TCP)
        with far.dns2tcp(RESPELLING):
            far.echoed_in_pieces(HERE, LOCAL_PORT, os.urandom(PAYLOAD))
            until(desk.is_held, "it is shut")
        report.append(shown_leak("dns2tcp spelt anew", leak, far.echo.octets - already))
        assert_held(desk, appliance, DNS2TCP, leak)
