"""Agents that attest: an appliance, certificates of its apps, and what an agent does with them.

Each agent has a folder with `svid.pem`, `svid.key` and `ca.pem`, as `sallyport enroll` leaves it.
"""

import asyncio
import contextlib
import functools
import importlib.util
import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from http.client import HTTPSConnection
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType
from typing import Any, Self
from urllib.parse import urlencode

import dns.message
from cryptography import x509
from msgspec import Struct

from tests.internet import Internet, until
from tests.live.appliance import ROOT, Appliance, Folders, keep, running
from tests.live.identity_stand import Desk
from tests.live.legs import Leg, aborting

TRUST = "spiffe://sallyport.internal"
PROXY, PLAIN = "https://localhost:3129", "http://127.0.0.1:3128"
ORIGIN, TUNNEL_PORT = "93.184.215.14", 9000  # example.com of tests.outside
COM, PAGE = "93.184.215.14", "An example"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT, ACCESS = (f"urn:ietf:params:oauth:token-type:{kind}" for kind in ("jwt", "access_token"))
PATIENCE_S = 60.0
WHERE = {"dot": ("-p", "8853"), "doh": ("-p", "8443", "+https")}

type Json = dict[str, Any]


class Answered(Struct, frozen=True):
    """What the API for agents answered."""

    status: int
    content: Any

    @property
    def said(self) -> Json:
        """The content of a call that succeeds."""
        assert self.status == 200, self
        found: Json = self.content
        return found


