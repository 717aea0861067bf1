"""Identity under load: SVIDs issued, handshakes and requests with certificates, rotation.

`svid` is measured at the Workload API's socket, from the last octet of a request to the last of
its reply; the client's own total, with the library `spiffe`, stands beside it.  The peer of the
handshakes is nginx with the same client certificates: it says "ok" and closes, we answer a query.
"""

import contextlib
import datetime as dt
import os
import statistics
import sys
from pathlib import Path

from msgspec import Struct

from certs.domain import load_domain
from scripts.benches import encrypted, servers
from scripts.benches.ground import ORIGIN, Server, present, run, started
from scripts.benches.ground import SERVER_CPU as CPU
from scripts.benches.planes import Plan, Result, ground, running
from scripts.benches.servers import DOT_PORT, PROXY_PORT, Peer
from scripts.benches.workloads import Client, ask_steadily, latencies, library_latencies

PROXY_TLS_PORT, NGINX_PORT = 3129, 8856
BENCHES = ("svid", "mtls-handshake", "mtls-request", "rotation")
WORKLOADS, TTL_S = 200, 300
SVIDS, LIBRARY_SVIDS = 1000, 200
P50_MS, P99_MS = 3.0, 15.0
REQUEST_US = 5.0
ROUNDS = 3
CORE_PERCENT = 2.0
LEAST_S = 30.0
MODULES = Path("/usr/lib/nginx/modules")
ID = "spiffe://sallyport.internal/bench"


class Certificate(Struct, frozen=True):
    """What a client shows, and whom a server verifies it with."""

    chain: Path
    key: Path
    roots: Path


def measure(plan: Plan, bench: str) -> list[Result]:
    """Run one of `BENCHES`."""
    if bench == "svid":
        return issue(plan)
    if bench == "rotation":
        return rotation(plan)
    return handshakes(plan) if bench == "mtls-handshake" else requests(plan)


def ours(folder: Path, _port: int, identity: str = "") -> list[str | Path]:
    """Return ourselves with every door that knows certificates; `identity` is one more line."""
    argv = servers.ours(folder, DOT_PORT)
    rules = folder / "rules" / "bench.yaml"
    lines = f'{{listener: "127.0.0.1:{PROXY_TLS_PORT}"}}, {{spiffe: "{ID}"}}{identity}'
    rules.write_text(rules.read_text().replace("identity: [", f"identity: [{lines}, "))
    file = folder / "sallyport.yaml"
    said = file.read_text().replace("proxy_tls: []", f'proxy_tls: ["127.0.0.1:{PROXY_TLS_PORT}"]')
    said = said.replace('workload: ""', f'workload: "{socket_of(folder)}"')
    limits = "{svids: 1000000, svids_every_s: 1ms, audit_quota_octets: 1 GiB}"
    file.write_text(f"{said}identity: {{svid_ttl: 5m}}\nlimits: {limits}\n")
    return argv


def ours_with_processes(folder: Path, port: int) -> list[str | Path]:
    """Return ourselves, who know whoever runs the bench as an app."""
    return ours(folder, port, f", {{process: {{uid: {os.getuid()}}}}}")


OURS = Peer("sallyport", sys.executable, DOT_PORT, ours)
OURS_ISSUING = Peer("sallyport", sys.executable, PROXY_PORT, ours_with_processes)


def socket_of(folder: Path) -> Path:
    """Return where the Workload API of our instance in `folder` is."""
    return folder / "runtime" / "workload.sock"


def issue(plan: Plan) -> list[Result]:
    """Return how long an SVID takes."""
    with ground(plan), running(plan, OURS_ISSUING) as us:
        path = socket_of(plan.folder / f"{us.name}-{us.port}")
        with Client(path) as client:
            latencies(client, 50)  # the issuer has just been started
            before = us.cpu_seconds()
            taken = latencies(client, SVIDS)
            used = us.cpu_seconds() - before
        whole = library_latencies(path, LIBRARY_SVIDS)
    p50, p99 = _percentile(taken, 50), _percentile(taken, 99)
    print(
        f"  svid         p50 {p50:.2f} ms, p99 {p99:.2f} ms, worst {taken[-1]:.2f} ms;"
        f" {used / len(taken) * 1e6:,.0f} us of the processor each; the library `spiffe`:"
        f" p50 {_percentile(whole, 50):.2f} ms, p99 {_percentile(whole, 99):.2f} ms",
        file=sys.stderr,
    )
    return [
        Result("svid", "bar: p50", p50, P50_MS, P50_MS / p50, "ms"),
        Result("svid", "bar: p99", p99, P99_MS, P99_MS / p99, "ms"),
        Result("svid", "client's p50", _percentile(whole, 50), p50, p50 / p50, "ms, all of it"),
    ]


def rotation(plan: Plan) -> list[Result]:
    """Return what so many workloads take of a core whose SVIDs live for five minutes."""
    a_second = WORKLOADS / (TTL_S / 2)  # each asks when half of a life is over
    with contextlib.ExitStack() as stack:
        stack.enter_context(ground(plan))
        us = stack.enter_context(running(plan, OURS_ISSUING))
        path = socket_of(plan.folder / f"{us.name}-{us.port}")
        waiting = [stack.enter_context(Client(path)) for _ in range(WORKLOADS)]
        for client in waiting:
            client.ask()  # and the stream stays open, as a workload's does
        client = stack.enter_context(Client(path))
        seconds = max(LEAST_S, plan.seconds)
        before = run_ns(us)
        done = ask_steadily(client, a_second, seconds)
        share = (run_ns(us) - before) / seconds / 1e7
    print(f"  rotation     {done} in {seconds:.0f} s: {share:.2f} % of a core", file=sys.stderr)
    bar = f"bar: {WORKLOADS} at {TTL_S} s"
    return [Result("rotation", bar, share, CORE_PERCENT, CORE_PERCENT / share, "% of a core")]


