"""From a proof and a request to a certificate; every try is told to audit, good or bad.

A token, an approval or a certificate says which app enrols; the appliance says which SPIFFE IDs
the app has; the request says for which key, and may name one of them.
"""

import binascii
import datetime as dt
import re
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from certs.csr import CSR_OCTETS, Csr, RequestError, authorities, read_request
from certs.errors import CertsError
from certs.svid import IssuedSvid
from proxy.certificates.read import read_svid
from proxy.certificates.svid import Unfit
from proxy.channel import Event
from proxy.errors import BindError, ProxyError
from proxy.issuing.authority import ENROLLED, Authority, Known
from proxy.issuing.refusing import BusyError, DeniedError
from proxy.issuing.tries import Tries
from proxy.limits import Limits
from proxy.tokens.file import TokenFile
from proxy.tokens.known import JoinError
from proxy.wire.credential import Credential
from rules.decision import Reason

_APP = re.compile(r"[a-z0-9-]{1,64}", re.ASCII)
_NOTHING: Mapping[str, str] = {}
_SPACE = re.compile(rb"[ \t\r\n]+")


class RefusedError(ProxyError):
    """An enrolment that is refused: `status` is that of HTTP, the text is for who asked."""

    def __init__(self, status: int, text: str, reason: Reason = Reason.IDENTITY_UNKNOWN) -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason


class Try:
    """One try to enrol: by which way, from where, and for which app as far as that is known."""

    def __init__(self, how: str, peer: str, app: str = "") -> None:
        self.how = how
        self.peer = peer
        self.app = app


