"""An appliance with identities: its commands, its issuer, its certificates; and what asks it."""

import contextlib
import socket
import ssl
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from subprocess import CompletedProcess
from urllib.parse import unquote

from cryptography import x509
from msgspec import Struct

from proxy.control.client import ControlClient
from tests.internet import Internet, Namespace, until
from tests.live.appliance import ROOT, Appliance, Folders

RESTART_S = 30.0  # until an issuer that was killed serves again, on a busy host
ORIGIN = "93.184.215.14"  # example.com of tests.outside
NGINX = """
daemon off;
user root;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.error;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen {address}:{port} ssl;
    ssl_certificate {chain};
    ssl_certificate_key {key};
    ssl_client_certificate {anchors};
    ssl_verify_client on;
    ssl_verify_depth 4;
    set $met "$ssl_client_verify $connection $ssl_client_escaped_cert";
    location / {{ return 200 $met; }}
    location /once {{ keepalive_timeout 0; return 200 $met; }}
  }}
}}
"""


class Met(Struct, frozen=True):
    """Whom an origin met: a SPIFFE ID and serial number (hexadecimal), on which connection."""

    spiffe_id: str
    serial: str
    connection: int


def met(page: str) -> Met:
    """Read what the origin of `mutual_origin` answers."""
    verified, connection, pem = page.split()
    assert verified == "SUCCESS"
    leaf = x509.load_pem_x509_certificate(unquote(pem).encode())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    return Met(uri, f"{leaf.serial_number:x}", int(connection))


class Desk:
    """A running appliance in a namespace, and the commands that a person types beside it."""

    def __init__(self, space: Namespace, folders: Folders, appliance: Appliance) -> None:
        self.space = space
        self.folders = folders
        self.appliance = appliance
        runtime = Path(folders.env["XDG_RUNTIME_DIR"], "sallyport")
        self.workload = runtime / "workload.sock"
        self.control = ControlClient(runtime / "control.sock")

    def run(
        self, *arguments: str | Path, space: Namespace | None = None, **env: str
    ) -> CompletedProcess[str]:
        """Run `sallyport`, here or in another namespace."""
        command = [sys.executable, "-P", "-m", "proxy", *arguments]
        where = {"PYTHONPATH": str(ROOT)}
        return (space or self.space).run(command, {**self.folders.env, **where, **env}, 60)

    def cli(self, *arguments: str | Path) -> str:
        """Run a command that is to succeed; return what it printed."""
        ended = self.run(*arguments)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def svid(self, name: str, out: Path) -> Path:
        """Have the certificate of an app, or of a SPIFFE ID, written; return its folder."""
        self.cli("svid", name, "--out", out)
        return out

    def bundle(self, out: Path) -> Path:
        """Write the roots of the trust domain, for others to believe."""
        self.cli("ca", "export", "--identity", "--out", out)
        return out

    def lines(self, **wanted: object) -> list[dict[str, object]]:
        """Return the lines of evidence that say all of this."""
        return [line for line in self.appliance.audit() if wanted.items() <= flat(line).items()]

    def await_line(self, **wanted: object) -> dict[str, object]:
        """Wait for such a line, and return the last."""
        until(lambda: bool(self.lines(**wanted)), f"audit has {wanted}", 5.0)
        return self.lines(**wanted)[-1]

    def issuer(self) -> int | None:
        """Return the issuer's process, where it runs."""
        for tasks in Path(f"/proc/{self.appliance.ready.pid}/task").glob("*/children"):
            for child in tasks.read_text().split():
                with contextlib.suppress(OSError):
                    if b"proxy.issuing.main" in Path(f"/proc/{child}/cmdline").read_bytes():
                        return int(child)
        return None

    def problems(self) -> Mapping[str, str]:
        """Return what `status` says is wrong."""
        found: Mapping[str, str] = self.control.get("/status")["problems"]
        return found


def flat(line: dict[str, object]) -> dict[str, object]:
    """Return a line of evidence with what can be compared."""
    return {key: value for key, value in line.items() if not isinstance(value, list | dict)}


@contextlib.contextmanager
def mutual_origin(
    internet: Internet,
    folder: Path,
    pair: tuple[Path, Path],
    anchors: Path,
    port: int,
) -> Iterator[Path]:
    """Run an nginx that shows `pair` and wants a certificate of `anchors`; yield its folder."""
    folder.mkdir()
    chain, key = pair
    conf = folder / "nginx.conf"
    places = {"folder": folder, "chain": chain, "key": key, "anchors": anchors}
    conf.write_text(NGINX.format(address=ORIGIN, port=port, **places))
    argv: list[str | Path] = ["nginx", "-e", folder / "nginx.error", "-c", conf]
    with internet.outside.started(argv, folder / "nginx.log"):
        until(lambda: internet.outside.accepts(ORIGIN, port), "the origin accepts")
        yield folder


def certified(folder: Path, anchors: Path) -> ssl.SSLContext:
    """Return TLS with the SVID in `folder`, to a peer whose SVID names no host."""
    context = ssl.create_default_context(cafile=str(anchors))
    context.check_hostname = False
    context.load_cert_chain(folder / "svid.pem", folder / "svid.key")
    return context


def shown_at(space: Namespace, port: int, context: ssl.SSLContext) -> x509.Certificate:
    """Return the certificate that a server on loopback shows."""
    with (
        space.entered(),
        socket.create_connection(("127.0.0.1", port), 10.0) as sock,
        context.wrap_socket(sock) as tls,
    ):
        return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")
