"""HTTP on the control socket: strict, bounded, for the admin alone."""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.control.listener import Control
from proxy.control.place import ControlSocket, bind_control
from proxy.limits import Limits
from tests.proxy.control_stand import Stand, standing


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    async with standing(tmp_path) as made:
        yield made


def split(reply: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, content = reply.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return int(status.split()[1]), dict(line.split(": ", 1) for line in lines), content


def request(
    target: str = "/apps", method: str = "GET", content: bytes = b"", **fields: str
) -> bytes:
    named = {"host": "localhost", "connection": "close", **fields}
    if content:
        named["content-length"] = str(len(content))
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in named.items()]
    return "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""]).encode() + content


async def test_answers_with_json_that_nobody_may_keep(stand: Stand) -> None:
    status, fields, content = split(await stand.raw(request()))
    assert (status, fields["content-type"]) == (200, "application/json")
    assert fields["cache-control"] == "no-store"
    assert int(fields["content-length"]) == len(content)
    assert [each["name"] for each in json.loads(content)] == ["box", "coder"]


async def test_head_is_get_without_content(stand: Stand) -> None:
    status, fields, content = split(await stand.raw(request(method="HEAD")))
    assert (status, content) == (200, b"")
    assert int(fields["content-length"]) > 0


async def test_a_connection_carries_many_requests(stand: Stand) -> None:
    reader, writer = await asyncio.open_unix_connection(stand.path)
    for _ in range(3):
        writer.write(request(connection="keep-alive"))
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"connection: keep-alive" in head
        await reader.readexactly(int(split(head)[1]["content-length"]))
    writer.close()


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        pytest.param(request("/nothing"), 404, id="no such path"),
        pytest.param(request("/"), 404, id="no path"),
        pytest.param(request("/status/"), 404, id="a slash more"),
        pytest.param(request("/status", "POST"), 405, id="no such method"),
        pytest.param(request("status"), 400, id="no path but a word"),
        pytest.param(request("http://localhost/status"), 400, id="absolute-form"),
        pytest.param(b"GET /status HTTP/1.1\r\n\r\n", 400, id="no Host"),
        pytest.param(b"\x16\x03\x01\r\n\r\n", 400, id="TLS"),
        pytest.param(request("/status", transfer_encoding="chunked"), 400, id="chunked"),
        pytest.param(request("/tokens", "POST", b"{"), 400, id="no JSON"),
        pytest.param(request("/tokens", "POST", b"x" * 70000), 413, id="much content"),
        pytest.param(request("/status", origin="http://evil.example"), 403, id="a page"),
        pytest.param(request("/status", sec_fetch_site="cross-site"), 403, id="a page, too"),
        pytest.param(request("/status", filler="x" * 9000), 431, id="much head"),
    ],
)
async def test_what_cannot_be_is_told_as_a_problem(
    stand: Stand, octets: bytes, status: int
) -> None:
    found, fields, content = split(await stand.raw(octets))
    assert (found, fields["content-type"]) == (status, "application/problem+json")
    problem = json.loads(content)
    assert problem["status"] == status
    assert problem["detail"]


async def test_says_which_methods_there_are(stand: Stand) -> None:
    _, fields, _ = split(await stand.raw(request("/tokens", "PUT")))
    assert fields["allow"] == "GET, POST"


async def test_bounds_are_counted(stand: Stand) -> None:
    await stand.raw(request("/tokens", "POST", b"x" * 70000))
    await stand.raw(request("/status", filler="x" * 9000))
    bounds = stand.metrics.bounds
    assert (bounds.value("control_octets"), bounds.value("admin_head_octets")) == (1, 1)


async def test_slow_and_broken_requests_end(tmp_path: Path) -> None:
    limits = Limits(head_s=0.1, keep_alive_s=0.1)
    async with standing(tmp_path, limits) as stand:
        assert await stand.raw(b"GET /sta") == b""
        assert await stand.raw(request("/tokens", "POST", content_length="5")) == b""
        kept = request(connection="keep-alive")
        assert (await stand.raw(kept)).startswith(b"HTTP/1.1 200")


