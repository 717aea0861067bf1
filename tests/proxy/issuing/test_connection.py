"""Malformed gRPC (the issue's "bad input"): whatever comes, the issuer serves the next caller."""

import contextlib
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self, cast

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from proxy.channel import Event, Gone
from proxy.issuing import messages
from proxy.issuing.connection import Prefixes
from proxy.limits import Limits
from tests.proxy.issuing.desk import ID, Desk, settings

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SVID, BUNDLES = "/SpiffeWorkloadAPI/FetchX509SVID", "/SpiffeWorkloadAPI/FetchX509Bundles"
VALIDATE = "/SpiffeWorkloadAPI/ValidateJWTSVID"
SECRETS = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"
FRAMES = 100


def prefixed(octets: bytes, flag: int = 0, length: int | None = None) -> bytes:
    return struct.pack(">BI", flag, len(octets) if length is None else length) + octets


class Client:
    """An HTTP/2 client that may send anything."""

    def __init__(self, desk: Desk, kind: str = "workload") -> None:
        self.socket, self.number = desk.connected(kind)
        config = H2Configuration(
            header_encoding="ascii",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.h2 = H2Connection(config)
        self.h2.initiate_connection()
        self.events: list[Any] = []
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def open(self, path: str = SVID, **fields: str) -> int:
        stream = self.h2.get_next_available_stream_id()
        head = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "localhost",
            "content-type": "application/grpc",
            "te": "trailers",
            "workload.spiffe.io": "true",
        }
        head |= {name.replace("__", ":").replace("_", "-"): value for name, value in fields.items()}
        self.h2.send_headers(stream, [(name, text) for name, text in head.items() if text])
        return stream

    def call(self, path: str = SVID, message: bytes = b"", **fields: Any) -> int:
        stream = self.open(path, **fields)
        self.h2.send_data(stream, prefixed(message), end_stream=True)
        self.flush()
        return stream

    def until(self, kind: type, stream: int | None = None) -> Any:
        while True:
            for event in self.events:
                if isinstance(event, kind) and stream in {None, getattr(event, "stream_id", None)}:
                    return event
            octets = self.socket.recv(65536)
            assert octets, f"the connection ended, after {self.events}"
            self.events += self.h2.receive_data(octets)
            self.flush()

    def status(self, stream: int) -> int:
        """The gRPC status with which a call ends."""
        self.until(StreamEnded, stream)
        return next(
            int(value or 0)
            for event in self.events
            if isinstance(event, ResponseReceived | TrailersReceived) and event.stream_id == stream
            for name, value in cast("Any", event.headers)
            if name == "grpc-status"
        )

    def until_closed(self) -> None:
        with contextlib.suppress(ConnectionError):
            while self.socket.recv(65536):
                pass

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self.socket.close()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    limits = Limits(
        workload_streams=8,
        workload_message_octets=2000,
        workload_control_frames=FRAMES,
        workload_control_frames_a_second=1,
        svids=100000,
    )
    with Desk(settings(tmp_path_factory.mktemp("issuer"), limits)) as running:
        yield running.ready()
    assert "bug" not in running.log
    assert "Traceback" not in running.log


@pytest.fixture(autouse=True)
def served_afterwards(desk: Desk) -> Iterator[None]:
    yield
    with Client(desk) as client:
        found = client.until(DataReceived, client.call())
        response = messages.X509SVIDResponse.FromString(found.data[5:])
        assert response.svids[0].spiffe_id == ID


def test_two_calls_of_a_connection_get_two_certificates(desk: Desk) -> None:
    with Client(desk) as client:
        first, second = client.call(), client.call()
        one, two = (client.until(DataReceived, each).data for each in (first, second))
        assert one != two
    desk.wait(Gone, lambda each: each.connection == client.number)


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\0" * 100,
        b"\xff" * 10000,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST / HTTP/1.1\r\nUpgrade: h2c\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a ClientHello
        PREFACE + b"\0\0\0\x04\0\0\0\0\0" + b"\xff\xff\xff\x00\0\0\0\0\x01" + b"x" * 70000,
        PREFACE + b"\0\0\0\x04\0\0\0\0\0" + b"\0\0\x04\x01\x05\0\0\0\x01\xff\xff\xff\xff",
        PREFACE + b"\0\0\x05\x01\x05\0\0\0\x00\x82\x84\x86\x83\x88",  # a head on stream 0
        PREFACE[:10],
    ],
)
def test_octets_that_are_no_http2_end_their_connection(desk: Desk, octets: bytes) -> None:
    ours, number = desk.connected()
    with ours:
        ours.sendall(octets)
        ours.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while ours.recv(65536):
                pass
    desk.wait(Gone, lambda each: each.connection == number)


