"""Ten thousand connections that ask nothing: who else asks is served, and all is given back.

The flooder and the honest client are apps of their own, told apart by their uid.  An app that
floods a listener shuts itself out there, which is what its share is for; nobody else.
"""

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct

from proxy.limits import Limits
from tests.internet import Namespace, until
from tests.live.appliance import Appliance, Folders, running

pytestmark = pytest.mark.live

OFFERED = 10_000
HANDSHAKEN = 2_000  # each costs us a handshake as well; 10,000 take a minute, and fare alike
CALM_UID = 65534
GROWTH_MIB = 48  # what a flood may cost; measured 1 to 22
CONFIG = """
listen:
  do53: ["127.0.0.1:5300"]
  dot: ["127.0.0.1:8853"]
  doh: ["127.0.0.1:8443"]
  proxy: ["127.0.0.1:3128"]
  metrics: ["127.0.0.1:9153"]
resolver: {upstreams: ["udp://9.9.9.9:5999"]}
"""
RULES = f"""
apps:
  flooder: {{identity: [{{process: {{uid: 0}}}}]}}
  calm: {{identity: [{{process: {{uid: {CALM_UID}}}}}]}}
"""
AS_CALM = ("setpriv", f"--reuid={CALM_UID}", f"--regid={CALM_UID}", "--clear-groups")
NAME = "not.listed.example.net"
WHY = "http://sallyport.internal/why/0"
LIMITS = Limits()


class Met(Struct):
    """What is read of `status`."""

    bounds: dict[str, int]


class Flood(Struct, frozen=True):
    """What each connection of a flood does, and which bounds stop it; `held` may stay."""

    port: int
    says: bytes
    bounds: tuple[str, ...]
    held: int
    offered: int = OFFERED
    alpn: str = ""  # "": no TLS; then what is said is said in place of a handshake


FLOODS = {
    "do53": Flood(
        5300,
        b"\0",
        ("dns_tcp_connections_per_app", "dns_tcp_idle_s"),
        LIMITS.dns_tcp_connections_per_app,
    ),
    "dot before the handshake": Flood(
        8853, b"\x16\x03\x01", ("tls_handshakes", "tls_handshake_s"), LIMITS.tls_handshakes
    ),
    "doh before the handshake": Flood(
        8443, b"", ("tls_handshakes", "tls_handshake_s"), LIMITS.tls_handshakes
    ),
    "dot": Flood(
        8853,
        b"\0\x20half",
        ("dns_tcp_connections_per_app", "dns_tcp_idle_s"),
        LIMITS.dns_tcp_connections_per_app,
        HANDSHAKEN,
        "dot",
    ),
    "doh": Flood(
        8443,
        b"PRI * HTTP/2.0\r\n",
        ("dns_tcp_connections_per_app", "doh_idle_s"),
        LIMITS.dns_tcp_connections_per_app,
        HANDSHAKEN,
        "h2",
    ),
    "proxy": Flood(
        3128,
        b"GET http://example.com/ HTTP/1.1\r\nHost: exa",
        ("proxy_connections_per_app", "head_s"),
        LIMITS.proxy_connections_per_app,
    ),
    "metrics": Flood(9153, b"GET /met", ("admin_connections",), LIMITS.admin_connections),
    "control": Flood(0, b"GET /sta", ("control_connections",), LIMITS.control_connections),
}


