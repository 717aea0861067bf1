"""An issuer's surroundings for the listeners: real keys, files, sockets; two apps."""

import asyncio
import datetime as dt
import logging
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from certs import authority as local
from certs.crl import Revoked
from certs.csr import Csr
from certs.domain import ensure_domain, load_domain
from certs.svid import IssuedSvid
from certs.trust_domain import TrustDomain
from proxy.channel import Event
from proxy.config import Locations, Settings, read_config
from proxy.config_identity import IdentitySettings, Oidc
from proxy.issuing.authority import Known
from proxy.issuing.listeners import Listeners
from proxy.limits import Limits
from proxy.tokens.file import FILE_NAME, TokenFile
from proxy.tokens.known import Purpose, Wanted

TRUST_DOMAIN = "desk.example"
CODER = f"spiffe://{TRUST_DOMAIN}/agent/coder"
WRITER = (f"spiffe://{TRUST_DOMAIN}/agent/writer", f"spiffe://{TRUST_DOMAIN}/agent/editor")


class Office:
    """Fulfils `Authority` as the issuer does; what the appliance would say is `apps`."""

    def __init__(self, state: Path, limits: Limits, oidc: Oidc | None = None) -> None:
        now = dt.datetime.now(dt.UTC)
        self.folder = state / "identity"
        ensure_domain(self.folder, TRUST_DOMAIN, now, None)
        local.ensure(state / "ca", ("localhost", "127.0.0.1"), now)
        settings, problems = read_config(None, Locations(str(state), str(state), str(state)))
        assert not problems
        identity = IdentitySettings(trust_domain=TRUST_DOMAIN, oidc=oidc)
        self.settings: Settings = msgspec.structs.replace(
            settings, state=str(state), limits=limits, identity=identity
        )
        self.ca = state / "ca" / "root.pem"
        self.domain: TrustDomain = load_domain(self.folder, None)
        self.log = logging.getLogger("tests.office")
        self.apps: dict[str, tuple[str, ...]] = {"coder": (CODER,), "writer": WRITER}
        self.events: list[Event] = []
        self.issued: dict[int, Known] = {}
        self.void: tuple[Revoked, ...] = ()
        self.ahead_s = 0.0
        self.tokens = TokenFile(state / FILE_NAME, limits, os.urandom)

    def wall(self) -> float:
        return time.time() + self.ahead_s

    async def named(self, app: str) -> tuple[str, ...]:
        await asyncio.sleep(0)
        return self.apps.get(app, ())

    async def sign_request(self, csr: Csr, spiffe_id: str, app: str, how: str) -> IssuedSvid:
        issued = self.domain.issue(spiffe_id, self._now(), 3600, spki=csr.spki)
        self._remember(issued, csr.spki_sha256, app, how)
        return issued

    def workload(self, spiffe_id: str, app: str) -> IssuedSvid:
        """Issue what the Workload API hands out: with a key of ours."""
        issued = self.domain.issue(spiffe_id, self._now(), 3600)
        self._remember(issued, "", app, "workload")
        return issued

    async def known(self, serial: int) -> Known | None:
        return self.issued.get(serial)

    def revoked_serials(self) -> tuple[Revoked, ...]:
        return self.void

    def event(self, event: Event) -> None:
        self.events.append(event)

    async def join(self, app: str, ttl_s: float | None = None) -> str:
        """Return a new join token."""
        wanted = Wanted(name=app, purpose=Purpose.JOIN, ttl_s=ttl_s)
        return (await self.tokens.issue(wanted, self.wall())).secret

    def revoke(self, serial: int, reason: str = "unspecified") -> None:
        self.void = (*self.void, Revoked(serial, self._now(), reason))

    def told(self, change: str) -> list[Event]:
        return [each for each in self.events if each.change == change]

    def _remember(self, issued: IssuedSvid, digest: str, app: str, how: str) -> None:
        serial = int(issued.serial, 16)
        known = Known(serial, issued.spiffe_id, app, digest, issued.not_after, how)
        self.issued[serial] = known

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self.wall(), dt.UTC)


def listening() -> socket.socket:
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


class Served:
    """Where the listeners are."""

    def __init__(self, office: Office, listeners: Listeners, enroll: int, pki: int) -> None:
        self.office = office
        self.listeners = listeners
        self.enroll = enroll
        self.pki = pki

    @property
    def est(self) -> str:
        return f"https://localhost:{self.enroll}/.well-known/est"

    @property
    def plain(self) -> str:
        return f"http://127.0.0.1:{self.pki}"


class Clock:
    """A clock that can be put ahead, and a sleep that takes a fiftieth of what it says."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def now(self) -> float:
        return asyncio.get_running_loop().time() + self.ahead_s

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 50)
        self.ahead_s += seconds * 49 / 50


@asynccontextmanager
async def served(office: Office, clock: Clock | None = None) -> AsyncIterator[Served]:
    """Serve both listeners."""
    clock = clock or Clock()
    listeners = Listeners(office, clock.now, clock.sleep)
    enroll, pki = listening(), listening()
    ports = enroll.getsockname()[1], pki.getsockname()[1]
    try:
        await listeners.serve("enroll", enroll, "enroll")
        await listeners.serve("pki", pki, "pki")
        yield Served(office, listeners, *ports)
    finally:
        await listeners.close()


async def run(*command: str, input_: bytes = b"") -> tuple[int, bytes, bytes]:
    """Run a real peer; return its exit code and what it wrote."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(input_), 30)
    return process.returncode or 0, out, err
