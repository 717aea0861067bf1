"""Real resolvers and authoritative servers on free ports of 127.0.0.1."""

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.authority import PrivateAuthority
from tests.internet import need, until

SERVER = "dns.example"
LARGE_STRINGS = 12  # of 200 octets each: more than a datagram of 1232

ZONE = f"""
$ORIGIN example.
$TTL 300
@ SOA ns hostmaster 1 3600 600 86400 60
@ NS ns
ns A 192.0.2.53
www A 192.0.2.1
www AAAA 2001:db8::1
alias CNAME www
large TXT {" ".join(f'"{"x" * 200}"' for _ in range(LARGE_STRINGS))}
* A 192.0.2.99
"""


def free_port() -> int:
    """Return a port that is free for UDP and TCP, at this moment."""
    with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        stream.bind(("127.0.0.1", 0))
        port: int = stream.getsockname()[1]
        datagrams.bind(("127.0.0.1", port))
        return port


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def _running(program: str, *options: str | Path, folder: Path, port: int) -> Iterator[None]:
    log = folder / f"{program}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [need(program), *options], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            until(
                lambda: process.poll() is not None or _accepts(port),
                f"{program} accepts on port {port}",
            )
            assert process.poll() is None, f"{program} ended: {log.read_text()}"
            yield
        finally:
            process.terminate()
            process.wait(10)


@contextlib.contextmanager
def nsd(folder: Path) -> Iterator[int]:
    """Run NSD with ZONE; yields the port of UDP and TCP."""
    port = free_port()
    (folder / "example.zone").write_text(ZONE)
    configuration = folder / "nsd.conf"
    configuration.write_text(f"""
server:
  ip-address: 127.0.0.1@{port}
  server-count: 1
  username: ""
  chroot: ""
  zonesdir: "{folder}"
  database: ""
  pidfile: "{folder}/nsd.pid"
  xfrdfile: "{folder}/xfrd.state"
  zonelistfile: "{folder}/zone.list"
  rrl-ratelimit: 0
remote-control:
  control-enable: no
zone:
  name: example
  zonefile: example.zone
""")
    with _running("nsd", "-d", "-c", configuration, folder=folder, port=port):
        yield port


@contextlib.contextmanager
def unbound(
    folder: Path, authority: PrivateAuthority, behind: int
) -> Iterator[tuple[int, int, int]]:
    """Run Unbound over the server on port `behind`; yields the ports of Do53, DoT and DoH.

    Its certificate is for SERVER and 127.0.0.1.
    """
    port, dot_port, doh_port = free_port(), free_port(), free_port()
    chain, key = authority.issue([SERVER, "127.0.0.1"])
    configuration = folder / "unbound.conf"
    configuration.write_text(f"""
server:
  interface: 127.0.0.1@{port}
  interface: 127.0.0.1@{dot_port}
  interface: 127.0.0.1@{doh_port}
  tls-port: {dot_port}
  https-port: {doh_port}
  http-endpoint: "/dns-query"
  tls-service-key: "{key}"
  tls-service-pem: "{chain}"
  username: ""
  chroot: ""
  directory: "{folder}"
  pidfile: ""
  use-syslog: no
  module-config: "iterator"
  do-not-query-localhost: no
  do-ip6: no
  num-threads: 1
stub-zone:
  name: "example"
  stub-addr: 127.0.0.1@{behind}
""")
    with _running("unbound", "-d", "-c", configuration, folder=folder, port=dot_port):
        yield port, dot_port, doh_port