class Agent:
    """One agent: its folder, and the programs that it runs with what is in there."""

    def __init__(self, stand: "Stand", app: str, folder: Path) -> None:
        self.stand = stand
        self.app = app
        self.folder = folder
        self.chain, self.key, self.ca = (
            folder / name for name in ("svid.pem", "svid.key", "ca.pem")
        )

    @property
    def spiffe_id(self) -> str:
        """Whom its certificate names."""
        return f"{TRUST}/{self.app}"

    @property
    def serial(self) -> str:
        """The serial number of its certificate, in hexadecimal."""
        leaf = x509.load_pem_x509_certificate(self.chain.read_bytes())
        return f"{leaf.serial_number:x}"

    def renew(self) -> Self:
        """Have a new certificate, for a new key, as `sallyport svid` writes it."""
        made = self.stand.desk.control.ask("POST", "/svids", {"spiffe_id": self.spiffe_id})
        for path, text in ((self.chain, made["chain"]), (self.key, made["key"])):
            path.write_text(text)
            path.chmod(0o600)
        return self

    def sallyport(self, command: str, *options: str | Path) -> CompletedProcess[str]:
        """Run `sallyport attest` or `exchange` with what is in the folder."""
        return self.stand.desk.run(command, "--folder", self.folder, "--ca", self.ca, *options)

    def attest(self) -> Json:
        """Attest as docs/examples/sallyport_agent.py does, and return what was answered."""
        with self.stand.internet.agent.entered():
            found: Json = self.module().attest()
        return found

    def module(self) -> Any:
        """Return an agent of docs/examples/sallyport_agent.py."""
        files = map(str, (self.chain, self.key, self.ca))
        return example().Agent(*files, "localhost:8443", str(self.folder / "attester.key"))

    def command(self, *options: str | Path) -> Json:
        """Run `sallyport attest`, and return what was answered."""
        ended = self.sallyport("attest", "--json", *options)
        assert ended.returncode == 0, ended.stderr
        found: Json = json.loads(ended.stdout)
        return found

    def exchange(self, audience: str, scope: str, *options: str | Path) -> str:
        """Return a capability token that `sallyport exchange` gets."""
        wanted = ("--audience", audience, "--scope", scope)
        ended = self.sallyport("exchange", *wanted, *options)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.strip()

    def curl(self, url: str, *options: str | Path, proxy: str = PROXY) -> str:
        """Fetch through the proxy over TLS with the certificate, or through a plain one."""
        shown = ("--proxy-cacert", self.ca, "--proxy-cert", self.chain, "--proxy-key", self.key)
        tls = shown if proxy.startswith("https:") else ()
        argv = ["curl", "-sSi", "--proxy", proxy, *tls, "--cacert", self.stand.internet.ca]
        return self.run(*argv, *options, url)

    def kdig(self, plane: str, name: str = "example.com") -> str:
        """Ask with the certificate."""
        tls = (f"+tls-ca={self.ca}", "+tls-hostname=localhost", "+retry=0", "+time=10")
        shown = (f"+tls-certfile={self.chain}", f"+tls-keyfile={self.key}")
        return self.run("kdig", "@127.0.0.1", *WHERE[plane], "+tls", *tls, *shown, name, "A")

    def doh(self, token: str = "", name: str = "example.com") -> tuple[int, str]:
        """Ask over DoH, with Authorization where there is a token; return status and answer."""
        query = dns.message.make_query(name, "A", use_edns=0)
        query.id = 0
        text = urlsafe_b64encode(query.to_wire()).rstrip(b"=").decode()
        fields = {"Authorization": f"Bearer {token}"} if token else {}
        with self.connected() as connection:
            connection.request("GET", f"/dns-query?dns={text}", headers=fields)
            answer = connection.getresponse()
            octets = answer.read()
        shown = octets.decode(errors="replace")
        if answer.headers["Content-Type"] == "application/dns-message":
            shown = str(dns.message.from_wire(octets))
        return answer.status, shown

    def ask(self, path: str, content: Json | None = None, /, **form: str) -> Answered:
        """Ask the API for agents at the DoH listener: GET, or POST with JSON or a form."""
        with self.connected() as connection:
            if content is not None:
                body, kind = json.dumps(content), "application/json"
                connection.request("POST", path, body, {"Content-Type": kind})
            elif form:
                kind = "application/x-www-form-urlencoded"
                connection.request("POST", path, urlencode(form), {"Content-Type": kind})
            else:
                connection.request("GET", path)
            answer = connection.getresponse()
            text = answer.read()
        return Answered(answer.status, json.loads(text) if text else None)

    def token(self, subject: str, audience: str, scope: str, **more: str) -> Answered:
        """Ask for a capability token (RFC 8693)."""
        form = {"grant_type": EXCHANGE, "subject_token": subject, "subject_token_type": JWT}
        return self.ask("/token", **form | {"audience": audience, "scope": scope} | more)

    def introspect(self, token: str) -> Json:
        """Ask about a token (RFC 7662)."""
        return self.ask("/introspect", token=token).said

    @contextmanager
    def connected(self) -> Iterator[HTTPSConnection]:
        """Return a connection to the DoH listener, closed afterwards."""
        with closing(HTTPSConnection("localhost", 8443, timeout=20, context=self.tls())) as found:
            with self.stand.internet.agent.entered():
                found.connect()
            yield found

    def tls(self) -> ssl.SSLContext:
        """Return TLS that shows the certificate."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.load_cert_chain(self.chain, self.key)
        return context

    def run(self, *argv: str | Path) -> str:
        """Run a program; return all that it says."""
        ended = self.stand.internet.run(argv, env={"HOME": str(self.folder)}, wait_s=60)
        return ended.stdout + ended.stderr

    @contextmanager
    def keeping(self, *options: str | Path, fds: Sequence[int] = ()) -> Iterator["Keeping"]:
        """Run `sallyport attest --keep-fresh`; it is gone afterwards."""
        where = ("--folder", self.folder, "--ca", self.ca, "--keep-fresh", *options)
        argv = [sys.executable, "-P", "-m", "proxy", "attest", *where]
        process = subprocess.Popen(
            self.stand.internet.agent.command(argv),
            env={**self.stand.folders.env, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=fds,
        )
        found = Keeping(process)
        try:
            yield found
        finally:
            if process.poll() is None:
                process.kill()
            found.wait()


class Keeping:
    """A running `sallyport attest --keep-fresh`, and what it says."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.lines: list[str] = []
        self._thread = threading.Thread(
            target=keep, args=(process.stderr or (), self.lines), daemon=True
        )
        self._thread.start()

    def times(self, text: str) -> int:
        """Return in how many lines `text` stands."""
        return sum(text in line for line in self.lines)

    def until(self, text: str, times: int = 1) -> None:
        """Wait until it was said so often."""
        until(lambda: self.times(text) >= times, f"{text}: {self.lines}", PATIENCE_S)

    def end(self) -> int:
        """Send SIGTERM; return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        self.wait()
        return self.process.returncode

    def wait(self) -> None:
        """Wait until it has ended."""
        self.process.wait(PATIENCE_S)
        self._thread.join(PATIENCE_S)
        if self.process.stderr is not None:
            self.process.stderr.close()


class Stand:
    """A running appliance and its agents."""

    def __init__(self, internet: Internet, folders: Folders, appliance: Appliance) -> None:
        self.internet = internet
        self.folders = folders
        self.desk = Desk(internet.agent, folders, appliance)
        self.ca = folders.config / "root.pem"
        self.desk.cli("ca", "export", "--out", self.ca)
        self._agents: dict[str, Agent] = {}

    def use(self, appliance: Appliance) -> None:
        """Go on with another process of the same folders; agents keep what they have."""
        self.desk = Desk(self.internet.agent, self.folders, appliance)

    def agent(self, app: str, name: str = "") -> Agent:
        """Return the agent of an app; those of other names have other keys."""
        name = name or app
        if name not in self._agents:
            folder = self.folders.config / "agents" / name
            folder.parent.mkdir(exist_ok=True)
            folder.mkdir(mode=0o700)
            (folder / "ca.pem").write_bytes(self.ca.read_bytes())
            self._agents[name] = Agent(self, app, folder).renew()
        return self._agents[name]

    def changes(self, change: str, **wanted: object) -> list[Json]:
        """Return the lines of evidence of a change."""
        return self.desk.lines(plane="control", change=change, **wanted)

    def await_change(self, change: str, **wanted: object) -> Json:
        """Wait for such a line, and return the last."""
        until(lambda: bool(self.changes(change, **wanted)), f"audit has {change} {wanted}")
        return self.changes(change, **wanted)[-1]

    def await_word(self, change: str, word: str, after: int) -> Json:
        """Wait for such a line with `word` in what it says, but for the first `after` lines."""

        def found() -> list[Json]:
            return [each for each in self.changes(change)[after:] if word in str(each)]

        until(lambda: bool(found()), f"audit has {change} with {word}")
        return found()[-1]

    def metrics(self) -> dict[str, float]:
        """Return what /metrics shows, by name and labels."""
        page = self.internet.run(["curl", "-sS", "http://127.0.0.1:9153/metrics"]).stdout
        lines = [line.rpartition(" ") for line in page.splitlines() if line[:1] not in {"", "#"}]
        return {name: float(value) for name, _, value in lines}

    @asynccontextmanager
    async def tunnels(self, *agents: Agent) -> AsyncIterator[list[tuple[Leg, Leg]]]:
        """Open a tunnel with each over proxy_tls; yield the two legs of each."""
        met: asyncio.Queue[Leg] = asyncio.Queue()
        async with contextlib.AsyncExitStack() as stack:
            with self.internet.outside.entered():
                listening = socket.create_server((ORIGIN, TUNNEL_PORT))
            server = await asyncio.start_server(
                lambda *ends: met.put_nowait(Leg(*ends)), sock=listening
            )
            await stack.enter_async_context(server)
            ends: list[Leg] = []
            await stack.enter_async_context(aborting(ends))
            opened = []
            for each in agents:
                near = await self._near(each, ends)
                async with asyncio.timeout(PATIENCE_S):
                    far = await met.get()
                ends.append(far)
                opened.append((near, far))
            yield opened

    async def _near(self, agent: Agent, ends: list[Leg]) -> Leg:
        with self.internet.agent.entered():
            sock = socket.create_connection(("127.0.0.1", 3129))
        near = Leg(*await asyncio.open_connection(
            sock=sock, ssl=agent.tls(), server_hostname="localhost"
        ))  # fmt: skip
        ends.append(near)
        authority = b"example.com:%d" % TUNNEL_PORT
        near.writer.write(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (authority, authority))
        async with asyncio.timeout(PATIENCE_S):
            head = await near.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        return near


@functools.cache
def example() -> ModuleType:
    """Return the module of docs/examples/sallyport_agent.py, as it stands there."""
    file = ROOT / "docs" / "examples" / "sallyport_agent.py"
    spec = importlib.util.spec_from_file_location("sallyport_agent", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def standing(internet: Internet, folders: Folders, rules: str, more: str = "") -> Iterator[Stand]:
    """Run an appliance under these rules; `more` goes to its configuration."""
    folders.configure(f"{more}\nresolver: {{upstream_ca: {internet.ca}}}\n")
    folders.rule(rules)
    with running(internet.agent, folders) as appliance:
        yield Stand(internet, folders, appliance)
