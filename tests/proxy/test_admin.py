import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest

from proxy.admin import Admin
from proxy.limits import Limits
from proxy.metrics import CONTENT_TYPE, Metrics
from rules.decision import Reason, Verdict

type Reply = tuple[int, dict[str, str], bytes]


class Bench:
    """A listener on loopback; `problems` is what `ready` returns."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.metrics = Metrics()
        self.problems: dict[str, str] = {}
        self.metrics.app_decisions.use(["coder"])
        self.metrics.app_decisions.add("coder", Verdict.ALLOW, Reason.RULE)
        self.admin = Admin(
            self.metrics, lambda: self.problems, limits or Limits(), {"spt_scraper"}.__contains__
        )
        self.port = 0

    async def ask(self, target: str = "/healthz", method: str = "GET", **fields: str) -> Reply:
        """Send one request with a proper Host unless `fields` has one; return the reply."""
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        named = {"host": f"127.0.0.1:{self.port}", "connection": "close", **named}
        lines = [
            f"{method} {target} HTTP/1.1",
            *(f"{name}: {value}" for name, value in named.items()),
        ]
        return split(await self.send("\r\n".join([*lines, "", ""]).encode()))

    async def send(self, octets: bytes) -> bytes:
        """Send `octets` and return all that comes until the listener closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(octets)
            return await reader.read()
        finally:
            writer.close()


def split(reply: bytes) -> Reply:
    head, _, content = reply.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines)
    return int(status.split()[1]), fields, content


@asynccontextmanager
async def serving(limits: Limits | None = None, address: str = "127.0.0.1") -> AsyncIterator[Bench]:
    bench = Bench(limits)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    if family is socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind((address, 0))
    sock.listen()
    bench.port = sock.getsockname()[1]
    await bench.admin.start(sock)
    try:
        yield bench
    finally:
        await bench.admin.close()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with serving() as made:
        yield made


async def test_serves_the_metrics_in_the_format_of_scrapers(bench: Bench) -> None:
    bench.metrics.tunnels.set(3)
    status, fields, content = await bench.ask("/metrics")
    assert (status, fields["content-type"]) == (200, CONTENT_TYPE)
    assert b"\nsallyport_tunnels 3.0\n" in content
    assert int(fields["content-length"]) == len(content)


async def test_names_no_app_without_a_token(bench: Bench) -> None:
    """threats.md, "Identity": the agent reads metrics with labels of other apps."""
    status, _, content = await bench.ask("/metrics")
    assert (status, b"coder" in content) == (200, False)


async def test_names_apps_to_who_shows_a_scrapers_token(bench: Bench) -> None:
    status, _, content = await bench.ask("/metrics", authorization="Bearer spt_scraper")
    assert (status, b'app="coder"' in content) == (200, True)
    assert b"sallyport_tunnels" in content


@pytest.mark.parametrize("value", ["Bearer spt_other", "Basic OnNwdF9zY3JhcGVy", "Bearer", "x"])
async def test_a_credential_that_is_not_known_is_no_visit_without_one(
    bench: Bench, value: str
) -> None:
    status, fields, content = await bench.ask("/metrics", authorization=value)
    assert (status, b"coder" in content) == (401, False)
    assert fields["www-authenticate"].startswith("Bearer ")


async def test_two_credentials_are_none(bench: Bench) -> None:
    named = f"host: 127.0.0.1:{bench.port}\r\nauthorization: Bearer spt_scraper\r\n"
    head = f"GET /metrics HTTP/1.0\r\n{named}authorization: Bearer spt_scraper\r\n\r\n"
    assert split(await bench.send(head.encode()))[0] in {400, 401}


async def test_without_tokens_no_credential_is_known() -> None:
    assert not Admin(Metrics(), dict, Limits())._may_scrape("")


async def test_is_healthy_while_it_answers(bench: Bench) -> None:
    assert (await bench.ask("/healthz"))[::2] == (200, b"ok\n")


async def test_is_ready_when_nothing_is_wrong(bench: Bench) -> None:
    status, _, content = await bench.ask("/readyz?verbose")
    assert (status, json.loads(content)) == (200, {"ready": True, "problems": {}})


