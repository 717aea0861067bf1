"""Us and the peers: how each is started, with one worker and its cache on, logs off.

Ours has its defaults, evidence included; only listeners, rules and the upstream are set.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from scripts.benches.ground import ORIGIN_ADDRESS

ROOT = Path(__file__).resolve().parent.parent.parent
MITMDUMP = ROOT / ".venv-capture" / "bin" / "mitmdump"
UPSTREAM_PORT = 5399
DO53_PORT, PROXY_PORT = 5300, 3128
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


def ours(folder: Path, _port: int) -> list[str | Path]:
    """Return ourselves: one app, known by its listeners."""
    (folder / "rules").mkdir(mode=0o755, exist_ok=True)
    (folder / "rules" / "bench.yaml").write_text(f"""
apps:
  bench:
    identity: [{{listener: "127.0.0.1:{DO53_PORT}"}}, {{listener: "127.0.0.1:{PROXY_PORT}"}}]
    allow: [{{host: "*.example.net", ports: [80, 443, 8443]}}]
""")
    file = folder / "sallyport.yaml"
    file.write_text(f"""
listen: {{do53: ["127.0.0.1:{DO53_PORT}"], proxy: ["127.0.0.1:{PROXY_PORT}"], metrics: []}}
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
OURS_HTTP = Peer("sallyport", sys.executable, PROXY_PORT, ours)
UNBOUND = Peer("unbound", "unbound", 5301, unbound_peer)
DNSMASQ = Peer("dnsmasq", "dnsmasq", 5302, dnsmasq_peer)
SQUID = Peer("squid", "squid", 3201, squid_peer)
TINYPROXY = Peer("tinyproxy", "tinyproxy", 3202, tinyproxy_peer)
MITMDUMP_FORWARD = Peer("mitmdump", MITMDUMP, 3203, mitmdump)
MITMDUMP_TUNNEL = Peer("mitmdump", MITMDUMP, 3204, mitmdump_tunnel_peer)
