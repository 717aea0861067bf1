"""Both ends of real DNS tunnels: iodine's and dns2tcp's, with Unbound and an appliance in between.

    agent:    iodine ------------------------> appliance, 127.0.0.1:53
              dns2tcpc [ -> respelling ] ----> the same
    outside:  Unbound -> iodined, or -> respelling -> dns2tcpd;  behind both an echo server

The clients know no other port than 53.  Each end of iodine has an interface of its own in
10.53.0.0/27; without the tunnel there is no way from one to the other.  Why dns2tcp is spelt anew:
tests/live/respelling.py.
"""

import contextlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec

from proxy.control.client import ControlClient
from tests.internet import UDP, Capture, Internet, Packet, ip, until
from tests.live.appliance import ROOT, Appliance, Folders
from tests.live.respelling import Respelling, spell, unspell

IODINE, DNS2TCP = "iodine.example", "dnstwotcp.example"
UPSTREAM, UPSTREAM_PORT = "198.18.0.1", 5399
IODINED_PORT, RESPELT_PORT, DNS2TCPD_PORT = 5454, 5455, 5456
RESPELLING = "127.0.0.2"  # of the agent's namespace, port 53
ECHO_PORT, LOCAL_PORT = 7007, 7070
INNER, NET, AROUND = "10.53.0.1", "10.53.0.1/27", "10.53.0.0/16"
PIECE_OCTETS = 48  # dns2tcp fills a name to the end: spelt anew it would be too long
WAIT_S = 2.0  # for octets that do not come back
SECRET = "witness"  # noqa: S105 - both ends of a test have it

CONFIG = f"""
listen: {{do53: ["127.0.0.1:53"], dot: [], doh: [], proxy: [], metrics: []}}
resolver: {{upstreams: ["udp://{UPSTREAM}:{UPSTREAM_PORT}"]}}
"""
RULES = f"""
apps:
  agent:
    identity: [{{listener: "127.0.0.1:53"}}]
    detect: {{mode: MODE}}
    allow:
      - name: wild
        host: ["**.{IODINE}", "**.{DNS2TCP}"]
        types: [A, CNAME, KEY, MX, "NULL", SRV, TXT, TYPE65399]
"""
_UNBOUND = f"""
server:
  interface: {UPSTREAM}@{UPSTREAM_PORT}
  access-control: 0.0.0.0/0 allow
  username: ""
  chroot: ""
  directory: "{{folder}}"
  pidfile: ""
  use-syslog: no
  module-config: "iterator"
  do-not-query-localhost: no
  do-ip6: no
  num-threads: 1
  qname-minimisation: no
stub-zone:
  name: "{IODINE}"
  stub-addr: 127.0.0.1@{IODINED_PORT}
stub-zone:
  name: "{DNS2TCP}"
  stub-addr: 127.0.0.1@{RESPELT_PORT}
"""
_DNS2TCPD = f"""
listen = 127.0.0.1
port = {DNS2TCPD_PORT}
user = nobody
chroot = {{folder}}
domain = {DNS2TCP}
key = {SECRET}
resources = echo:127.0.0.1:{ECHO_PORT}
"""


type View = dict[str, object]


class Echo:
    """Sends back what it gets, on every address of a namespace; `octets` came in."""

    def __init__(self, listening: socket.socket) -> None:
        self.octets = 0
        self._listening = listening
        threading.Thread(target=self._accept, daemon=True).start()

    @classmethod
    @contextlib.contextmanager
    def open(cls, world: Internet) -> Iterator["Echo"]:
        with world.outside.entered():
            listening = socket.create_server(("0.0.0.0", ECHO_PORT))
        try:
            yield cls(listening)
        finally:
            with contextlib.suppress(OSError):  # wakes accept(2)
                listening.shutdown(socket.SHUT_RDWR)
            listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while octets := client.recv(65536):
                self.octets += len(octets)
                client.sendall(octets)


def kill(process: "subprocess.Popen[bytes]") -> None:
    """End a client that heeds SIGTERM only when its next question is due."""
    process.kill()
    process.wait()