async def test_says_what_is_not_ready(bench: Bench) -> None:
    bench.problems = {"audit": "No space left on device"}
    status, fields, content = await bench.ask("/readyz")
    assert (status, fields["content-type"]) == (503, "application/json")
    assert json.loads(content) == {
        "ready": False,
        "problems": {"audit": "No space left on device"},
    }


async def test_head_is_get_without_content(bench: Bench) -> None:
    status, fields, content = await bench.ask(method="HEAD")
    assert (status, fields["content-length"], content) == (200, "3", b"")


@pytest.mark.parametrize("target", ["/", "/metrics/", "/Metrics", "/../metrics", "//metrics", "*"])
async def test_nothing_else_is_there(bench: Bench, target: str) -> None:
    assert (await bench.ask(target))[0] in {400, 404}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS"])
async def test_nothing_can_be_changed(bench: Bench, method: str) -> None:
    status, fields, _ = await bench.ask("/metrics", method)
    assert (status, fields["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "host",
    [
        *("rebind.example", "rebind.example:{port}", "127.0.0.1", "127.0.0.2:{port}", "localhost"),
        *("127.0.0.1.rebind.example:{port}", "localhost.rebind.example:{port}", "[::1]:{port}"),
        *("0x7f000001:{port}", "127.1:{port}", "2130706433:{port}", "user@127.0.0.1:{port}"),
    ],
)
async def test_a_host_that_is_not_ours_is_refused(bench: Bench, host: str) -> None:
    """threats.md, "HTTP itself": a web page reaching /metrics on loopback, by DNS rebinding."""
    status, _, content = await bench.ask("/metrics", host=host.format(port=bench.port))
    assert status == 421
    assert b"sallyport_" not in content


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "LOCALHOST.:{port}"])
async def test_the_names_of_the_listener_are_taken(bench: Bench, host: str) -> None:
    assert (await bench.ask(host=host.format(port=bench.port)))[0] == 200


async def test_http_1_0_without_host_is_refused(bench: Bench) -> None:
    assert (await bench.send(b"GET /metrics HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 421 ")


@pytest.mark.parametrize(
    ("field", "value", "status"),
    [
        ("origin", "http://127.0.0.1:9153", 403),
        ("origin", "null", 403),
        ("sec_fetch_site", "cross-site", 403),
        ("sec_fetch_site", "same-site", 403),
        ("sec_fetch_site", "same-origin", 403),
        ("sec_fetch_site", "none", 200),
    ],
)
async def test_requests_of_web_pages_are_refused(
    bench: Bench, field: str, value: str, status: int
) -> None:
    """threats.md, "HTTP itself": Origin, Sec-Fetch-Site."""
    assert (await bench.ask("/metrics", **{field: value}))[0] == status


@pytest.mark.parametrize(
    "octets",
    [
        b"GET /healthz\r\n\r\n",
        b"\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\r\n\r\n",
    ],
)
async def test_what_is_no_plain_request_is_refused_and_closed(bench: Bench, octets: bytes) -> None:
    reply = await bench.send(octets)
    assert reply.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in reply


async def test_a_head_that_is_too_long_is_refused_and_counted(bench: Bench) -> None:
    reply = await bench.send(b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 9000 + b"\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 431 ")
    assert bench.metrics.bounds.value("admin_head_octets") == 1


async def test_a_connection_carries_several_requests_in_order(bench: Bench) -> None:
    request = f"GET /%s HTTP/1.1\r\nHost: localhost:{bench.port}\r\n%s\r\n"
    texts = [
        request % ("healthz", ""),
        request % ("none", ""),
        request % ("readyz", "Connection: close\r\n"),
    ]
    reply = await bench.send("".join(texts).encode())
    assert re.findall(rb"HTTP/1\.1 (\d+)", reply) == [b"200", b"404", b"200"]
    assert bench.metrics.connections.value("metrics", "accepted") == 1


async def test_a_client_that_goes_away_in_a_request_is_forgotten(bench: Bench) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", bench.port)
    writer.write(b"GET /hea")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await bench.ask())[0] == 200