class Stand:
    """The appliance in a namespace of its own, its honest clients, and what it takes."""

    def __init__(self, space: Namespace, appliance: Appliance) -> None:
        self.space = space
        self.appliance = appliance
        self.pid = appliance.ready.pid
        self.control = Path(appliance.folders.env["XDG_RUNTIME_DIR"], "sallyport/control.sock")

    def status(self) -> Met:
        """Ask the control socket, as `sallyport status` does."""
        argv: list[str | Path] = [
            "curl",
            "-sS",
            "--unix-socket",
            self.control,
            "http://localhost/status",
        ]
        shown = self.space.run(argv)
        assert shown.returncode == 0, shown.stderr
        return msgspec.json.decode(shown.stdout, type=Met)

    def bounds(self, names: tuple[str, ...]) -> int:
        met = self.status().bounds
        return sum(met.get(name, 0) for name in names)

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def resident_mib(self) -> float:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) / 1024

    def honest_client_is_served(self) -> None:
        """Ask over each listener, as another app."""
        for port, over in ((5300, "+tcp"), (8853, "+tls"), (8443, "+https")):
            argv = [*AS_CALM, "kdig", "@127.0.0.1", "-p", str(port), over, "+edns", NAME]
            shown = self.space.run(argv)
            assert "host-not-listed" in shown.stdout, (over, shown.stdout, shown.stderr)
        page = self.space.run([*AS_CALM, "curl", "-sS", "-x", "http://127.0.0.1:3128", WHY])
        assert "404" in page.stdout, page
        scraped = self.space.run(["curl", "-sS", "http://127.0.0.1:9153/metrics"])
        assert "sallyport_bounds_total" in scraped.stdout, scraped.stderr


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    if os.geteuid() != 0:
        pytest.skip("needs root to make a network namespace and to be two users")
    folders = Folders(tmp_path_factory.mktemp("slow"))
    folders.configure(CONFIG)
    folders.rule(RULES)
    with Namespace.made("slow") as space, running(space, folders) as appliance:
        made = Stand(space, appliance)
        made.honest_client_is_served()  # modules that are loaded when needed are loaded now
        yield made


def opener(stand: Stand, flood: Flood) -> Callable[[], socket.socket]:
    """Return what opens one connection and leaves it half way."""
    if not flood.port:

        def local() -> socket.socket:
            made = socket.socket(socket.AF_UNIX)
            made.connect(str(stand.control))
            return made

        return local
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([flood.alpn or "h2"])
    context.minimum_version = ssl.TLSVersion.TLSv1_3

    sessions: list[ssl.SSLSession] = []  # resumed, because a full handshake costs us too much

    def connected() -> socket.socket:
        made = socket.create_connection(("127.0.0.1", flood.port), 10)
        if not flood.alpn:
            return made
        wrapped = context.wrap_socket(made, session=sessions[0] if sessions else None)
        if not sessions:
            wrapped.settimeout(0)
            with contextlib.suppress(ssl.SSLWantReadError):
                wrapped.recv(1)  # the ticket follows the handshake
            wrapped.settimeout(10)
            if wrapped.session is not None and wrapped.session.has_ticket:
                sessions.append(wrapped.session)
        return wrapped

    return connected


def begin(stand: Stand, flood: Flood, kept: list[socket.socket]) -> None:
    """Offer ten thousand connections; those that are ended at once stay ours to close."""
    opened = opener(stand, flood)
    with stand.space.entered():
        for _ in range(flood.offered):
            # Refused ones are reset, before or after the first octets.
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                made = opened()
                kept.append(made)
                made.sendall(flood.says)


@pytest.mark.parametrize("kind", FLOODS)
def test_slow_connections_shut_nobody_else_out(stand: Stand, kind: str, report: list[str]) -> None:
    """threats.md, "Parser, transport, cache": ten thousand slow or idle connections."""
    flood = FLOODS[kind]
    descriptors, resident, met = (
        stand.descriptors(), stand.resident_mib(), stand.bounds(flood.bounds)
    )  # fmt: skip
    kept: list[socket.socket] = []
    flooding = threading.Thread(target=begin, args=(stand, flood, kept))
    flooding.start()
    try:
        while flooding.is_alive():
            # The admin alone can reach the control socket: who floods it, floods themselves.
            if kind != "control":
                stand.status()
            stand.honest_client_is_served()
            flooding.join(1.0)  # clients take more of a small machine than the flood does
        stand.honest_client_is_served()  # with all of them open
        grown, held = stand.resident_mib() - resident, stand.descriptors() - descriptors
        refused = stand.bounds(flood.bounds) - met
    finally:
        flooding.join()
        for each in kept:
            each.close()
    report.append(f"slow {kind}: {refused} refused, {held} held, {grown:.1f} MiB more")
    assert refused >= flood.offered - flood.held
    assert held <= flood.held + flood.held // 8 + 16
    assert grown < GROWTH_MIB
    until(lambda: stand.descriptors() <= descriptors, "every descriptor is given back")
    stand.honest_client_is_served()
    assert "Traceback" not in stand.appliance.stderr
