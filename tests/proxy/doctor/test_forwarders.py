"""Forwarders in front of us: real relays, a real dnsmasq, and the files of systemd-resolved.

threats.md, "Identity": local forwarders (systemd-resolved, dnsmasq, slirp4netns, ssh -D) make
many apps one: `doctor` names them.
"""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy.doctor.forwarders import forwarders
from tests.internet import end, need, until
from tests.proxy.patients import only, patient_in
from tests.proxy.resolver.peers import free_port

RELAY = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 0)) if sys.argv[2] == "relay" else None
onward = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
print(flush=True)
sys.stdin.read()
"""


def listening(port: int, kind: str = "proxy") -> str:
    return f'listen: {{proxy_tls: [], metrics: [], {kind}: ["127.0.0.1:{port}"]}}\n'


@contextmanager
def connected(port: int, role: str) -> Iterator[int]:
    """Run a program that is connected to `port`, and as a relay listens itself."""
    argv = [sys.executable, "-c", RELAY, str(port), role]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.communicate(b"")


def test_a_process_that_listens_and_is_connected_to_us_is_a_relay(tmp_path: Path) -> None:
    """As ssh -D, slirp4netns, docker-proxy and every other relay is, whatever its name."""
    with socket.create_server(("127.0.0.1", 0)) as ours:
        port = ours.getsockname()[1]
        with connected(port, "relay") as pid:
            finding = only(forwarders(patient_in(tmp_path, listening(port))))
        assert finding.severity == "warning"
        assert finding.message.startswith(f"pid {pid} (python")
        assert f"holds some to proxy 127.0.0.1:{port}" in finding.message
        assert "a listener of its own, or give it a token" in finding.cure


def test_a_plain_client_is_no_relay(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:
        port = ours.getsockname()[1]
        with connected(port, "client"):
            assert list(forwarders(patient_in(tmp_path, listening(port)))) == []


def test_the_appliance_itself_is_no_relay(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:
        port = ours.getsockname()[1]
        with connected(port, "relay") as pid:
            assert list(forwarders(patient_in(tmp_path, listening(port), pid=pid))) == []


def test_a_relay_over_ipv6_is_found(tmp_path: Path) -> None:
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("this host has no IPv6")
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as ours:
        port = ours.getsockname()[1]
        text = f'listen: {{proxy_tls: [], metrics: [], proxy: ["[::1]:{port}"]}}\n'
        # this process listens there, and is connected to itself: a relay by its signs
        with socket.create_connection(("::1", port)):
            assert f"proxy [::1]:{port}" in only(forwarders(patient_in(tmp_path, text))).message


def test_a_relay_that_maps_ipv4_into_ipv6_is_found(tmp_path: Path) -> None:
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("this host has no IPv6")
    with (
        socket.create_server(("127.0.0.1", 0)) as ours,
        socket.socket(socket.AF_INET6) as client,
    ):
        port = ours.getsockname()[1]
        client.connect(("::ffff:127.0.0.1", port))
        finding = only(forwarders(patient_in(tmp_path, listening(port))))
        assert f"proxy 127.0.0.1:{port}" in finding.message


@contextmanager
def dnsmasq(folder: Path, *options: str) -> Iterator[int]:
    port = free_port()
    argv = [
        need("dnsmasq"), "--keep-in-foreground", "--no-resolv", "--no-hosts", "--bind-interfaces",
        "--listen-address=127.0.0.1", f"--port={port}", "--user=root", "--pid-file=", *options,
    ]  # fmt: skip
    with (folder / "dnsmasq.log").open("wb") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        until(lambda: accepts(port) or process.poll() is not None, "dnsmasq accepts")
        assert process.poll() is None, (folder / "dnsmasq.log").read_text()
        yield process.pid
    finally:
        end(process)


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def by_dnsmasq(patient_folder: Path, pid: int, port: int) -> list[str]:
    patient = patient_in(patient_folder, listening(port, "do53"), etc=patient_folder)
    return [each.message for each in forwarders(patient) if f"dnsmasq (pid {pid})" in each.message]


def test_a_dnsmasq_that_forwards_to_us_is_named(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "own.conf").write_text(f"# ours\nserver=/corp.example/127.0.0.1#{port}\n")
    none = "--conf-file=/dev/null"
    for options in (
        (none, f"--server=127.0.0.1#{port}"),
        (none, "-S", f"127.0.0.1#{port}@lo"),
        (none, f"-S127.0.0.1#{port}"),
        (f"--conf-file={tmp_path}/own.conf",),
        ("-C", f"{tmp_path}/own.conf"),
    ):
        with dnsmasq(tmp_path, *options) as pid:
            assert len(by_dnsmasq(tmp_path, pid, port)) == 1, options


def test_a_dnsmasq_that_asks_others_is_not_named(tmp_path: Path) -> None:
    port = free_port()
    with dnsmasq(tmp_path, "--conf-file=/dev/null", f"--server=192.0.2.53#{port}") as pid:
        assert by_dnsmasq(tmp_path, pid, port) == []
        (tmp_path / "dnsmasq.d").mkdir()
        (tmp_path / "dnsmasq.d" / "agents.conf").write_text(f"server=127.0.0.1#{port}\n")
        assert len(by_dnsmasq(tmp_path, pid, port)) == 1


@pytest.mark.parametrize(
    ("text", "is_named"),
    [
        ("[Resolve]\nDNS=127.0.0.1:5300\n", True),
        ("[Resolve]\nDNS=192.0.2.1 127.0.0.1:5300#sallyport.internal\n", True),
        ("[Resolve]\nFallbackDNS=127.0.0.9\n", True),
        ("[Resolve]\nDNS=127.0.0.1\n", False),
        ("[Resolve]\n#DNS=127.0.0.1:5300\nDomains=127.0.0.1:5300\n", False),
    ],
)
def test_a_systemd_resolved_that_forwards_to_us_is_named(
    tmp_path: Path, text: str, *, is_named: bool
) -> None:
    folder = tmp_path / "systemd" / "resolved.conf.d"
    folder.mkdir(parents=True)
    (folder / "agents.conf").write_text(text)
    listen = 'listen: {do53: ["127.0.0.1:5300", "127.0.0.9:53"]}\n'
    patient = patient_in(tmp_path, listen, etc=tmp_path, proc=tmp_path / "proc")
    found = [each.message for each in forwarders(patient)]
    assert bool(found) == is_named
    assert all(each.startswith("systemd-resolved is told to forward to us") for each in found)