def handshakes(plan: Plan) -> list[Result]:
    """Hold full handshakes with a client's certificate against nginx."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(ground(plan))
        us = stack.enter_context(running(plan, OURS))
        certificate = certificate_of(plan, us)
        args = certificate.chain, certificate.key
        loads = [(us, ("dns", *args))]
        module = nginx_module()
        if module is None or not present("nginx"):
            print("  mtls-handshake: nginx with its stream module is not here", file=sys.stderr)
            return []
        argv = nginx(plan, module, certificate)
        peer = started("nginx", argv, NGINX_PORT, CPU, plan.folder)
        loads.append((stack.enter_context(peer), ("any", *args)))
        for server, how in loads:
            encrypted.handshakes(plan.folder, server.port, 1.0, *how)
        rounds = [[_rate(plan, *each) for each in loads] for _ in range(plan.rounds)]
    mine, theirs = (statistics.median(figures) for figures in zip(*rounds, strict=True))
    unit = "handshakes a CPU second"
    return [Result("mtls-handshake", "nginx stream", mine, theirs, mine / theirs, unit)]


def requests(plan: Plan) -> list[Result]:
    """Return what a certificate adds to a request on a warm connection."""
    with ground(plan), running(plan, OURS) as us:
        certificate = certificate_of(plan, us)
        proxy = Server(us.name, PROXY_TLS_PORT, us.process)
        bare: tuple[str | Path, ...] = (ORIGIN,)
        shown = (ORIGIN, certificate.chain, certificate.key)
        for how in (bare, shown):
            request_us(plan, proxy, how)
        # More rounds than elsewhere: this is a small difference of two large figures.
        rounds = [
            [request_us(plan, proxy, how) for how in (bare, shown)]
            for _ in range(plan.rounds * ROUNDS)
        ]
    more = statistics.median(with_it - without for without, with_it in rounds)
    without = statistics.median(each[0] for each in rounds)
    print(
        f"  mtls-request {without:.1f} us without, {more:+.1f} us with a certificate",
        file=sys.stderr,
    )
    ratio = REQUEST_US / max(more, 0.1)
    return [Result("mtls-request", "bar: us more", more, REQUEST_US, ratio, "us a request")]


def _rate(plan: Plan, server: Server, how: tuple[str | Path, ...]) -> float:
    before = run_ns(server)
    counted = encrypted.handshakes(plan.folder, server.port, plan.seconds, *how)
    used = (run_ns(server) - before) / 1e9
    print(
        f"  {how[0]!s:12} {server.name:10} {counted.done / counted.seconds:10,.0f} a second"
        f" {counted.done / used:10,.0f} a CPU second  failed {counted.failed}",
        file=sys.stderr,
    )
    if counted.failed * 100 > counted.done:
        raise RuntimeError(f"{server.name}: {counted.failed} failed")
    return counted.done / used


def request_us(plan: Plan, server: Server, how: tuple[str | Path, ...]) -> float:
    """Return what a request on a warm connection takes of the server's processor."""
    before = 0

    def began() -> None:
        nonlocal before
        before = run_ns(server)

    counted = encrypted.warm_requests(plan.folder, server.port, plan.seconds, began, *how)
    used_ns = run_ns(server) - before
    if counted.failed or not counted.done:
        raise RuntimeError(f"{server.name}: {counted.failed} connections failed")
    return used_ns / counted.done / 1000


def run_ns(server: Server) -> int:
    """Return how long the threads of a server's tree have run, finer than its ticks (proc(5))."""
    total = 0
    for pid in server.tree():
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):  # one that ended meanwhile
                total += int(task.read_text().split()[0])
    return total


def certificate_of(plan: Plan, us: Server, below: str = "") -> Certificate:
    """Issue a certificate of the app, or of one `below` its ID, with the keys of our instance."""
    folder = plan.folder / f"{us.name}-{us.port}"
    domain = load_domain(folder / "state" / "identity", None)
    spiffe_id = f"{ID}/{below}" if below else ID
    svid = domain.issue(spiffe_id, dt.datetime.now(dt.UTC), 3600)
    chain, key = folder / f"client{below}.pem", folder / f"client{below}.key"
    files = Certificate(chain, key, folder / "roots.pem")
    texts = svid.chain_pem, svid.key_pem, domain.anchors_pem
    for path, text in zip((files.chain, files.key, files.roots), texts, strict=True):
        path.write_text(text)
    return files


def nginx_module() -> Path | None:
    """Return nginx's module for streams, where it is on this machine."""
    named = os.environ.get("NGINX_STREAM_MODULE")
    path = Path(named) if named else MODULES / "ngx_stream_module.so"
    return path if path.exists() else None


def nginx(plan: Plan, module: Path, certificate: Certificate) -> list[str | Path]:
    """Return nginx with one worker, which verifies clients as we do."""
    cert, key = servers.certificate(plan.folder)
    file = plan.folder / "nginx.conf"
    file.write_text(f"""
load_module {module};
daemon off;
user root;
worker_processes 1;
pid {plan.folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
stream {{
  server {{
    listen 127.0.0.1:{NGINX_PORT} ssl backlog=1024;
    ssl_certificate {cert};
    ssl_certificate_key {key};
    ssl_client_certificate {certificate.roots};
    ssl_verify_client on;
    ssl_verify_depth 3;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_ecdh_curve X25519:prime256v1;
    ssl_session_cache off;
    ssl_session_tickets off;
    return "ok";
  }}
}}
""")
    run("nginx", "-t", "-q", "-c", str(file))
    return ["nginx", "-c", file]


def _percentile(ordered: list[float], which: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * which // 100)]
