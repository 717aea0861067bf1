"""Us and the peers: how each is started, with one worker and its cache on, logs off.

Ours has its defaults, evidence included; only listeners, rules and the upstream are set.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from scripts.benches.ground import ORIGIN_ADDRESS, run

ROOT = Path(__file__).resolve().parent.parent.parent
MITMDUMP = ROOT / ".venv-capture" / "bin" / "mitmdump"
UPSTREAM_PORT = 5399
DO53_PORT, DOT_PORT, DOH_PORT, PROXY_PORT = 5300, 8853, 8843, 3128
NAMES = 1000

type Configure = Callable[[Path, int], list[str | Path]]


class Peer(Struct, frozen=True):
    """A program of the same trade, and how it is started."""

    name: str
    command: str | Path
    port: int
    configure: Configure


def upstream(folder: Path) -> list[str | Path]:
    """Return the resolver that everybody asks on a miss: it holds the names itself."""
    names = [f"h{number:03}" for number in range(NAMES)] + ["origin"]
    data = "".join(
        f'  local-data: "{name}.example.net. 3600 IN A {ORIGIN_ADDRESS}"\n' for name in names
    )
    return unbound(folder, "upstream", UPSTREAM_PORT, f"  local-zone: example.net. static\n{data}")


def ours(folder: Path, port: int) -> list[str | Path]:
    """Return ourselves: one app, known by its listeners; with TLS where that is what is asked."""
    dot = [f"127.0.0.1:{DOT_PORT}"] if port == DOT_PORT else []
    doh = [f"127.0.0.1:{DOH_PORT}"] if port == DOH_PORT else []
    listeners = [f"127.0.0.1:{DO53_PORT}", f"127.0.0.1:{PROXY_PORT}", *dot, *doh]
    identity = ", ".join(f'{{listener: "{label}"}}' for label in listeners)
    (folder / "rules").mkdir(mode=0o755, exist_ok=True)
    (folder / "rules" / "bench.yaml").write_text(f"""
apps:
  bench:
    identity: [{identity}]
    allow: [{{host: "*.example.net", ports: [80, 443, 8443]}}]
    detect: {{mode: observe}}  # a thousand names below one suffix are what a tunnel has
""")
    file = folder / "sallyport.yaml"
    file.write_text(f"""
listen:
  do53: ["127.0.0.1:{DO53_PORT}"]
  dot: {dot}
  doh: {doh}
  proxy: ["127.0.0.1:{PROXY_PORT}"]
  metrics: []
  control: ""
  proxy_tls: []
  workload: ""
resolver: {{upstreams: ["udp://127.0.0.1:{UPSTREAM_PORT}"]}}
rules: ["{folder}/rules"]
state: "{folder}/state"
""")
    return [sys.executable, "-m", "proxy", "up", "--config", file]


def unbound(folder: Path, name: str, port: int, more: str) -> list[str | Path]:
    """Return Unbound with one thread."""
    file = folder / f"{name}.conf"
    file.write_text(f"""
server:
  interface: 127.0.0.1@{port}
  access-control: 127.0.0.0/8 allow
  num-threads: 1
  module-config: "iterator"
  minimal-responses: yes
  do-not-query-localhost: no
  username: ""
  chroot: ""
  pidfile: ""
  directory: "{folder}"
  use-syslog: no
{more}""")
    return ["unbound", "-d", "-p", "-c", file]


def unbound_peer(folder: Path, port: int) -> list[str | Path]:
    """Return Unbound as a cache that refuses one zone."""
    forward = f'forward-zone:\n  name: "."\n  forward-addr: 127.0.0.1@{UPSTREAM_PORT}\n'
    return unbound(folder, "unbound", port, f"  local-zone: refused.example. static\n{forward}")


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for a peer, with a key like ours; return both files."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    run("openssl", "req", "-x509", *kind, *subject, "-keyout", str(key), "-out", str(cert))
    return cert, key


def unbound_dot_peer(folder: Path, port: int) -> list[str | Path]:
    """Return Unbound as a cache that speaks TLS."""
    cert, key = certificate(folder)
    forward = f'forward-zone:\n  name: "."\n  forward-addr: 127.0.0.1@{UPSTREAM_PORT}\n'
    tls = f'  tls-port: {port}\n  tls-service-key: "{key}"\n  tls-service-pem: "{cert}"\n'
    return unbound(folder, "unbound", port, f"{tls}  incoming-num-tcp: 1000\n{forward}")


def dnsdist_dot_peer(folder: Path, port: int) -> list[str | Path]:
    """Return dnsdist with its packet cache."""
    cert, key = certificate(folder)
    file = folder / "dnsdist.conf"
    file.write_text(f"""
