"""Admins elsewhere: a certificate or nothing, asked again with each request, cut in a second."""

import asyncio
import datetime as dt
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.certificates.revoked import Kind
from proxy.control.client import ControlClient, ControlError, NotRunningError
from proxy.control.client import Remote as Place
from proxy.errors import BindError
from proxy.limits import Limits
from tests.certs.forgery import FORGERIES, WHO, Forger
from tests.proxy.control.remote_stand import (
    ALICE,
    CODER,
    TRUST_DOMAIN,
    Files,
    RemoteStand,
    serving,
)

GET = b"GET /apps HTTP/1.1\r\nhost: localhost\r\n\r\n"


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[RemoteStand]:
    async with serving(tmp_path) as made:
        yield made


def dt_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
    content = await reader.readexactly(int(fields[b"content-length"]))
    return int(head.split()[1]), content


async def end_of(reader: asyncio.StreamReader) -> str:
    """Return how a connection ended: the name of the error, or what was still read."""
    async with asyncio.timeout(10):
        try:
            return repr(await reader.read())
        except OSError as error:
            return type(error).__name__


async def test_an_admin_asks_what_the_socket_answers(stand: RemoteStand) -> None:
    alice = stand.issued()
    assert (await stand.ask_as(alice, "GET", "/status"))["version"] == "0.9"
    assert [each["name"] for each in await stand.ask_as(alice, "GET", "/apps")] == ["box", "coder"]


async def test_a_change_tells_who_made_it_by_his_certificate(stand: RemoteStand) -> None:
    alice = stand.issued()
    await stand.ask_as(alice, "POST", "/tokens", {"name": "coder"})
    (line,) = await stand.lines()
    assert (line["by_spiffe"], line["by_serial"]) == (ALICE, alice.serial)
    assert "by_uid" not in line


async def test_an_agent_with_a_good_certificate_is_refused_and_told_of(stand: RemoteStand) -> None:
    """threats.md, "Identity": the agent reaches the admin side."""
    coder = stand.issued(CODER, "svid", "coder")
    with pytest.raises(ControlError, match="no admin: name it in identity") as caught:
        await stand.ask_as(coder, "POST", "/tokens", {"name": "coder"})
    assert caught.value.status == 403
    (line,) = await stand.lines()
    told = {key: line[key] for key in ("plane", "verdict", "reason", "target", "by_spiffe")}
    assert told == {
        "plane": "control", "verdict": "deny", "reason": "identity-unknown", "target": CODER,
        "by_spiffe": CODER,
    }  # fmt: skip
    assert (line["asked"], line["listener"]) == ("POST /tokens", "127.0.0.1:9443")
    assert "no admin" in line["how"]


async def test_only_those_who_are_named_are_admins(tmp_path: Path) -> None:
    async with serving(tmp_path, admins=(CODER,)) as stand:
        coder = stand.issued(CODER, "svid", "coder")
        assert await stand.ask_as(coder, "GET", "/tokens") == []
        with pytest.raises(ControlError, match="no admin"):
            await stand.ask_as(stand.issued(), "GET", "/tokens")