class Enrolment:
    """Gives certificates to devices; `tokens` are those that `sallyport app join` made."""

    def __init__(self, authority: Authority, tokens: TokenFile, limits: Limits) -> None:
        self.authority = authority
        self.limits = limits
        self.tries = Tries(limits, authority.wall)
        self._tokens = tokens

    @contextmanager
    def told(self, how: str, peer: str, app: str = "") -> Iterator[Try]:
        """Tell audit of what is refused inside, and answer what a peer with too many gets."""
        attempt = Try(how, peer, app)
        try:
            yield attempt
        except JoinError as error:
            raise self.refuse(RefusedError(401, str(error)), attempt) from None
        except RefusedError as error:
            raise self.refuse(error, attempt) from None

    async def by_token(self, shown: Credential, csr: Csr, attempt: Try) -> IssuedSvid:
        """Return the certificate that a join token is good for, once.

        Raises:
            RefusedError: there is none.
            JoinError: because of the token.
        """
        # RFC 7617: the user is the app.  A Bearer token names its app by itself.
        attempt.app = shown.user
        app = shown.user if shown.scheme == "basic" else None
        wall = self.authority.wall
        try:
            token = await self._tokens.look_up(shown.secret, app, wall())
            attempt.app = token.name
            spiffe_id = await self.choose(token.name, csr)
            # Last of all: a request that could not be met has not used the token up.
            await self._tokens.redeem(shown.secret, token.name, wall())
        except BindError as error:
            self.authority.log.warning("no join token is known: %s", error)
            text = "join tokens cannot be read now: the admin's log says why; try again"
            raise RefusedError(503, text, Reason.INTERNAL_ERROR) from None
        return await self.issue(csr, spiffe_id, attempt)

    async def by_certificate(self, chain: Sequence[bytes], csr: Csr, attempt: Try) -> IssuedSvid:
        """Return the successor of the certificate of a verified `chain`: same name, same key.

        Raises:
            RefusedError: there is none.
        """
        known = await self._held(chain, csr)
        attempt.app = known.app
        ids = await self._ids(known.app)
        if known.spiffe_id in ids:
            return await self.issue(csr, known.spiffe_id, attempt)
        raise RefusedError(403, f"the app {known.app} has this SPIFFE ID no more: ask the admin")

    def authorities(self) -> tuple[bytes, ...]:
        """Return what a device needs to build and verify chains, as DER.

        Raises:
            RefusedError: no intermediate is good now.
        """
        now = dt.datetime.fromtimestamp(self.authority.wall(), dt.UTC)
        try:
            return authorities(self.authority.domain, now)
        except CertsError as error:
            raise RefusedError(503, str(error), Reason.INTERNAL_ERROR) from None

    async def choose(self, app: str, csr: Csr) -> str:
        """Return the SPIFFE ID that `csr` is for: the one it names, else the app's only one.

        Raises:
            RefusedError: the app has none, not this one, or several.
        """
        ids = await self._ids(app)
        if not ids:
            raise RefusedError(
                403, f"the app {app} has no SPIFFE ID: the admin is to write one in its `identity:`"
            )
        if csr.uris:
            if csr.uris[0] not in ids:
                raise RefusedError(403, f"the app {app} does not have the SPIFFE ID asked for")
            return csr.uris[0]
        if len(ids) > 1:
            text = f"the app {app} has several SPIFFE IDs: ask for one of {', '.join(ids)}"
            raise RefusedError(403, text)
        return ids[0]

    async def issue(
        self, csr: Csr, spiffe_id: str, attempt: Try, said: Mapping[str, str] = _NOTHING
    ) -> IssuedSvid:
        """Sign, and tell audit of it.

        Raises:
            RefusedError: it cannot be signed.
        """
        try:
            issued = await self.authority.sign_request(csr, spiffe_id, attempt.app, attempt.how)
        except DeniedError as error:
            raise RefusedError(403, str(error), Reason(error.reason)) from None
        except BusyError as error:
            raise RefusedError(503, str(error), Reason.CAPACITY) from None
        except CertsError as error:
            raise RefusedError(503, str(error), Reason.INTERNAL_ERROR) from None
        detail: dict[str, str | int] = {
            "how": attempt.how,
            "peer": attempt.peer,
            "serial": issued.serial,
            "not_after": issued.not_after,
            "spki_sha256": csr.spki_sha256,
            **said,
        }
        self.authority.event(Event("enrolled", attempt.app, spiffe_id, detail=detail))
        return issued

    def refuse(self, error: RefusedError, attempt: Try) -> RefusedError:
        """Tell audit of a refusal, unless the peer had too many; return what to answer."""
        passed_over = self.tries.refused(attempt.peer)
        if passed_over is None:
            self.at_bound("enroll_refusals")
            each_s = self.limits.enroll_refusals_s
            return RefusedError(429, f"too many refused tries; wait {each_s:g} s", error.reason)
        detail: dict[str, str | int] = {
            "how": attempt.how,
            "peer": attempt.peer,
            "text": str(error),
        }
        if passed_over:
            detail["passed_over"] = passed_over
        app = attempt.app if _APP.fullmatch(attempt.app) else ""
        event = Event("refused", app, app, allowed=False, reason=error.reason, detail=detail)
        self.authority.event(event)
        return error

    def at_bound(self, limit: str, count: int = 1) -> None:
        """Have it counted that a bound was hit."""
        detail: dict[str, str | int] = {"count": count}
        event = Event("bound", "", limit, allowed=False, reason="capacity", detail=detail)
        self.authority.event(event)

    async def _ids(self, app: str) -> tuple[str, ...]:
        if not _APP.fullmatch(app):
            return ()
        try:
            return await self.authority.named(app)
        except ProxyError as error:  # the appliance is busy, or did not answer
            raise RefusedError(503, str(error), Reason.CAPACITY) from None

    async def _held(self, chain: Sequence[bytes], csr: Csr) -> Known:
        """Return what is known of a certificate that may be renewed for `csr`."""
        if not chain:
            raise RefusedError(403, "present the certificate that is to be renewed")
        svid = read_svid(chain)
        if isinstance(svid, Unfit):
            raise RefusedError(403, svid.text)
        serial = int(svid.serial, 16)
        known = await self.authority.known(serial)
        is_ours = chain[-1] in self.authority.domain.anchors
        if known is None or not is_ours or known.spiffe_id != svid.spiffe_id:
            raise RefusedError(403, "this certificate was not issued here: enrol anew")
        if any(each.serial == serial for each in self.authority.revoked_serials()):
            raise RefusedError(403, "this certificate is revoked: ask the admin", Reason.REVOKED)
        if known.how not in ENROLLED:
            # What a workload fetched from its socket is not to outlive its entitlement elsewhere.
            raise RefusedError(403, "this certificate did not come from an enrolment: enrol anew")
        # The identity is bound to the device's key.
        if csr.spki_sha256 != known.spki_sha256:
            raise RefusedError(403, "the request is for another key: renew for the same one")
        # RFC 7030, section 4.2.2: the names MUST be those of the certificate.
        if csr.uris not in {(), (known.spiffe_id,)}:
            raise RefusedError(403, "the request is for another SPIFFE ID than the certificate's")
        return known


def read(der: bytes) -> Csr:
    """Return what a request asks for.

    Raises:
        RefusedError: it is none that is met here.
    """
    try:
        return read_request(der)
    except RequestError as error:
        raise RefusedError(400, str(error), Reason.REQUEST_MALFORMED) from None


def read_base64(octets: bytes) -> bytes:
    """Return the DER that stands in base64, in lines or in one (RFC 8951, section 3.1).

    Raises:
        RefusedError: it is none, or too long.
    """
    try:
        der = b64decode(_SPACE.sub(b"", octets), validate=True)
    except (binascii.Error, ValueError):
        text = "a request is DER in base64, without BEGIN and END"
        raise RefusedError(400, text, Reason.REQUEST_MALFORMED) from None
    if len(der) > CSR_OCTETS:
        text = f"the request has more than {CSR_OCTETS} octets"
        raise RefusedError(413, text, Reason.REQUEST_MALFORMED)
    return der