@profile(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(octets=st.binary(min_size=1, max_size=300), as_frames=st.booleans())
def test_any_octets_end_their_connection(desk: Desk, octets: bytes, as_frames: bool) -> None:
    ours, number = desk.connected()
    with ours:
        ours.sendall((PREFACE + b"\0\0\0\x04\0\0\0\0\0") * as_frames + octets)
    desk.wait(Gone, lambda each: each.connection == number)


@pytest.mark.parametrize(
    ("fields", "status", "grpc"),
    [
        ({"content_type": "application/json"}, "415", "2"),
        ({"content_type": ""}, "415", "2"),
        ({"content_type": "application/grpc+json"}, "415", "2"),
        ({"__method": "GET"}, "405", None),
        ({"te": ""}, "400", "2"),
        ({"grpc_timeout": "never"}, "200", "2"),
        ({"__path": "/SpiffeWorkloadAPI/Nothing"}, "200", "12"),
        ({"__path": "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"}, "200", "12"),
        ({"workload.spiffe.io": ""}, "200", "3"),
        ({"workload.spiffe.io": "True"}, "200", "3"),
    ],
)
def test_a_call_that_is_none_is_told_so(
    desk: Desk, fields: dict[str, str], status: str, grpc: str | None
) -> None:
    with Client(desk) as client:
        stream = client.call(SVID, b"", **fields)
        head = dict(client.until(ResponseReceived, stream).headers)
        assert (head[":status"], head.get("grpc-status")) == (status, grpc)
        client.until(DataReceived, client.call())  # the connection lives


@pytest.mark.parametrize(
    "missing", [{"__path": ""}, {"__method": ""}, {"__scheme": ""}, {"X-Upper": "1"}, {"x": "a\0b"}]
)
def test_a_head_that_is_none_ends_the_connection(desk: Desk, missing: dict[str, str]) -> None:
    with Client(desk) as client:
        client.call(SVID, b"", **missing)
        client.until_closed()


def test_metadata_that_cannot_be_read_leaves_no_answer_and_no_harm(desk: Desk) -> None:
    with Client(desk) as client:
        client.call(SVID, b"", **{"x-bin": "="})
        client.until(DataReceived, client.call())


@pytest.mark.parametrize("octets", [b"\xff\xff\xff", b"\x0a\x05ab", b"\x0a\x01\xff"])
def test_a_message_that_cannot_be_read_is_an_invalid_argument(desk: Desk, octets: bytes) -> None:
    with Client(desk) as client:
        assert client.status(client.call(VALIDATE, octets)) == 3


def test_a_request_that_is_missing_or_cut_short_is_an_invalid_argument(desk: Desk) -> None:
    with Client(desk) as client:
        for octets in (b"", b"\0\0", b"\0\0\0\0\x09abc"):
            stream = client.open()
            client.h2.send_data(stream, octets, end_stream=True)
            client.flush()
            assert client.status(stream) == 3


@pytest.mark.parametrize(
    "octets",
    [
        prefixed(b"", length=2001),
        prefixed(b"", length=0xFFFFFFFF),
        prefixed(b"abc", flag=1),
        prefixed(b"") + prefixed(b"x" * 3000),
    ],
)
def test_a_message_that_is_too_long_or_compressed_ends_its_call(desk: Desk, octets: bytes) -> None:
    """Its length alone: nothing is kept until the rest has come (CVE-2023-44487's neighbours)."""
    with Client(desk) as client:
        stream = client.open(SECRETS)
        for octet in octets:  # in as many frames
            with contextlib.suppress(Exception):
                client.h2.send_data(stream, bytes((octet,)))
            if len(octets) > 100:
                break
        else:
            octets = b""
        with contextlib.suppress(Exception):
            client.h2.send_data(stream, octets[1:])
        client.flush()
        reset = client.until(StreamReset, stream)
        assert reset.error_code == ErrorCodes.ENHANCE_YOUR_CALM  # gRPC: RESOURCE_EXHAUSTED
        client.until(DataReceived, client.call())
    assert bound(desk, "workload_message_octets")


def bound(desk: Desk, limit: str) -> bool:
    event = desk.wait(Event, lambda each: each.change == "bound" and each.target == limit)
    return bool(event.detail["count"])


def test_more_calls_than_fit_are_refused_and_others_go_on(desk: Desk) -> None:
    with Client(desk) as client:
        streams = [client.call(BUNDLES) for _ in range(8)]
        for each in streams:
            client.until(DataReceived, each)
        refused = client.until(StreamReset, client.call(BUNDLES))
        assert refused.error_code == ErrorCodes.REFUSED_STREAM
        client.h2.reset_stream(streams[0])
        client.until(DataReceived, client.call(BUNDLES))  # there is room again
    assert bound(desk, "workload_streams")


def test_calls_that_are_reset_at_once_leave_no_trace(desk: Desk) -> None:
    """A reset in the segment of its request: the task never begins (CVE-2023-44487)."""
    with Client(desk) as client:
        for _ in range(FRAMES // 2):
            stream = client.open(BUNDLES)
            client.h2.send_data(stream, prefixed(b""), end_stream=True)
            client.h2.reset_stream(stream)
            client.flush()
        client.until(DataReceived, client.call(BUNDLES))


def test_calls_that_are_answered_and_then_reset_are_no_flood(desk: Desk) -> None:
    """As `spiffe` fetches: a call, its answer, a reset; and gRPC's C core pings and updates."""
    with Client(desk) as client:
        for _ in range(FRAMES):
            stream = client.call(BUNDLES)
            client.until(DataReceived, stream)
            client.events.clear()
            client.h2.reset_stream(stream)
            client.h2.ping(b"12345678")
            client.h2.increment_flow_control_window(1)
            client.flush()


@pytest.mark.parametrize(
    "kind", ["reset", "ping", "settings", "empty", "messages", "octets", "unknown", "priority"]
)
def test_a_flood_of_frames_that_are_no_call_ends_the_connection(desk: Desk, kind: str) -> None:
    with Client(desk) as client, contextlib.suppress(ConnectionError):
        stream = client.open(SECRETS)
        client.flush()
        for number in range(3 * FRAMES):
            match kind:
                case "reset":
                    each = client.open(BUNDLES)
                    client.h2.reset_stream(each)
                case "ping":
                    client.h2.ping(b"12345678")
                case "settings":
                    client.h2.update_settings({4: 65535 + number})
                case "empty":
                    client.h2.send_data(stream, b"")
                case "messages":
                    client.h2.send_data(stream, prefixed(b""))
                case "octets":
                    client.h2.send_data(stream, b"\0")
                case "priority":
                    client.h2.prioritize(stream, weight=1 + number % 256)
                case _:
                    client.socket.sendall(b"\0\0\x01\xfa\0\0\0\0\0x")
            client.flush()
        client.until_closed()
    assert bound(desk, "workload_control_frames")


def test_a_client_that_reads_no_answers_to_its_mistakes_loses_its_connection(desk: Desk) -> None:
    """Frames of a stream that has ended are answered by h2 itself, and are no events of ours."""
    with Client(desk) as client, contextlib.suppress(OSError):
        client.status(client.call(BUNDLES, b"", **{"workload.spiffe.io": ""}))
        client.socket.settimeout(1.0)
        frame = b"\0\0\x01\0\0\0\0\0\x01x"
        for _ in range(300):
            client.socket.sendall(frame * 1000)
    assert bound(desk, "workload_unsent_octets")


def test_a_client_that_reads_nothing_holds_up_nobody(desk: Desk) -> None:
    with Client(desk) as deaf:
        for _ in range(8):
            deaf.call(SVID)
        with Client(desk) as client:
            client.until(DataReceived, client.call())


def test_a_goaway_of_the_client_ends_the_connection(desk: Desk) -> None:
    with Client(desk) as client:
        client.call(BUNDLES)
        client.h2.close_connection()
        client.flush()
        client.until_closed()
    desk.wait(Gone, lambda each: each.connection == client.number)


def test_what_breaks_http2_is_told_by_a_goaway_or_by_the_end(desk: Desk) -> None:
    with Client(desk) as client:
        client.socket.sendall(b"\0\0\x04\x03\0\0\0\0\x63\0\0\0\0")  # a reset of no stream
        with contextlib.suppress(ConnectionError, AssertionError):
            client.until(ConnectionTerminated)
        client.until_closed()


@given(
    lengths=st.lists(st.integers(0, 40), max_size=8), cuts=st.lists(st.integers(1, 9), min_size=1)
)
def test_prefixes_are_found_however_messages_are_cut(lengths: list[int], cuts: list[int]) -> None:
    octets = b"".join(prefixed(bytes(each)) for each in lengths)
    prefixes, at, turn = Prefixes(30), 0, 0
    good = True
    while at < len(octets) and good:
        step = cuts[turn % len(cuts)]
        good = prefixes.take(octets[at : at + step])
        at, turn = at + step, turn + 1
    assert good == (max(lengths, default=0) <= 30)


def test_the_page_of_the_state_is_left_alone(desk: Desk) -> None:
    """Keys stay in files of ours alone."""
    folder = Path(desk.settings.state) / "identity"
    modes = {each.stat().st_mode & 0o777 for each in folder.iterdir() if each.is_file()}
    assert modes == {0o600}