class Far:
    """The outer ends of both tunnels."""

    def __init__(self, world: Internet, folder: Path, echo: Echo) -> None:
        self.world = world
        self.folder = folder
        self.echo = echo

    @classmethod
    @contextlib.contextmanager
    def open(cls, world: Internet, folder: Path) -> Iterator["Far"]:
        """Start Unbound and the servers; whatever happens, they are gone afterwards."""
        with contextlib.ExitStack() as stack:
            far = cls(world, folder, stack.enter_context(Echo.open(world)))
            (folder / "unbound.conf").write_text(_UNBOUND.format(folder=folder))
            (folder / "dns2tcpd.conf").write_text(_DNS2TCPD.format(folder=folder))
            for argv in far.servers():
                log = folder / f"{argv[0]}.log"
                stack.enter_context(world.outside.started(argv, log))
            until(partial(world.outside.accepts, UPSTREAM, UPSTREAM_PORT), "Unbound accepts")
            for word, name in (("Listening", "iodined.log"), ("Starting", "dns2tcpd.log")):
                until(partial(far.says, name, word), f"{name} has {word}")
            for opened in far.respellings():
                stack.enter_context(opened)
            ip("-n", world.agent.name, "route", "add", "blackhole", AROUND)
            stack.callback(ip, "-n", world.agent.name, "route", "del", "blackhole", AROUND)
            yield far

    def servers(self) -> list[list[str | Path]]:
        """Return the argument vectors of what runs on the far side."""
        iodined = ["iodined", "-f", "-c", "-P", SECRET, "-d", "dnsfar", "-l", "127.0.0.1"]
        return [
            ["unbound", "-d", "-p", "-c", self.folder / "unbound.conf"],
            [*iodined, "-p", str(IODINED_PORT), NET, IODINE],
            ["dns2tcpd", "-F", "-d", "1", "-f", self.folder / "dns2tcpd.conf"],
        ]

    def respellings(self) -> Iterator[contextlib.AbstractContextManager[Respelling]]:
        """Return both ends of what spells dns2tcp's names as those of hosts."""
        inner, outer = self.world.agent, self.world.outside
        zone = DNS2TCP.encode()
        yield Respelling.open(inner, (RESPELLING, 53), ("127.0.0.1", 53), partial(spell, zone))
        near, far = ("127.0.0.1", RESPELT_PORT), ("127.0.0.1", DNS2TCPD_PORT)
        yield Respelling.open(outer, near, far, partial(unspell, zone))

    def says(self, log: str, word: str) -> bool:
        """Say whether a program has written a word."""
        return word in (self.folder / log).read_text(errors="replace")

    @contextlib.contextmanager
    def iodine(self) -> Iterator["subprocess.Popen[bytes]"]:
        """Run the client; downstream fragments have 1000 octets, so that it probes for no size."""
        argv = ["iodine", "-f", "-r", "-m", "1000", "-P", SECRET, "-d", "dnsnear", "127.0.0.1"]
        log = self.folder / "iodine.log"
        with self.world.agent.started([*argv, IODINE], log, stop=kill) as client:
            yield client

    @contextlib.contextmanager
    def dns2tcp(self, server: str) -> Iterator[None]:
        """Run the client, which asks `server` when somebody connects to it."""
        argv = ["dns2tcpc", "-z", DNS2TCP, "-k", SECRET, "-r", "echo", "-l", str(LOCAL_PORT)]
        log = self.folder / "dns2tcpc.log"
        with self.world.agent.started([*argv, "-d", "1", server], log, stop=kill):
            until(partial(self.world.agent.accepts, "127.0.0.1", LOCAL_PORT), "dns2tcpc accepts")
            yield

    def is_near(self) -> bool:
        """Say whether iodine has come so far as to give its end an address."""
        shown = self.world.run(["ip", "-4", "address", "show", "dev", "dnsnear"]).stdout
        return "inet 10.53." in shown

    def carried(self) -> int:
        """Return the octets of all IP packets that came out of iodine so far."""
        argv = ["ip", "-json", "-statistics", "link", "show", "dev", "dnsfar"]
        (shown,) = json.loads(self.world.outside.run(argv).stdout)
        return int(shown["stats64"]["rx"]["bytes"])

    def echoed_in_pieces(self, address: str, port: int, octets: bytes) -> int:
        """Do as `echoed`, a few octets at a time: so that a name has room for them."""
        pieces = [octets[at : at + PIECE_OCTETS] for at in range(0, len(octets), PIECE_OCTETS)]
        came = 0
        with contextlib.suppress(OSError), self._dialled(address, port) as client:
            for piece in pieces:
                client.sendall(piece)
                wanted = came + len(piece)
                while came < wanted and (back := client.recv(65536)):
                    came += len(back)
        return came

    def echoed(self, address: str, port: int, octets: bytes) -> int:
        """Send octets through a tunnel; return how many came back before it broke or stalled."""
        came = 0
        with contextlib.suppress(OSError), self._dialled(address, port) as client:
            client.sendall(octets)
            while came < len(octets) and (back := client.recv(65536)):
                came += len(back)
        return came

    def _dialled(self, address: str, port: int) -> socket.socket:
        """Connect from the agent's side."""
        with self.world.agent.entered():
            return socket.create_connection((address, port), WAIT_S)


