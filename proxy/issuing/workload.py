"""The SPIFFE Workload API (SPIFFE Workload API and Endpoint standards), for one caller.

He gets the SVIDs of his own SPIFFE IDs and the bundles, and is told when they change: when half of
an SVID's life is over, when the rules entitle him to something else, when a bundle is another.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from grpclib.const import Handler, Status
from grpclib.exceptions import GRPCError

from certs.errors import SpiffeError
from certs.jwt_svid import MOST_AUDIENCES
from certs.spiffe import MOST_ID_OCTETS
from proxy.issuing import messages
from proxy.issuing.answering import Call, pushing, read_one, unary
from proxy.issuing.caller import Caller, stirred_within
from proxy.issuing.holding import LOOK_S, Holding, deny, entitled
from proxy.issuing.issuer import Issuer
from proxy.issuing.refusing import DeniedError

HEADER = "workload.spiffe.io"  # Workload Endpoint, section 6: against server-side request forgery
SERVICE = "/SpiffeWorkloadAPI/"
HOW = "workload"
_SHOWN = 256  # characters of what an agent wrote, in an audit line


class Workload:
    """The five methods, for the caller of one connection."""

    def __init__(self, issuer: Issuer, caller: Caller) -> None:
        self._issuer = issuer
        self._caller = caller

    def __mapping__(self) -> dict[str, Handler]:
        """Return the methods by path, as grpclib wants them."""
        return methods(self)

    async def fetch_x509_svid(self, call: Call) -> None:
        """Send the X.509-SVIDs of the caller, and again whenever they change."""
        await _request(call)
        holding = Holding(self._issuer, self._caller, HOW)
        await self._push(call, lambda: self._x509_svids(holding), holding.wait_s)

    async def fetch_x509_bundles(self, call: Call) -> None:
        """Send every bundle's X.509 roots, and again whenever they change."""
        await _request(call)
        await self._push(call, self._x509_bundles, lambda: LOOK_S)

    async def fetch_jwt_bundles(self, call: Call) -> None:
        """Send every bundle's JWT keys, and again whenever they change."""
        await _request(call)
        await self._push(call, self._jwt_bundles, lambda: LOOK_S)

    async def fetch_jwt_svid(self, call: Call) -> None:
        """Send JWT-SVIDs for an audience, of one SPIFFE ID of the caller or of all."""
        request = await _request(call)
        audience = tuple(request.audience)
        if not 0 < len(audience) <= MOST_AUDIENCES or not all(
            0 < len(each) <= MOST_ID_OCTETS for each in audience
        ):  # Workload API, section 6.2.1: it must name one
            raise GRPCError(Status.INVALID_ARGUMENT, f"name 1 to {MOST_AUDIENCES} audiences")
        ids = entitled(self._issuer, self._caller)
        if request.spiffe_id:
            if request.spiffe_id not in ids:
                self._deny(request.spiffe_id)
            ids = (request.spiffe_id,)
        svids = [
            messages.JWTSVID(
                spiffe_id=each, svid=self._issuer.jwt(each, self._caller.app, audience)
            )
            for each in ids
        ]
        await call.send_message(messages.JWTSVIDResponse(svids=svids))

    async def validate_jwt_svid(self, call: Call) -> None:
        """Say what a JWT-SVID says, if it is to be believed."""
        request = await _request(call)
        entitled(self._issuer, self._caller)
        if not request.audience or not request.svid:
            raise GRPCError(Status.INVALID_ARGUMENT, "name the audience, and give the token")
        try:
            claims = self._issuer.check_jwt(request.svid, request.audience)
        except (SpiffeError, DeniedError) as error:  # Workload API, section 6.2.3
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from None
        reply = messages.ValidateJWTSVIDResponse(spiffe_id=claims.spiffe_id)
        try:
            reply.claims.update(claims.all)
        except (ValueError, OverflowError, RecursionError):
            # Python's JSON knows integers, texts and depths that protobuf does not.
            text = "the token has a claim that no answer can hold"
            raise GRPCError(Status.INVALID_ARGUMENT, text) from None
        await call.send_message(reply)

    async def _push(
        self, call: Call, make: Callable[[], tuple[object, Any]], wait_s: Callable[[], float]
    ) -> None:
        """Send what `make` gives, with what tells one from another, and again at each change."""
        sent: object = None
        stirred = asyncio.Event()
        with watching(self._issuer, self._caller, stirred):
            while True:
                mark, message = make()
                if mark != sent:
                    await call.send_message(message)
                    sent = mark
                await stirred_within(stirred, wait_s())

    def _x509_svids(self, holding: Holding) -> tuple[object, Any]:
        bundles = self._issuer.bundles
        svids = holding.svids(holding.entitled())
        mark = (tuple(each.serial for each in svids), bundles.version)
        own = b"".join(bundles.anchors[bundles.own_name])
        response = messages.X509SVIDResponse(
            svids=[
                messages.X509SVID(
                    spiffe_id=each.spiffe_id,
                    x509_svid=b"".join(each.chain),
                    x509_svid_key=each.key,
                    bundle=own,
                )
                for each in svids
            ],
            federated_bundles={
                f"spiffe://{name}": b"".join(anchors)
                for name, anchors in bundles.anchors.items()
                if name != bundles.own_name
            },
        )
        return mark, response

    def _x509_bundles(self) -> tuple[object, Any]:
        entitled(self._issuer, self._caller)
        bundles = self._issuer.bundles
        found = {f"spiffe://{name}": b"".join(each) for name, each in bundles.anchors.items()}
        return bundles.version, messages.X509BundlesResponse(bundles=found)

    def _jwt_bundles(self) -> tuple[object, Any]:
        entitled(self._issuer, self._caller)
        bundles = self._issuer.bundles
        found = {f"spiffe://{name}": each for name, each in bundles.jwt_documents.items()}
        return bundles.version, messages.JWTBundlesResponse(bundles=found)

    def _deny(self, spiffe_id: str) -> None:
        error = DeniedError("this SPIFFE ID is not yours")
        deny(self._issuer, self._caller, error, spiffe_id[:_SHOWN])