async def test_between_two_answers_others_have_their_turn(stand: Stand) -> None:
    """threats.md, "Parser, transport, cache": pipelining without a cap."""
    asked = asyncio.create_task(stand.raw(request(connection="keep-alive") * 99 + request()))
    turns = 0
    while not asked.done():
        turns += 1
        await asyncio.sleep(0)
    assert (await asked).count(b"HTTP/1.1 200") == 100
    assert turns > 100


async def test_beyond_the_bound_the_most_silent_connection_is_ended(tmp_path: Path) -> None:
    async with standing(tmp_path, Limits(control_connections=1)) as stand:
        reader, first = await asyncio.open_unix_connection(stand.path)
        first.write(request(connection="keep-alive"))
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(split(head)[1]["content-length"]))
        assert split(await stand.raw(request()))[0] == 200
        assert await reader.read() == b""
        assert stand.metrics.bounds.value("control_connections") == 1
        assert stand.metrics.connections.value("control", "refused") == 0
        first.close()


async def test_a_socket_that_was_taken_away_is_made_again(
    stand: Stand,
) -> None:
    """threats.md, "Parser, transport, cache": files removed under it."""
    stand.path.unlink()
    async with asyncio.timeout(10):
        while not stand.path.exists():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)
    assert split(await stand.raw(request()))[0] == 200
    stand.path.unlink()
    stand.path.parent.chmod(0o777)
    async with asyncio.timeout(10):
        while stand.control.problem is None:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)
    assert "others may write there" in stand.control.problem
    stand.path.parent.chmod(0o700)
    async with asyncio.timeout(10):
        while not stand.path.exists():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)
    assert split(await stand.raw(request()))[0] == 200


INTRUDING = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
client.sendall(b"GET /status HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n")
sys.stdout.write(client.recv(4096).decode())
"""


async def test_another_user_is_refused_even_where_the_socket_lies_open(stand: Stand) -> None:
    """threats.md, "Identity": the agent reaches the admin side; a unix socket by peer uid."""
    if os.geteuid():
        return  # only root can make a process of another user
    with tempfile.TemporaryDirectory() as folder:
        control = Control(stand.sources, stand.limits, stand.metrics)
        bound = bind_control(Path(folder) / "control.sock")
        await control.start(bound)
        Path(folder).chmod(0o711)
        bound.path.chmod(0o666)
        command = [sys.executable, "-c", INTRUDING, str(bound.path)]
        child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        reply, _ = await child.communicate()
        await control.close()
    assert reply.startswith(b"HTTP/1.1 403 ")
    assert b"neither" in reply


async def test_a_bug_is_answered_and_logged_without_the_request(
    stand: Stand, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_self: object, _now: float) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("proxy.control.status.LastSeen.look", broken)
    status, _, content = split(await stand.raw(request("/status?spt_secret")))
    assert (status, b"bug of ours" in content) == (500, True)
    assert "no answer on the control API" in caplog.text
    assert "spt_secret" not in caplog.text


async def test_closing_removes_the_socket_and_cuts_what_is_open(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        reader, writer = await asyncio.open_unix_connection(stand.path)
        writer.write(request(connection="keep-alive"))
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(split(head)[1]["content-length"]))
    assert await reader.read() == b""
    assert not stand.path.exists()
    writer.close()


async def test_closing_before_starting_is_fine(tmp_path: Path) -> None:
    stand = Stand(tmp_path, Limits())
    await Control(stand.sources, stand.limits, stand.metrics).close()


async def test_each_second_it_is_noticed_who_was_there(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.control.listener._TICK_S", 0.01)
    again: ControlSocket = bind_control(stand.path.parent / "second.sock")
    control = Control(stand.sources, stand.limits, stand.metrics)
    await control.start(again)
    stand.refuse("coder")
    async with asyncio.timeout(10):
        while control._seen.of("coder") is None:  # noqa: ASYNC110 - a timer looks, nobody tells
            await asyncio.sleep(0.01)
    await control.close()