@pytest.mark.parametrize("content", [b"GET /status HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b""])
async def test_without_tls_nothing_is_said(stand: RemoteStand, content: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", stand.port)
    writer.write(content)
    writer.write_eof()
    assert b"HTTP" not in await reader.read()
    writer.close()


async def test_without_a_certificate_there_is_no_connection(stand: RemoteStand) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        # With TLS 1.3 a client learns of it with its first read.
        await end_without_certificate(stand)
    assert stand.metrics.connections.value("control", "accepted") == 0


async def end_without_certificate(stand: RemoteStand) -> None:
    reader, writer = await stand.connect(None)
    writer.write(GET)
    try:
        assert await reader.read() == b"", "an answer without a certificate"
        raise ConnectionError
    finally:
        writer.close()


@pytest.mark.parametrize("kind", sorted(FORGERIES))
async def test_no_forged_certificate_is_an_admins(tmp_path: Path, kind: str) -> None:
    """threats.md, "Identity": whatever is wrong with a certificate, it opens nothing."""
    forger = Forger.loose(TRUST_DOMAIN, dt_now())
    async with serving(tmp_path, admins=(WHO,)) as stand:
        good = forger.good()
        stand.trust.use({TRUST_DOMAIN: good.anchors})
        cert, key, _ = good.write(tmp_path, "good")
        assert await stand.ask_as(Files(cert, key, "", 0), "GET", "/tokens") == []
        cert, key, _ = FORGERIES[kind](forger).write(tmp_path, "forged")
        with pytest.raises((BindError, ControlError)) as caught:
            await stand.ask_as(Files(cert, key, "", 0), "GET", "/tokens")
    assert not isinstance(caught.value, NotRunningError)


async def test_a_certificate_that_fails_the_handshake_is_told_of(
    stand: RemoteStand, tmp_path: Path
) -> None:
    stranger = Forger.loose("other.example", dt_now()).good()
    cert, key, _ = stranger.write(tmp_path, "stranger")
    with pytest.raises(BindError, match="one of its admins'"):
        await stand.ask_as(Files(cert, key, "", 0), "GET", "/status")
    (line,) = await stand.lines()
    assert (line["verdict"], line["reason"], line["asked"]) == (
        "deny", "identity-unknown", "handshake",
    )  # fmt: skip


@pytest.mark.parametrize("by", ["spiffe-id", "serial"])
async def test_revocation_cuts_an_open_connection_before_its_next_request(
    stand: RemoteStand, by: str
) -> None:
    alice = stand.issued()
    reader, writer = await stand.connect(alice)
    writer.write(GET)
    assert (await answer(reader))[0] == 200
    stand.revoke((Kind(by), ALICE if by == "spiffe-id" else alice.serial))
    writer.write(GET)
    assert await end_of(reader) in {"ConnectionResetError", "b''"}
    writer.close()
    (line,) = await stand.lines()
    assert (line["reason"], line["asked"], line["by_serial"]) == (
        "revoked", "GET /apps", alice.serial,
    )  # fmt: skip


async def test_revocation_cuts_a_connection_that_waits(stand: RemoteStand) -> None:
    """threats.md, "Identity": a revoked client certificate on an open connection."""
    reader, writer = await stand.connect(stand.issued())
    writer.write(GET)
    assert (await answer(reader))[0] == 200
    stand.revoke((Kind.SPIFFE_ID, ALICE))
    assert await end_of(reader) in {"ConnectionResetError", "b''"}  # by the timer
    writer.close()


async def test_a_revoked_admin_is_told_so_when_he_comes_again(stand: RemoteStand) -> None:
    stand.revoke((Kind.SPIFFE_ID, ALICE))
    with pytest.raises(ControlError, match="was revoked") as caught:
        await stand.ask_as(stand.issued(), "GET", "/status")
    assert caught.value.status == 403


async def test_the_end_of_a_certificate_cuts_its_connection(stand: RemoteStand) -> None:
    """threats.md, "Identity": an expired client certificate on an open connection."""
    alice = stand.issued()
    reader, writer = await stand.connect(alice)
    writer.write(GET)
    assert (await answer(reader))[0] == 200
    stand.ahead_s = 3600.0
    writer.write(GET)
    assert await end_of(reader) in {"ConnectionResetError", "b''"}
    writer.close()
    assert (await stand.lines())[-1]["reason"] == "identity-unknown"


async def test_who_is_believed_no_more_is_cut_and_does_not_come_again(
    stand: RemoteStand,
) -> None:
    alice = stand.issued()
    reader, writer = await stand.connect(alice)
    writer.write(GET)
    assert (await answer(reader))[0] == 200
    stand.trust.use({"other.example": Forger.loose("other.example", dt_now()).good().anchors})
    stand.remote.look()
    assert await end_of(reader) in {"ConnectionResetError", "b''"}
    writer.close()
    with pytest.raises(BindError):
        await stand.ask_as(alice, "GET", "/status")


async def test_where_anchors_cannot_be_taken_up_they_are_refused_after_the_handshake(
    stand: RemoteStand, caplog: pytest.LogCaptureFixture
) -> None:
    alice = stand.issued()
    (stand.ca / "server.pem").rename(stand.ca / "away.pem")
    stand.trust.use({"other.example": Forger.loose("other.example", dt_now()).good().anchors})
    assert "goes on with the trust anchors of before" in caplog.text
    with pytest.raises(ControlError, match="not vouched for") as caught:
        await stand.ask_as(alice, "GET", "/status")
    assert caught.value.status == 403


async def test_without_any_anchor_nobody_comes_in(stand: RemoteStand) -> None:
    stand.trust.use({})
    with pytest.raises(BindError):
        await stand.ask_as(stand.issued(), "GET", "/status")


async def test_no_session_is_ever_resumed(stand: RemoteStand) -> None:
    """threats.md, "Identity": TLS session resumption skips client-certificate checks."""
    context = ssl.create_default_context(cafile=stand.ca / "root.pem")
    alice = stand.issued()
    context.load_cert_chain(alice.cert, alice.key)
    reader, writer = await asyncio.open_connection("127.0.0.1", stand.port, ssl=context)
    writer.write(GET)
    assert (await answer(reader))[0] == 200
    connection = writer.get_extra_info("ssl_object")
    assert connection.version() == "TLSv1.3"
    assert connection.session is None or not connection.session.has_ticket
    writer.close()


async def test_a_web_page_is_refused_with_the_admins_certificate(stand: RemoteStand) -> None:
    reader, writer = await stand.connect(stand.issued())
    writer.write(b"GET /status HTTP/1.1\r\nhost: x\r\norigin: https://evil.example\r\n\r\n")
    status, content = await answer(reader)
    assert (status, b"web pages" in content) == (403, True)
    writer.close()


async def test_beyond_the_bound_the_most_silent_connection_is_ended(tmp_path: Path) -> None:
    async with serving(tmp_path, Limits(control_connections=1)) as stand:
        alice = stand.issued()
        reader, writer = await stand.connect(alice)
        writer.write(GET)
        assert (await answer(reader))[0] == 200
        assert await stand.ask_as(alice, "GET", "/tokens") == []
        assert await end_of(reader) in {"ConnectionResetError", "b''"}
        assert stand.metrics.bounds.value("control_connections") == 1
        writer.close()


async def test_closing_cuts_what_is_open(tmp_path: Path) -> None:
    async with serving(tmp_path) as stand:
        reader, writer = await stand.connect(stand.issued())
        writer.write(GET)
        assert (await answer(reader))[0] == 200
    assert await end_of(reader) in {"ConnectionResetError", "b''"}
    writer.close()


class TestPlace:
    """What the command line's end says where it cannot speak."""

    @pytest.mark.parametrize(
        "url", ["http://127.0.0.1:1", "https://127.0.0.1", "https://h:1/x", "https://h:x", "h:1"]
    )
    def test_a_place_is_an_address_and_a_port(self, url: str, tmp_path: Path) -> None:
        with pytest.raises(BindError, match="https://ADDRESS:PORT"):
            ControlClient(Place(url, tmp_path, tmp_path, tmp_path)).get("/status")

    async def test_names_the_file_that_is_not_there(self, stand: RemoteStand) -> None:
        alice = stand.issued()
        gone = stand.folder / "gone"
        for place, told in (
            (Place(f"https://127.0.0.1:{stand.port}", gone, gone, stand.ca / "root.pem"), "--cert"),
            (Place(f"https://127.0.0.1:{stand.port}", alice.cert, alice.key, gone), "--ca"),
        ):
            with pytest.raises(BindError, match=told):
                ControlClient(place).get("/status")

    async def test_a_server_that_nobody_vouches_for_is_not_spoken_to(
        self, stand: RemoteStand
    ) -> None:
        alice = stand.issued()
        other = stand.folder / "other.pem"
        other.write_text(Forger.loose("other.example", dt_now()).good().anchors)
        place = Place(f"https://127.0.0.1:{stand.port}", alice.cert, alice.key, other)
        with pytest.raises(BindError, match="ca export"):
            await asyncio.to_thread(ControlClient(place).get, "/status")

    def test_nobody_listens(self, tmp_path: Path) -> None:
        place = Place("https://127.0.0.1:1", tmp_path, tmp_path, tmp_path)
        with pytest.raises(BindError) as caught:
            ControlClient(place).get("/status")
        assert not isinstance(caught.value, NotRunningError)  # else the files here were asked
        assert json.dumps(str(caught.value))