async def test_a_slow_head_is_cut() -> None:
    """threats.md, "HTTP itself": slow loris on the head."""
    async with serving(Limits(head_s=0.05)) as bench:
        with pytest.raises(ConnectionResetError):
            raise_if_closed(await bench.send(b"GET /healthz HTTP/1.1\r\nHos"))


def raise_if_closed(octets: bytes) -> None:
    """Treat the two ways in which an abort shows as one."""
    assert octets == b""
    raise ConnectionResetError


async def test_an_idle_connection_is_cut() -> None:
    async with serving(Limits(keep_alive_s=0.05)) as bench:
        reader, writer = await asyncio.open_connection("127.0.0.1", bench.port)
        writer.write(f"GET /healthz HTTP/1.1\r\nHost: localhost:{bench.port}\r\n\r\n".encode())
        assert (await reader.readuntil(b"ok\n")).startswith(b"HTTP/1.1 200 ")
        assert await settled(reader.read) == b""
        writer.close()


async def test_a_client_that_does_not_read_is_cut() -> None:
    """A page that nobody reads is not kept in memory again and again."""
    async with serving(Limits(head_s=0.2, keep_alive_s=5)) as bench:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", bench.port))
        request = f"GET /metrics HTTP/1.1\r\nHost: localhost:{bench.port}\r\n\r\n".encode()
        async with asyncio.timeout(30):
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                await loop.sock_sendall(sock, request * 1_000_000)
        sock.close()


async def settled(read: Callable[[], Awaitable[bytes]]) -> bytes:
    """Return what `read` does, an abort as the end."""
    try:
        return await read()
    except ConnectionResetError:
        return b""


async def test_beyond_the_bound_the_most_silent_connection_is_ended_and_counted() -> None:
    async with serving(Limits(admin_connections=2)) as bench:
        kept = [await asyncio.open_connection("127.0.0.1", bench.port) for _ in range(2)]
        for _, writer in kept:
            writer.write(b"GET")
        assert (await bench.ask("/healthz"))[0] == 200
        assert await settled(kept[0][0].read) == b""
        assert bench.metrics.bounds.value("admin_connections") == 1
        assert bench.metrics.connections.value("metrics", "refused") == 0
        for _, each in kept:
            each.close()


async def test_a_socket_for_both_families_answers_to_both_names() -> None:
    async with serving(address="::") as bench:
        assert (await bench.ask())[0] == 200
        assert (await bench.ask(host=f"192.0.2.1:{bench.port}"))[0] == 421


async def test_an_ipv6_listener_answers_to_its_address() -> None:
    async with serving(address="::1") as bench:
        reader, writer = await asyncio.open_connection("::1", bench.port)
        writer.write(f"GET /healthz HTTP/1.0\r\nHost: [::1]:{bench.port}\r\n\r\n".encode())
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_several_listeners_share_one_page_and_end_together() -> None:
    async with serving() as bench:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        first, bench.port = bench.port, sock.getsockname()[1]
        await bench.admin.start(sock)
        assert (await bench.ask())[0] == 200
        open_one: Any = await asyncio.open_connection("127.0.0.1", first)
        await bench.admin.close()
        for port in (first, bench.port):
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)
        assert await settled(open_one[0].read) == b""
        open_one[1].close()


async def test_between_two_answers_others_have_their_turn() -> None:
    """threats.md, "Parser, transport, cache": pipelining without a cap."""
    async with serving() as it:
        ended = asyncio.Event()
        turns = 0
        seen: list[int] = []

        async def others() -> None:
            nonlocal turns
            while not ended.is_set():
                turns += 1
                await asyncio.sleep(0)

        def ready() -> dict[str, str]:
            seen.append(turns)
            return {}

        it.admin._ready = ready
        beside = asyncio.create_task(others())
        head = f"GET /readyz HTTP/1.1\r\nHost: localhost:{it.port}\r\n"
        await it.send(f"{head}\r\n".encode() * 20 + f"{head}Connection: close\r\n\r\n".encode())
        ended.set()
        await beside
    assert len(seen) == 21
    assert all(before < after for before, after in pairwise(seen))
