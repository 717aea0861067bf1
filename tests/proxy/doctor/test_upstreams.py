"""Upstream resolvers: real ones that answer, are not there, say nothing, or are somebody else."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from proxy.doctor.patient import Finding
from proxy.doctor.upstreams import upstreams
from tests.authority import PrivateAuthority
from tests.proxy.patients import only, patient_in
from tests.proxy.resolver.peers import SERVER, free_port, nsd, unbound

QUICK = "limits: {upstream_timeout_s: 300ms, upstream_try_s: 200ms, upstream_hedge_s: 100ms}\n"


@pytest.fixture(scope="module")
def resolver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int, int, Path]]:
    """Unbound's ports of Do53, DoT and DoH, and whom to trust."""
    folder = tmp_path_factory.mktemp("resolver")
    authority = PrivateAuthority(folder)
    with nsd(folder) as behind, unbound(folder, authority, behind) as ports:
        yield *ports, authority.certificate


def found_of(folder: Path, *texts: str, more: str = "", limits: str = "") -> list[Finding]:
    listed = ", ".join(f'"{text}"' for text in texts)
    return list(
        upstreams(patient_in(folder, limits + f"resolver: {{upstreams: [{listed}]{more}}}\n"))
    )


def test_resolvers_that_answer_are_fine(
    tmp_path: Path, resolver: tuple[int, int, int, Path]
) -> None:
    port, dot_port, doh_port, ca = resolver
    texts = [
        f"tcp://127.0.0.1:{port}",
        f"tls://127.0.0.1:{dot_port}#{SERVER}",
        f"https://127.0.0.1:{doh_port}/dns-query#{SERVER}",
    ]
    assert found_of(tmp_path, *texts, more=f", upstream_ca: {ca}") == []


def test_the_root_is_asked_for_and_nothing_else(tmp_path: Path) -> None:
    """A denied name must not leave the host: the only question is `. NS`."""
    with recording() as (port, asked):
        found_of(tmp_path, f"udp://127.0.0.1:{port}", limits=QUICK)
    assert asked
    # RFC 1035, section 4.1.2: the root, NS, IN
    assert {query[12:17] for query in asked} == {b"\x00\x00\x02\x00\x01"}


def test_a_resolver_that_is_not_there_is_told(tmp_path: Path) -> None:
    finding = only(found_of(tmp_path, f"tcp://127.0.0.1:{free_port()}"))
    assert finding.severity == "error"
    assert finding.message.endswith("(upstream-unreachable)")
    assert "network and the firewall" in finding.cure


def test_a_silent_resolver_is_told(tmp_path: Path) -> None:
    with recording() as (port, _asked):
        finding = only(found_of(tmp_path, f"udp://127.0.0.1:{port}", limits=QUICK))
    assert finding.message.endswith("(upstream-timeout)")


def test_a_wrong_certificate_is_told(tmp_path: Path, resolver: tuple[int, int, int, Path]) -> None:
    _, dot_port, _, ca = resolver
    text = f"tls://127.0.0.1:{dot_port}#other.example"
    finding = only(found_of(tmp_path, text, more=f", upstream_ca: {ca}"))
    assert finding.message.endswith("(upstream-tls)")
    assert "the name behind #, resolver.upstream_ca, or the clock" in finding.cure


def test_one_dead_resolver_of_two_is_a_warning(
    tmp_path: Path, resolver: tuple[int, int, int, Path]
) -> None:
    dead = f"tcp://127.0.0.1:{free_port()}"
    finding = only(found_of(tmp_path, f"tcp://127.0.0.1:{resolver[0]}", dead))
    assert finding.severity == "warning"
    assert dead in finding.message


def test_a_dead_resolver_of_a_zone_names_the_zone(
    tmp_path: Path, resolver: tuple[int, int, int, Path]
) -> None:
    patient = patient_in(tmp_path, f'resolver: {{upstreams: ["tcp://127.0.0.1:{resolver[0]}"]}}\n')
    zones = {"corp.example": (f"tcp://127.0.0.1:{free_port()}",)}
    settings = msgspec.structs.replace(patient.settings, zones=zones)
    finding = only(upstreams(msgspec.structs.replace(patient, settings=settings)))
    assert finding.severity == "error"
    assert "the upstream of the zone corp.example tcp://" in finding.message


def test_trust_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    finding = only(found_of(tmp_path, "tls://127.0.0.1", more=f", upstream_ca: {tmp_path}/no.pem"))
    assert "no.pem" in finding.message


@contextmanager
def recording() -> Iterator[tuple[int, list[bytes]]]:
    """Take queries over UDP, and answer none."""
    asked: list[bytes] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]

        def read() -> None:
            while (query := server.recv(4096)) != b"end":
                asked.append(query)

        thread = threading.Thread(target=read)
        thread.start()
        yield port, asked
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"end", ("127.0.0.1", port))
        thread.join()
