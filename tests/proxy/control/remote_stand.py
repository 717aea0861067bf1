"""The control API over TLS with the real parts: a trust domain, its admins, and who is none."""

import asyncio
import datetime as dt
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, override

from msgspec import Struct

from certs.authority import init
from certs.domain import init_domain, load_domain
from certs.errors import CertsError
from certs.files import ROOT_PEM, SERVER_KEY, SERVER_PEM
from proxy.certificates.known import Certificates
from proxy.certificates.revoked import Kind, Revocation, Revocations
from proxy.certificates.trust import TrustBundles
from proxy.channel import Signed
from proxy.control.admins import Admins
from proxy.control.client import ControlClient
from proxy.control.client import Remote as Place
from proxy.control.identity import Anchor, IdentityState, Issuing
from proxy.control.listener import Control
from proxy.control.place import bind_control
from proxy.control.remote import AdminTls, RemoteControl
from proxy.control.routes import Routes
from proxy.control.status import LastSeen
from proxy.limits import Limits
from proxy.transport.listen import bind_tcp
from tests.proxy.control_stand import Stand

TRUST_DOMAIN = "desk.example"
ALICE = f"spiffe://{TRUST_DOMAIN}/sallyport/admin/alice"
CODER = f"spiffe://{TRUST_DOMAIN}/coder"


class Files(Struct, frozen=True):
    """A certificate with its key, on the disk."""

    cert: Path
    key: Path
    serial: str
    not_after: int


class RemoteStand(Stand):
    """A control stand whose clock is the real one, with a listener for admins elsewhere."""

    def __init__(self, folder: Path, limits: Limits, admins: tuple[str, ...]) -> None:
        super().__init__(folder, limits)
        self.ahead_s = 0.0
        now = dt.datetime.now(dt.UTC)
        self.ca = folder / "ca"
        init(self.ca, ("localhost", "127.0.0.1"), now)
        init_domain(folder / "identity", TRUST_DOMAIN, now, None)
        self.domain = load_domain(folder / "identity", None)
        self.folder = folder
        self.trust = TrustBundles()
        self.revocations = Revocations()
        self.certificates = Certificates(
            self.trust, self.revocations, limits, self.wall, self.metrics.bounds.add
        )
        self.trust.use({TRUST_DOMAIN: self.domain.anchors_pem})
        self.admins = Admins(admins, TRUST_DOMAIN, self.certificates)
        self.tls = AdminTls(self.ca / SERVER_PEM, self.ca / SERVER_KEY, self.trust)
        self.routes = Routes(self.sources, LastSeen(self.metrics))
        self.remote = RemoteControl(self.routes, self.admins, self.tls, limits, self.metrics)
        self.port = 0
        self.looked = 0
        self.issuing = self.made_issuing()

    def made_issuing(self) -> Issuing:
        """Return the trust domain as the appliance would reach it in another process."""
        return Issuing(
            state=lambda: IdentityState(
                trust_domain=TRUST_DOMAIN,
                anchors=(Anchor(trust_domain=TRUST_DOMAIN, sha256="00", not_after=1.0),),
                issuer=True,
                connections=1,
            ),
            look=self.look,
            sign=self.sign,
            bundle=lambda: self.domain.anchors_pem,
            is_admin=self.admins.is_admin,
            is_reserved=self.admins.is_reserved,
        )

    def look(self) -> None:
        self.looked += 1

    async def sign(self, spiffe_id: str, profile: str, ttl_s: int) -> Signed:
        """Issue as the issuer does, here."""
        now = dt.datetime.now(dt.UTC)
        try:
            made = self.domain.issue(spiffe_id, now, ttl_s or 3600, profile=profile)
        except CertsError as error:
            return Signed(0, problem=str(error))
        return Signed(0, made.chain_pem, made.key_pem, made.serial, made.not_after)

    @override
    def wall(self) -> float:
        return time.time() + getattr(self, "ahead_s", 0.0)

    def issued(self, spiffe_id: str = ALICE, profile: str = "admin", name: str = "alice") -> Files:
        """Return a certificate that is good for an hour."""
        made = self.domain.issue(spiffe_id, dt.datetime.now(dt.UTC), 3600, profile=profile)
        paths = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        for path, text in zip(paths, (made.chain_pem, made.key_pem), strict=True):
            path.write_text(text)
        return Files(*paths, made.serial, made.not_after)

    def place(self, files: Files) -> Place:
        url = f"https://127.0.0.1:{self.port}"
        return Place(url, files.cert, files.key, self.ca / ROOT_PEM)

    async def ask_as(self, files: Files, method: str, target: str, content: object = None) -> Any:
        client = ControlClient(self.place(files))
        return await asyncio.to_thread(client.ask, method, target, content)

    async def connect(
        self, files: Files | None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = ssl.create_default_context(cafile=self.ca / ROOT_PEM)
        if files is not None:
            context.load_cert_chain(files.cert, files.key)
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=context)

    def revoke(self, *what: tuple[Kind, str]) -> None:
        self.revocations.use([Revocation(kind, value, self.wall()) for kind, value in what])


@asynccontextmanager
async def serving(
    folder: Path, limits: Limits | None = None, admins: tuple[str, ...] = ()
) -> AsyncIterator[RemoteStand]:
    stand = RemoteStand(folder, limits or Limits(), admins)
    stand.audit.start()
    await stand.tokens.open()
    sock = bind_tcp("127.0.0.1", 0)
    stand.port = sock.getsockname()[1]
    await stand.remote.start(sock, "127.0.0.1:9443")
    stand.control = Control(stand.sources, stand.limits, stand.metrics)
    await stand.control.start(bind_control(stand.path))
    try:
        yield stand
    finally:
        for _ in range(3):  # asyncio itself loses the socket that it accepts while a server closes
            await asyncio.sleep(0)
        await stand.remote.close()
        await stand.control.close()
        await stand.tokens.close()
        await stand.audit.close()
