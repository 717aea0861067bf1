"""Workloads that ask for their SVIDs: gRPC by hand, so that what is timed is not a client's work.

One request is one HEADERS and one DATA frame, made beforehand and written at once; its reply is
over with the last octet of its message.  Whoever asks runs on the load's core meanwhile.
"""

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import h2.config
import h2.connection
import h2.events
from spiffe import WorkloadApiClient

from scripts.benches.ground import LOAD_CPU

HEADERS = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/SpiffeWorkloadAPI/FetchX509SVID"),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
    ("workload.spiffe.io", "true"),  # SPIFFE Workload Endpoint, section 6
)
EMPTY = bytes(5)  # an X509SVIDRequest: not compressed, no octets
_PREFIX = 5
_READ_OCTETS = 65536
_WAIT_S = 20.0


class Client:
    """A connection to the Workload API at `path`; it opens one stream for each SVID."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(str(path))  # unix(7): only a blocking one waits for its turn
        self._socket.settimeout(_WAIT_S)
        config = h2.config.H2Configuration(header_encoding="utf-8")
        self._h2 = h2.connection.H2Connection(config)
        self._h2.initiate_connection()
        self._flush()

    def __enter__(self) -> Self:
        """Return the connection."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self._socket.close()

    def ask(self) -> tuple[int, float]:
        """Ask for an SVID; return the stream, which stays open, and the milliseconds it took.

        Raises:
            RuntimeError: there was another answer.
        """
        stream = self._h2.get_next_available_stream_id()
        self._h2.send_headers(stream, HEADERS)
        self._h2.send_data(stream, EMPTY, end_stream=True)
        octets = self._h2.data_to_send()
        began = time.perf_counter()
        self._socket.sendall(octets)
        message, at = b"", began
        while not _is_whole(message):
            received = self._socket.recv(_READ_OCTETS)
            at = time.perf_counter()
            if not received:
                raise RuntimeError("the connection ended")
            message += self._message(received, stream)
        self._flush()
        return stream, (at - began) * 1000

    def _message(self, received: bytes, stream: int) -> bytes:
        message = b""
        for event in self._h2.receive_data(received):
            if isinstance(event, h2.events.DataReceived) and event.stream_id == stream:
                message += event.data
                self._h2.acknowledge_received_data(event.flow_controlled_length, stream)
            elif isinstance(event, h2.events.StreamEnded | h2.events.ConnectionTerminated):
                raise RuntimeError(f"no SVID: {event}")
        return message

    def end(self, stream: int) -> None:
        """Let go of a stream."""
        self._h2.reset_stream(stream)
        self._flush()

    def _flush(self) -> None:
        self._socket.sendall(self._h2.data_to_send())


def _is_whole(message: bytes) -> bool:
    return len(message) >= _PREFIX and len(message) == _PREFIX + int.from_bytes(message[1:_PREFIX])


def latencies(client: Client, count: int) -> list[float]:
    """Return how long each of so many SVIDs took, in milliseconds, the shortest first."""
    found = []
    with on_loads_core():
        for _ in range(count):
            stream, took_ms = client.ask()
            client.end(stream)
            found.append(took_ms)
    return sorted(found)


def library_latencies(path: Path, count: int) -> list[float]:
    """Return the same for the library that workloads use, with a connection that is open."""
    found = []
    with on_loads_core(), WorkloadApiClient(f"unix://{path}") as client:
        client.fetch_x509_svid()
        for _ in range(count):
            began = time.perf_counter()
            client.fetch_x509_svid()
            found.append((time.perf_counter() - began) * 1000)
    return sorted(found)


def ask_steadily(client: Client, a_second: float, seconds: float) -> int:
    """Ask for so many SVIDs a second, for so long; return how many came."""
    began = time.monotonic()
    count = 0
    while (due := began + count / a_second) < began + seconds:
        time.sleep(max(0.0, due - time.monotonic()))
        stream, _ = client.ask()
        client.end(stream)
        count += 1
    time.sleep(max(0.0, began + seconds - time.monotonic()))
    return count


@contextlib.contextmanager
def on_loads_core() -> Iterator[None]:
    """Run this process where load is made."""
    before = os.sched_getaffinity(0)
    if len(before) > 1:
        os.sched_setaffinity(0, {LOAD_CPU})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
