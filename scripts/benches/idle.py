"""What an open tunnel costs in memory, once it has carried one request and rests."""

import contextlib
import resource
import socket

from scripts.benches import servers
from scripts.benches.ground import ORIGIN, Server, present
from scripts.benches.planes import Plan, Result, ground, running, warm_up

FIRST, TUNNELS = 100, 1000  # the first ones fill what is allocated once
ANSWER_OCTETS = 1024
GOAL_KIB = 5.0
KIB = 1024


def measure(plan: Plan) -> list[Result]:
    """Return growth in KiB per idle tunnel, beside the goal, Squid and tinyproxy."""
    files = 2 * (FIRST + TUNNELS)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(files, 4096), most), most))
    hello = (plan.folder / "hello").read_bytes()
    peers = [peer for peer in (servers.SQUID, servers.TINYPROXY) if present(peer.command)]
    sizes: dict[str, float] = {}
    with ground(plan):
        for peer in (servers.OURS_HTTP, *peers):
            with running(plan, peer) as server:
                warm_up(plan, "connect", server)
                sizes[peer.name] = growth_kib(server, hello)
    mine = sizes.pop("sallyport")
    theirs = {"bar": GOAL_KIB, **sizes}
    return [
        Result("idle-tunnel", name, mine, size, size / mine, "KiB resident a tunnel")
        for name, size in theirs.items()
    ]


def growth_kib(server: Server, hello: bytes) -> float:
    """Return by how much `TUNNELS` more open tunnels make the server grow, for each."""
    with contextlib.ExitStack() as stack:
        for _ in range(FIRST):
            stack.enter_context(tunnel(server.port, hello))
        before = server.resident_octets()
        for _ in range(TUNNELS):
            stack.enter_context(tunnel(server.port, hello))
        return max(server.resident_octets() - before, 1) / TUNNELS / KIB


def tunnel(port: int, hello: bytes) -> socket.socket:
    """Return a tunnel to the origin that has carried one answer."""
    client = socket.create_connection(("127.0.0.1", port))
    where = f"{ORIGIN}:443"
    client.sendall(f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n\r\n".encode())
    if b" 200 " not in client.recv(65536):
        raise RuntimeError("no tunnel")
    client.sendall(hello)
    left = ANSWER_OCTETS
    while left > 0:
        left -= len(client.recv(65536))
    return client