@contextlib.contextmanager
def watching(issuer: Issuer, caller: Caller, stirred: asyncio.Event) -> Iterator[None]:
    """Set `stirred` when bundles, revocations or entitlement have changed, meanwhile."""
    with issuer.bundles.watched_by(stirred), caller.watched_by(stirred):
        yield


def methods(workload: Any) -> dict[str, Handler]:
    """Return the mapping of grpclib for an object with our methods."""
    m = messages
    svid, bundles = workload.fetch_x509_svid, workload.fetch_x509_bundles
    jwt, jwt_bundles = workload.fetch_jwt_svid, workload.fetch_jwt_bundles
    found = {
        "FetchX509SVID": pushing(svid, m.X509SVIDRequest, m.X509SVIDResponse),
        "FetchX509Bundles": pushing(bundles, m.X509BundlesRequest, m.X509BundlesResponse),
        "FetchJWTSVID": unary(jwt, m.JWTSVIDRequest, m.JWTSVIDResponse),
        "FetchJWTBundles": pushing(jwt_bundles, m.JWTBundlesRequest, m.JWTBundlesResponse),
        "ValidateJWTSVID": unary(
            workload.validate_jwt_svid, m.ValidateJWTSVIDRequest, m.ValidateJWTSVIDResponse
        ),
    }
    return {SERVICE + name: each for name, each in found.items()}


async def _request(call: Call) -> Any:
    """Return the request of a call that has the security header."""
    metadata = call.metadata
    if metadata is None or metadata.getall(HEADER, []) != ["true"]:
        raise GRPCError(Status.INVALID_ARGUMENT, "security header missing from request")
    return await read_one(call)
