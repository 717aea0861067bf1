"""Memory after a little of everything: a query or request to each plane, and one reload."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

from scripts.benches import encrypted, reload, servers
from scripts.benches.ground import ORIGIN, Server, present
from scripts.benches.planes import MIB, Plan, Result, ground, running, warm_up
from scripts.benches.servers import DO53_PORT, DOH_PORT, DOT_PORT, PROXY_PORT, Peer

WAIT_S = 20.0
HERE = "127.0.0.1"
BAR_MIB = 50e6 / MIB
_DNS = (servers.UNBOUND, servers.DNSMASQ)
_HTTP = (servers.SQUID, servers.TINYPROXY, servers.MITMDUMP_FORWARD)


def ours(folder: Path, port: int) -> list[str | Path]:
    """Return ourselves with a listener of each kind."""
    argv = servers.ours(folder, port)
    file = folder / "sallyport.yaml"
    text = file.read_text()
    for absent, there in (
        ("dot: []", f'dot: ["{HERE}:{DOT_PORT}"]'),
        ("doh: []", f'doh: ["{HERE}:{DOH_PORT}"]'),
        ("metrics: []", f'metrics: ["{HERE}:{reload.METRICS_PORT}"]'),
    ):
        text = text.replace(absent, there)
    file.write_text(text)
    rules = folder / "rules" / "bench.yaml"
    more = "".join(f', {{listener: "{HERE}:{each}"}}' for each in (DOT_PORT, DOH_PORT))
    rules.write_text(rules.read_text().replace("}]\n    allow", f"}}{more}]\n    allow"))
    return argv


OURS = Peer("sallyport", sys.executable, DO53_PORT, ours)


def touch(plan: Plan, server: Server) -> None:
    """Ask each plane for something once, and have changed rules read.

    Raises:
        RuntimeError: a plane gave no answer, or the rules were not read in time.
    """
    with socket.create_connection((HERE, DOT_PORT), WAIT_S) as plain:
        _ask(_unverified().wrap_socket(plain), len(reload.QUERY).to_bytes(2) + reload.QUERY)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(WAIT_S)
        asker.connect((HERE, DO53_PORT))
        _ask(asker, reload.QUERY)
    with socket.create_connection((HERE, PROXY_PORT), WAIT_S) as client:
        _ask(client, f"CONNECT {ORIGIN}:443 HTTP/1.1\r\nHost: {ORIGIN}:443\r\n\r\n".encode())
        _ask(client, (plan.folder / "hello").read_bytes())
    _get("--http2", "--insecure", encrypted.uri(DOH_PORT, 0))
    _get("--proxy", f"http://{HERE}:{PROXY_PORT}", f"http://{ORIGIN}/")
    _reload(plan.folder / f"{server.name}-{server.port}" / "rules", server)


def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _ask(client: socket.socket, data: bytes) -> None:
    client.sendall(data)
    if not client.recv(65535):
        raise RuntimeError("no answer")


def _get(*arguments: str) -> None:
    subprocess.run(
        ["curl", "--silent", "--fail", "--max-time", "20", "--output", os.devnull, *arguments],
        check=True,
    )


def _reload(rules: Path, server: Server) -> None:
    file = rules / "bench.yaml"
    file.write_text(file.read_text().replace("8443]", "8443, 9443]"))
    os.kill(server.process.pid, signal.SIGHUP)
    deadline = time.monotonic() + WAIT_S
    while float(reload.scrape()['sallyport_reloads_total{outcome="changed"}']) < 1:
        if time.monotonic() > deadline:
            raise RuntimeError("the rules were not reloaded in time")
        time.sleep(0.2)


def measure(plan: Plan) -> list[Result]:
    """Compare memory: a peer has one plane only, which a little has passed."""
    sizes: dict[str, float] = {}
    with ground(plan):
        with running(plan, OURS) as us:
            touch(plan, us)
            mine = us.resident_octets() / MIB
        for peer in (*_DNS, *_HTTP):
            if not present(peer.command):
                continue
            with running(plan, peer) as server:
                warm_up(plan, "udp-hit" if peer in _DNS else "forward", server)
                sizes[peer.name] = server.resident_octets() / MIB
    rows = [
        Result("rss", name, mine, size, size / mine, "MiB resident") for name, size in sizes.items()
    ]
    return [Result("rss", "bar: 50 MB", mine, BAR_MIB, BAR_MIB / mine, "MiB resident"), *rows]
