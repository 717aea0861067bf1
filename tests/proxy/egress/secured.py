"""Origins over TLS, a trust domain that names apps, and the contexts that tests hand in."""

import asyncio
import datetime as dt
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from certs.domain import ensure_domain, load_domain
from certs.trust_domain import TrustDomain
from proxy.channel import Signed
from proxy.egress.identity_context import IdentityContexts
from rules.decision import ClientCertificate, SvidCertificate, UpgradeTls
from rules.ruleset import AllowRule
from tests.authority import PrivateAuthority
from tests.internet import need, until
from tests.proxy.egress.world import LOOPBACK, World
from tests.rules.written import allow

DOMAIN = "desk.example"
CODER = f"spiffe://{DOMAIN}/coder"
OTHER = f"spiffe://{DOMAIN}/other"
TTL_S = 3600


def serving(
    authority: PrivateAuthority, *names: str, client_ca: Path | None = None
) -> ssl.SSLContext:
    """Return the context of an origin of these names; `client_ca` makes it ask for certificates."""
    chain, key = authority.issue(names or ("example.com",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    return context


def upgrading(
    ports: tuple[int, ...], certificate: ClientCertificate | None = None, name: str = "up"
) -> AllowRule:
    """Return an allow that upgrades; its host may stand for loopback."""
    upgrade = UpgradeTls(certificate)
    return allow("example.com", id=name, ports=ports, addresses=[LOOPBACK], upgrade=upgrade)


class Domain:
    """A trust domain, and the part of the issuer that signs for the appliance."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.serials: list[str] = []
        self.ttl_s = TTL_S
        self.problem = ""
        self.gate: asyncio.Event | None = None  # answers are held back until it is set
        self.revoked: set[tuple[str, str]] = set()
        self._domain: TrustDomain
        ensure_domain(folder, DOMAIN, self.now(), None)
        self._domain = load_domain(folder, None)

    @property
    def bundle(self) -> Path:
        """The PEM file of its anchors."""
        return self.folder / "bundle.pem"

    def now(self) -> dt.datetime:
        return dt.datetime.now(dt.UTC)

    async def sign(self, spiffe: str) -> Signed:
        self.asked.append(spiffe)
        if self.gate is not None:
            await self.gate.wait()
        if self.problem:
            return Signed(1, problem=self.problem)
        svid = self._domain.issue(spiffe, self.now(), self.ttl_s)
        self.serials.append(svid.serial)
        return Signed(1, svid.chain_pem, svid.key_pem or "", svid.serial, svid.not_after)

    def contexts(
        self, anchors: Path, wall: Callable[[], float] = time.time
    ) -> Callable[[World], IdentityContexts]:
        """Return what makes the contexts of a world, whose origins `anchors` verify."""
        return lambda world: IdentityContexts(
            world.limits, world.metrics, wall, anchors, self.sign, self.is_revoked
        )

    def is_revoked(self, app: str, spiffe: str) -> bool:
        return (app, spiffe) in self.revoked


def trusting(anchors: Path) -> Callable[[World], IdentityContexts]:
    """Return what makes the contexts of a world without an issuer."""
    return lambda world: IdentityContexts(world.limits, world.metrics, time.time, anchors)


def svid(spiffe: str = CODER) -> SvidCertificate:
    return SvidCertificate(spiffe)


class Nginx:
    """nginx at one address, which wants a certificate of `client_ca`."""

    def __init__(
        self, folder: Path, authority: PrivateAuthority, client_ca: Path, where: str
    ) -> None:
        chain, key = authority.issue(["example.com"])
        self._config = folder / "nginx.conf"
        self._config.write_text(f"""
            daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
            events {{ worker_connections 64; }}
            http {{
                access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
                fastcgi_temp_path {folder}/fcgi; uwsgi_temp_path {folder}/uwsgi;
                scgi_temp_path {folder}/scgi;
                server {{
                    listen {where} ssl;
                    ssl_certificate {chain}; ssl_certificate_key {key};
                    ssl_client_certificate {client_ca}; ssl_verify_client on; ssl_verify_depth 3;
                    location / {{
                        return 200 "$ssl_client_serial $connection $http_host $ssl_server_name";
                    }}
                }}
            }}
        """)
        self._pid = folder / "nginx.pid"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start it."""
        argv = [need("nginx"), "-c", str(self._config), "-e", "stderr"]
        self._process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
        until(lambda: self._pid.exists() and bool(self._pid.read_text()), "nginx")
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait()


@contextmanager
def refusing(authority: PrivateAuthority, client_ca: Path, where: str) -> Iterator[None]:
    """Run OpenSSL's own server at `where`, which ends connections without a certificate."""
    chain, key = authority.issue(["example.com"])
    argv = [
        need("openssl"), "s_server", "-accept", where, "-cert", str(chain), "-key", str(key),
        "-CAfile", str(client_ca), "-Verify", "3", "-verify_return_error", "-quiet",
    ]  # fmt: skip
    null = subprocess.DEVNULL
    process = subprocess.Popen(argv, stdin=null, stdout=null, stderr=null)
    host, _, port = where.rpartition(":")
    try:
        until(lambda: _accepts(host, int(port)), "openssl s_server")
        yield
    finally:
        process.terminate()
        process.wait()


def _accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port)).close()
    except OSError:
        return False
    return True