setLocal("127.0.0.1:{port + 100}")
addTLSLocal("127.0.0.1:{port}", "{cert}", "{key}")
newServer({{address="127.0.0.1:{UPSTREAM_PORT}"}}):setUp()
getPool(""):setCache(newPacketCache(10000))
""")
    return ["dnsdist", "--supervised", "--disable-syslog", "-C", file]


def unbound_doh_peer(folder: Path, port: int) -> list[str | Path]:
    """Return Unbound as a cache that speaks HTTP/2."""
    cert, key = certificate(folder)
    forward = f'forward-zone:\n  name: "."\n  forward-addr: 127.0.0.1@{UPSTREAM_PORT}\n'
    tls = f'  https-port: {port}\n  tls-service-key: "{key}"\n  tls-service-pem: "{cert}"\n'
    more = "  http-max-streams: 1000\n  incoming-num-tcp: 1000\n"
    return unbound(folder, "unbound", port, f"{tls}{more}{forward}")


def dnsdist_doh_peer(folder: Path, port: int) -> list[str | Path]:
    """Return dnsdist with its packet cache."""
    cert, key = certificate(folder)
    file = folder / "dnsdist.conf"
    file.write_text(f"""
setLocal("127.0.0.1:{port + 100}")
addDOHLocal("127.0.0.1:{port}", "{cert}", "{key}", "/dns-query")
newServer({{address="127.0.0.1:{UPSTREAM_PORT}"}}):setUp()
getPool(""):setCache(newPacketCache(10000))
""")
    return ["dnsdist", "--supervised", "--disable-syslog", "-C", file]


def dnsmasq_peer(_folder: Path, port: int) -> list[str | Path]:
    """Return dnsmasq as a cache that refuses one zone."""
    return [
        *("dnsmasq", "--no-daemon", "--no-resolv", "--no-hosts", "--conf-file=/dev/null"),
        *("--user=root", "--bind-interfaces", "--listen-address=127.0.0.1", f"--port={port}"),
        *("--cache-size=10000", f"--server=127.0.0.1#{UPSTREAM_PORT}", "--dns-forward-max=2000"),
        "--address=/refused.example/",
    ]


def squid_peer(folder: Path, port: int) -> list[str | Path]:
    """Return Squid with one worker and nothing kept."""
    file = folder / "squid.conf"
    file.write_text(f"""
http_port 127.0.0.1:{port}
http_access allow all
cache deny all
access_log none
cache_log /dev/null
cache_store_log none
memory_cache_shared off
cache_effective_user proxy
pid_filename none
coredump_dir /tmp
dns_nameservers 127.0.0.1
hosts_file /etc/hosts
shutdown_lifetime 1 seconds
""")
    return ["squid", "-N", "-f", file]


def tinyproxy_peer(folder: Path, port: int) -> list[str | Path]:
    """Return tinyproxy as it comes, but quiet."""
    file = folder / "tinyproxy.conf"
    file.write_text(
        f"Port {port}\nListen 127.0.0.1\nMaxClients 2000\nLogLevel Critical\nAllow 127.0.0.1\n"
    )
    return ["tinyproxy", "-d", "-c", file]


def mitmdump(folder: Path, port: int, *more: str) -> list[str | Path]:
    """Return mitmdump without a script."""
    return [
        *(MITMDUMP, "-q", "--listen-host", "127.0.0.1", "-p", str(port)),
        *("--set", f"confdir={folder}/mitmproxy", "--set", "connection_strategy=lazy"),
        *("--set", "stream_large_bodies=1m", "--set", "store_streamed_bodies=false"),
        *("--flow-detail", "0", *more),
    ]


def mitmdump_tunnel_peer(folder: Path, port: int) -> list[str | Path]:
    """Return mitmdump that looks into no tunnel, which is what it can do fastest."""
    return mitmdump(folder, port, "--ignore-hosts", ".*")


OURS_DNS = Peer("sallyport", sys.executable, DO53_PORT, ours)
OURS_DOT = Peer("sallyport", sys.executable, DOT_PORT, ours)
OURS_DOH = Peer("sallyport", sys.executable, DOH_PORT, ours)
OURS_HTTP = Peer("sallyport", sys.executable, PROXY_PORT, ours)
UNBOUND = Peer("unbound", "unbound", 5301, unbound_peer)
UNBOUND_DOT = Peer("unbound", "unbound", 8854, unbound_dot_peer)
DNSDIST_DOT = Peer("dnsdist", "dnsdist", 8855, dnsdist_dot_peer)
UNBOUND_DOH = Peer("unbound", "unbound", 8844, unbound_doh_peer)
DNSDIST_DOH = Peer("dnsdist", "dnsdist", 8845, dnsdist_doh_peer)
DNSMASQ = Peer("dnsmasq", "dnsmasq", 5302, dnsmasq_peer)
SQUID = Peer("squid", "squid", 3201, squid_peer)
TINYPROXY = Peer("tinyproxy", "tinyproxy", 3202, tinyproxy_peer)
MITMDUMP_FORWARD = Peer("mitmdump", MITMDUMP, 3203, mitmdump)
MITMDUMP_TUNNEL = Peer("mitmdump", MITMDUMP, 3204, mitmdump_tunnel_peer)
