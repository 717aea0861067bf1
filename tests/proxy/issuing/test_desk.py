import datetime as dt
import http.client
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from certs.domain import init_domain
from proxy import channel_socket
from proxy.channel import Event, Gone, Look, Ready, Serve, Trust
from proxy.config_identity import Federated
from proxy.issuing import desk as issuing
from proxy.issuing import federation, issued
from proxy.limits import Limits
from tests.proxy.issuing.desk import APP, ID, TRUST_DOMAIN, Clock, Desk, settings


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Desk(settings(tmp_path / "state"), Clock()) as running:
        yield running.ready()


def test_it_is_ready_and_then_says_whom_to_believe(desk: Desk) -> None:
    trust = desk.wait(Trust)
    assert isinstance(desk.said[0], Ready)
    assert list(trust.bundles) == [TRUST_DOMAIN]
    assert trust.problem == ""


def test_it_signs_what_the_appliance_presents(desk: Desk) -> None:
    signed = desk.sign(ID, "admin", 300)
    assert signed.problem == ""
    assert "not of the trust domain" in desk.sign("spiffe://other.example/a").problem
    (event,) = desk.events("issued")
    assert (event.app, event.detail["how"]) == ("", "sign")


def test_a_connection_that_has_ended_is_told(desk: Desk) -> None:
    ours, number = desk.connected("ext_authz")
    ours.close()
    desk.wait(Gone, lambda each: each.connection == number)
    desk.entitle(number, APP, (ID,))  # it is gone: nothing happens
    desk.send(Look())
    assert desk.sign(ID).problem == ""


def crl(port: int) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/crl")
    try:
        return connection.getresponse().read()
    finally:
        connection.close()


def test_a_listener_is_served_and_one_that_cannot_be_is_told(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        desk.send(Serve("pki", f"127.0.0.1:{port}"), listening.fileno())
        assert crl(port)
        desk.send(Serve("enroll", "127.0.0.1:1"), listening.fileno())
    event = desk.wait(Event, lambda each: each.change == "unserved")
    assert (event.target, event.allowed) == ("127.0.0.1:1", False)  # server.pem is missing


def test_more_descriptors_than_belong_to_a_message_are_closed(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ours, theirs = socket.socketpair()
        ours.settimeout(20)
        with ours:
            desk.send(
                Serve("pki", "127.0.0.1:1"), listening.fileno(), theirs.fileno(), theirs.fileno()
            )
            theirs.close()
            assert ours.recv(1) == b""
        assert crl(listening.getsockname()[1])


def test_what_came_to_a_bound_is_told(tmp_path: Path) -> None:
    with Desk(settings(tmp_path / "state", Limits(issued_queue=1)), Clock()) as desk:
        desk.ready()
        problems = [desk.sign(ID).problem for _ in range(5)]
        assert any("written down" in each for each in problems)
        event = desk.wait(Event, lambda each: each.change == "bound")
        assert event.target == "issued_queue"


def test_idle_connections_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuing, "SWEEP_S", 0.01)
    limits = Limits(workload_idle_s=0.05)
    with Desk(settings(tmp_path / "state", limits), Clock()) as desk:
        desk.ready()
        ours, number = desk.connected()
        with ours:
            desk.wait(Gone, lambda each: each.connection == number)


def test_a_bug_in_what_runs_for_ever_ends_it_with_its_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def keep(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(issued.IssuedLog, "keep", keep)
    desk = Desk(settings(tmp_path / "state"), Clock())
    desk.ready()
    desk.until_ended()
    desk.close()
    assert isinstance(desk.failed, ZeroDivisionError)


def test_bundles_that_are_too_long_for_the_channel_are_told_and_end_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(federation, "FILE_S", 0.01)
    name, file = "partner.example", tmp_path / "bundle.pem"
    asked = settings(tmp_path / "state", federation={name: Federated(file=str(file))})
    with Desk(asked, Clock()) as desk:
        desk.ready()
        told = desk.wait(Trust)
        long = 1024 + len(told.bundles[TRUST_DOMAIN])
        monkeypatch.setattr(channel_socket, "MOST_OCTETS", long)
        init_domain(tmp_path / "partner", name, dt.datetime.now(dt.UTC), None)
        file.write_bytes((tmp_path / "partner" / "bundle.pem").read_bytes() * 9)
        told = desk.wait(Trust, lambda each: "too large together" in each.problem)
        assert (told.bundles, "identity.federation" in told.problem) == ({}, True)
        monkeypatch.undo()
        assert desk.sign(ID).problem == ""
