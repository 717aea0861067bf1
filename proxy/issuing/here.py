"""We issue: keys, log, revocations, bundles and listeners of our own trust domain, as a whole."""

import datetime as dt
import socket
from collections.abc import Callable, Collection, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, assert_never

from certs.errors import CertsError
from proxy.certificates.file import RevocationFile
from proxy.certificates.revoked import FILE_NAME, Revocations
from proxy.channel import Challenge, Event, Sign, SignClaims, Signed, SignedClaims, Trust, Verify
from proxy.errors import ProxyError
from proxy.issuing import evidence, issued
from proxy.issuing.caller import Caller
from proxy.issuing.federation import Federation
from proxy.issuing.issued import IssuedLog
from proxy.issuing.issuer import Issuer, Shared
from proxy.issuing.keys import FOLDER, Keys
from proxy.issuing.listeners import Listeners
from proxy.issuing.sds import Secrets
from proxy.issuing.workload import Workload

_ABOUT_LOG = "our log"


class Here:
    """Our own issuer; `open` comes first."""

    def __init__(self, shared: Shared, keys: Keys) -> None:
        self._shared = shared
        self._keys = keys
        self._revocations = Revocations()
        settings = shared.settings
        self._revoked = RevocationFile(Path(settings.state) / FILE_NAME, settings.limits)
        self._log = IssuedLog(
            Path(settings.state) / FOLDER / issued.FILE_NAME, settings.limits.issued_queue
        )
        self._ek_roots = evidence.Roots(settings.attestation.ek_roots)
        self._issuer: Issuer | None = None
        self._listeners: Listeners | None = None

    @property
    def issuer(self) -> Issuer:
        """What issues."""
        if self._issuer is None:
            raise CertsError("the issuer is not open yet: try again")
        return self._issuer

    async def open(self) -> None:
        """Read the keys and the files.

        Raises:
            CertsError: the keys cannot be used.
            ProxyError: a file cannot be.
        """
        now = self._shared.wall()
        rotated = self._keys.ensure(self._now())
        self._issuer = Issuer(self._shared, self._keys.load(), self._log, self._revocations)
        await self._log.open(now)
        self._listeners = Listeners(self._issuer, self._shared.monotonic)
        await self._reread()
        await self._keys.look(self._issuer)  # what could not be made is told from the start
        for what in rotated.made:
            self._issuer.event(Event("rotated", "", what))

    def tasks(self) -> list[Coroutine[Any, Any, None]]:
        """Return what runs for ever."""
        settings = self._shared.settings
        others = settings.identity.federation.items()
        return [
            self._log.keep(self._shared.wall, partial(self._shared.bundles.note, _ABOUT_LOG)),
            self._keys.follow(self.issuer),
            *(
                Federation(name, source, self._shared.bundles, settings.limits).follow()
                for name, source in others
            ),
        ]

    def tell(self, tell: Callable[[Trust], object]) -> None:
        """Tell whom to believe, now and at each change."""
        self._shared.bundles.tell(tell)

    def services(self, caller: Caller) -> Collection[Any]:
        """Return what is served to a workload."""
        return Workload(self.issuer, caller), Secrets(self.issuer, caller)

    def sign(self, asked: Sign) -> Signed:
        """Issue what the appliance presents itself."""
        return self.issuer.sign(asked)

    def answer(self, asked: evidence.Asked) -> evidence.Answered:
        """Verify evidence, or sign what came of it.

        Raises:
            CertsError: it proves nothing, or cannot be signed; the text is for who sent it.
        """
        match asked:
            case Verify():
                return evidence.verified(asked)
            case Challenge():
                return evidence.challenged(asked, self._ek_roots.read(), self._now())
            case SignClaims():
                domain = self.issuer.domain
                return SignedClaims(
                    asked.call, domain.sign_claims(asked.claims, asked.typ, self._now())
                )
            case _:
                assert_never(asked)

    async def look(self) -> None:
        """Take up what has changed on the disk: revocations, and keys."""
        try:
            await self._reread()
        except ProxyError as error:
            self.issuer.log.warning("revocations stay as they were: %s", error)
        await self._keys.look(self.issuer)

    async def serve(self, kind: str, sock: socket.socket, label: str) -> None:
        """Accept on a socket for enrolment or revocation status.

        Raises:
            ProxyError: it cannot be served.
        """
        if self._listeners is not None:
            await self._listeners.serve(kind, sock, label)

    async def close(self) -> None:
        """Close what is open; what was issued is written."""
        if self._listeners is not None:
            await self._listeners.close()
        await self._log.close()

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._shared.wall(), dt.UTC)

    async def _reread(self) -> None:
        self._revocations.use(await self._revoked.read())
        await self.issuer.look()
