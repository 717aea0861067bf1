"""What a person types beside an appliance, and what an agent's clients show of it."""

import contextlib
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

from proxy.control.client import ControlClient
from tests.internet import Internet, until
from tests.live.appliance import Appliance, Folders

LISTEN = """
listen:
  do53: ["127.0.0.1:5300", "127.0.0.1:5301"]
  dot: []
  doh: []
  proxy: ["127.0.0.1:3128", "127.0.0.1:3129"]
  proxy_tls: []
  metrics: ["127.0.0.1:9153"]
"""
APP = """
  {app}:
    identity: [{{listener: "127.0.0.1:{dns}"}}, {{listener: "127.0.0.1:{proxy}"}}]
    {more}
    allow:
      - name: sites
        host: [example.com, "*.example.com", example.org, "*.example.org", {hosts}]
        types: [A, AAAA, TXT]
        ports: [80, 443]
"""
DENIED_S = 5.0  # evidence is on disk within a second, saved files are in force within two
ADDRESS = "93.184.216.34"  # of everything below example.net, outside

type Told = dict[str, object]


def app(name: str, hosts: str, *, dns: int = 5300, proxy: int = 3128, more: str = "") -> str:
    """Return an app that is known by its listeners; `more` is another line of it."""
    return APP.format(app=name, hosts=hosts, dns=dns, proxy=proxy, more=more)


class Shell:
    """A shell in the agent's namespace; the appliance is the one that runs last."""

    def __init__(self, internet: Internet, folders: Folders) -> None:
        self.internet = internet
        self.folders = folders
        runtime = Path(folders.env["XDG_RUNTIME_DIR"], "sallyport")
        self.control = ControlClient(runtime / "control.sock")
        self._env = {**folders.env, "CURL_CA_BUNDLE": str(internet.ca)}

    def configure(self, more: str = "") -> None:
        """Write sallyport.yaml: two listeners of each plane, and `more` keys."""
        ca = self.internet.ca
        self.folders.configure(f"{LISTEN}resolver: {{upstream_ca: {ca}}}\n{more}")

    def typed(self, line: str) -> str:
        """Return what a line shows, whatever its end."""
        ended = self.internet.run(["bash", "-c", f"cd && {line}"], self._env)
        return ended.stdout + ended.stderr

    def ask(self, *names: str, rtype: str = "A", port: int = 5300, tries: int = 4) -> str:
        """Return what kdig shows of look-ups, one after the other; a try takes a second."""
        often = ("+timeout=1", f"+retry={tries - 1}")
        argv = ["kdig", "@127.0.0.1", "-p", str(port), "+edns", *often]
        ended = self.internet.run([*argv, *(word for name in names for word in (name, rtype))])
        return ended.stdout + ended.stderr

    def fetch(self, url: str, port: int = 3128) -> str:
        """Return all that curl shows of a page fetched by the proxy, the heads too."""
        argv = ["curl", "-sSv", "-m", "10", "-x", f"http://127.0.0.1:{port}", url]
        ended = self.internet.run(argv, self._env)
        return ended.stdout + ended.stderr

    def metric(self, name: str) -> int:
        """Return the first sample of the metrics page that begins so."""
        page = self.internet.run(["curl", "-sS", "http://127.0.0.1:9153/metrics"]).stdout
        values = (line.rpartition(" ")[2] for line in page.splitlines() if line.startswith(name))
        return int(float(next(values)))

    @contextlib.contextmanager
    def tunnel(self, host: str, port: int = 3128) -> Iterator[socket.socket]:
        """Open a CONNECT to port 443 of a host."""
        with self.internet.agent.entered():
            client = socket.create_connection(("127.0.0.1", port), 5)
        with client:
            client.sendall(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n".encode())
            client.settimeout(10)
            assert client.recv(4096).startswith(b"HTTP/1.1 200")
            yield client


def is_open(client: socket.socket) -> bool:
    """Say whether the other end still holds the connection; nothing is sent that ends it."""
    client.setblocking(False)
    try:
        return client.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def told(appliance: Appliance, **wanted: object) -> list[Told]:
    """Return the audit lines that say all of this."""
    lines = appliance.audit()
    return [line for line in lines if wanted.items() <= line.items()]


def is_told(appliance: Appliance, facts: Sequence[str], **wanted: object) -> None:
    """Wait until audit says it of each kind of fact."""

    def is_there() -> bool:
        return {line["fact"] for line in told(appliance, **wanted)} >= set(facts)

    until(is_there, f"audit has {wanted} for {facts}", DENIED_S)