class Leak:
    """What left the agent's namespace for a zone, told by the packets to the upstream."""

    def __init__(self, capture: Capture, zone: str) -> None:
        self._capture = capture
        self._zone = zone

    @property
    def names(self) -> list[str]:
        """The distinct sub-names, in order."""
        asked = map(_question, filter(_is_question, self._capture.packets()))
        below = [name.removesuffix(f".{self._zone}") for name in asked if name.endswith(self._zone)]
        return list(dict.fromkeys(below))

    @property
    def octets(self) -> int:
        """All octets of these names, dots left out."""
        return sum(len(name) - name.count(".") for name in self.names)

    @property
    def distinct_octets(self) -> int:
        """What the budget counts: what follows the longest beginning that was seen, and one."""
        seen: set[str] = set()
        total = 0
        for name in self.names:
            key = ".".join(reversed(name.split(".")))
            beginnings = [key[:length] for length in range(1, len(key) + 1)]
            total += 1 + sum(one not in seen and one[-1] != "." for one in beginnings)
            seen.update(beginnings)
        return total


def _is_question(packet: Packet) -> bool:
    return packet.protocol == UDP and (packet.destination, packet.port) == (UPSTREAM, UPSTREAM_PORT)


def _question(packet: Packet) -> str:
    """Return the lower-cased name that is asked for (RFC 1035, section 4.1.2)."""
    message, at, labels = packet.payload, 12, []
    while length := message[at]:
        labels.append(message[at + 1 : at + 1 + length])
        at += 1 + length
    return b".".join(labels).lower().decode("latin-1")


class Desk:
    """The appliance of a test and what a person types beside it."""

    def __init__(self, world: Internet, folders: Folders) -> None:
        self.world = world
        self.folders = folders
        folders.configure(CONFIG)
        runtime = Path(folders.env["XDG_RUNTIME_DIR"], "sallyport")
        self._control = ControlClient(runtime / "control.sock")

    def watch(self, mode: str) -> None:
        """Write the rules, with this mode of the detector."""
        self.folders.rule(RULES.replace("MODE", mode))

    def cli(self, *arguments: str) -> str:
        """Run `sallyport`; it is to succeed.  Return what it printed."""
        argv = [sys.executable, "-P", "-m", "proxy", *arguments]
        env = {**self.folders.env, "PYTHONPATH": str(ROOT)}
        ended = self.world.run(argv, env, wait_s=60)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def is_held(self) -> bool:
        """Say whether anything is held."""
        return any(view["state"] == "held" for view in self._control.ask("GET", "/tunnels"))

    def listed(self, suffix: str) -> View:
        """Return what `tunnels list` shows of a suffix."""
        views = msgspec.json.decode(self.cli("tunnels", "list", "--json"), type=list[View])
        (view,) = [view for view in views if view["suffix"] == suffix]
        return view

    def ask(self, name: str, rtype: str = "TXT") -> str:
        """Return what kdig shows of a look-up."""
        return self.world.run(["kdig", "@127.0.0.1", "+edns", "-t", rtype, name]).stdout


def told(appliance: Appliance, **wanted: object) -> list[dict[str, object]]:
    """Return the audit lines that say all of this."""
    return [
        line
        for line in appliance.audit()
        if all(line.get(key) == value for key, value in wanted.items())
    ]
