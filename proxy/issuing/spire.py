"""An existing SPIFFE implementation, such as SPIRE, in our issuer's place.

We are a workload of its Workload API then: the stream of our own X.509-SVIDs and of the bundles is
followed for as long as we run.  The Workload API that we serve says where to ask instead.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from grpclib.client import Channel, UnaryStreamMethod
from grpclib.exceptions import GRPCError, StreamTerminatedError

from certs.errors import SpiffeError
from certs.spiffe import parse_id
from certs.svid import IssuedSvid
from proxy.channel import Sign, Signed, Trust
from proxy.control.place import Door, safe_folder
from proxy.errors import ProxyError
from proxy.issuing import messages
from proxy.issuing.workload import HEADER, SERVICE
from proxy.wire.certificate import read_certificate

logger = logging.getLogger(__name__)

_DOOR = Door("identity.workload_api", "socket of SPIRE")
LEAST_S, MOST_S = 1.0, 30.0  # between tries; go-spiffe's client: 1 to 30


class MalformedReplyError(ProxyError):
    """What the socket's other end sent is no answer of a Workload API."""


class Spire:
    """Follows the Workload API at `path`; our `trust_domain` is to be its own."""

    def __init__(self, path: str, trust_domain: str, wall: Callable[[], float]) -> None:
        self._path = path
        self._trust_domain = trust_domain
        self._tell: Callable[[Trust], object] = _nobody
        self._wall = wall
        self._trust = Trust({}, f"nothing has come from {path} yet")
        self._svids: dict[str, IssuedSvid] = {}

    def tell(self, tell: Callable[[Trust], object]) -> None:
        """Call `tell` with whom to believe, now and at each change."""
        self._tell = tell
        tell(self._trust)

    async def follow(self) -> None:
        """Follow it for ever, and try again when it is lost; to be run as a task."""
        wait_s = LEAST_S
        while True:
            came = self._trust.bundles
            try:
                await self._once()
                why = "the stream ended"
            except (OSError, GRPCError, StreamTerminatedError, ProxyError, SpiffeError) as error:
                why = error.message or "" if isinstance(error, GRPCError) else str(error)
            except AssertionError:  # grpclib's, of a message that was cut short
                why = "the stream broke off"
            if self._trust.bundles is not came:
                wait_s = LEAST_S
            self._failed(f"the Workload API at {self._path}: {why}; it is tried again")
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, MOST_S)

    def sign(self, asked: Sign) -> Signed:
        """Return our SVID, where it is the one asked for; another cannot be had here."""
        svid = self._svids.get(asked.spiffe_id)
        if svid is None or asked.profile != "svid":
            ids = ", ".join(self._svids) or "nothing"
            problem = f"{asked.spiffe_id} is not ours to present: SPIRE gave us {ids}"
            return Signed(asked.call, problem=problem)
        if svid.not_after <= self._wall():
            problem = f"the certificate of {asked.spiffe_id} has ended: {self._trust.problem}"
            return Signed(asked.call, problem=problem)
        return Signed(asked.call, svid.chain_pem, svid.key_pem, svid.serial, svid.not_after)

    async def _once(self) -> None:
        channel = Channel(path=_safe(self._path))
        try:
            method: UnaryStreamMethod[Any, Any] = UnaryStreamMethod(
                channel,
                f"{SERVICE}FetchX509SVID",
                messages.X509SVIDRequest,
                messages.X509SVIDResponse,
            )
            async with method.open(metadata={HEADER: "true"}) as stream:
                await stream.send_message(messages.X509SVIDRequest(), end=True)
                async for response in stream:
                    self._take(response)
        finally:
            channel.close()

    def _take(self, response: Any) -> None:
        svids = {each.spiffe_id: _svid(each) for each in response.svids}
        if not svids:
            raise MalformedReplyError("it has no SVID for us: make an entry for our process")
        bundles = {}
        for each in response.svids:
            bundles[parse_id(each.spiffe_id).trust_domain] = _pem(each.bundle)
        for name, anchors in response.federated_bundles.items():
            bundles[parse_id(name).trust_domain] = _pem(anchors)
        self._svids = svids
        self._trust = Trust(bundles, self._misnamed(bundles))
        self._tell(self._trust)

    def _misnamed(self, bundles: dict[str, str]) -> str:
        if self._trust_domain in bundles:
            return ""
        names = ", ".join(bundles)
        return f"{self._path} is of {names}: set `identity.trust_domain` to its trust domain"

    def _failed(self, problem: str) -> None:
        if problem != self._trust.problem:
            logger.warning("%s", problem)
            self._trust = Trust(self._trust.bundles, problem)
            self._tell(self._trust)


def _safe(path: str) -> str:
    """Return where the socket `path` is, links resolved.

    Whoever could put one there, while SPIRE is away, would say whom we believe.

    Raises:
        BindError: others than root and we could.
        OSError: there is none.
    """
    real = Path(path).resolve(strict=True)
    safe_folder(real.parent, _DOOR)
    return str(real)


def _nobody(_: Trust) -> None:
    """Tell nobody."""


def certificates(octets: bytes) -> Iterator[bytes]:
    """Yield the DER certificates that stand one after another in `octets`.

    Raises:
        MalformedReplyError: it is something else.
    """
    while octets:
        # X.690, section 8.1.3: a certificate is a SEQUENCE, whose length takes two octets or three
        size = octets[1] & 0x7F if len(octets) > 1 and octets[0] == 0x30 else 0
        if octets[1:2] > b"\x82" or octets[1:2] < b"\x81":
            raise MalformedReplyError("it sent what is no certificate")
        length = 2 + size + int.from_bytes(octets[2 : 2 + size])
        if length > len(octets):
            raise MalformedReplyError("it sent a part of a certificate")
        yield octets[:length]
        octets = octets[length:]


def _pem(octets: bytes) -> str:
    return "".join(map(ssl.DER_cert_to_PEM_cert, certificates(octets)))


def _svid(message: Any) -> IssuedSvid:
    chain = tuple(certificates(message.x509_svid))
    if not chain or not message.x509_svid_key:
        raise MalformedReplyError("it sent an SVID without a certificate or a key")
    leaf = read_certificate(chain[0])
    return IssuedSvid(
        spiffe_id=message.spiffe_id,
        serial=f"{leaf.serial:x}",
        chain=chain,
        key=message.x509_svid_key,
        not_before=leaf.not_before,
        not_after=leaf.not_after,
    )
