"""Envoy's secret discovery service (SDS, xDS v3) for one caller, with the names of SPIRE's agent.

spiffe://TD/PATH     the caller's SVID of this ID    default    his first
spiffe://TD          the roots of a trust domain     ROOTCA     those of ours
ALL                  the roots of every trust domain, for Envoy's SPIFFE validator
no name at all       everything that he may have
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from grpclib.const import Handler, Status
from grpclib.exceptions import GRPCError

from certs.svid import IssuedSvid
from proxy.issuing import messages
from proxy.issuing.answering import Call, read, read_one, streaming, unary
from proxy.issuing.caller import Caller, stirred_within
from proxy.issuing.holding import Holding, deny
from proxy.issuing.issuer import Issuer
from proxy.issuing.refusing import DeniedError
from proxy.issuing.workload import watching

logger = logging.getLogger(__name__)

SERVICE = "/envoy.service.secret.v3.SecretDiscoveryService/"
DEFAULT, ROOTS, ALL = "default", "ROOTCA", "ALL"
HOW = "sds"
_VALIDATOR = "envoy.tls.cert_validator.spiffe"
_MOST_NAMES = 64  # of one request; an Envoy asks for each secret by a stream of its own
_MOST_REQUESTS = 16  # of a stream that wait; xDS sends one for each reply
_SHOWN = 256  # characters of what an agent wrote, in a line of ours


class Secrets:
    """The two methods, for the caller of one connection."""

    def __init__(self, issuer: Issuer, caller: Caller) -> None:
        self._issuer = issuer
        self._caller = caller

    def __mapping__(self) -> dict[str, Handler]:
        """Return the methods by path, as grpclib wants them."""
        return methods(self)

    async def fetch_secrets(self, call: Call) -> None:
        """Answer one request."""
        request = await read_one(call)
        _check(request)
        chosen = Chosen(self._issuer, self._caller)
        _, resources = chosen.of(tuple(request.resource_names))
        await call.send_message(_response("1", "", resources))

    async def stream_secrets(self, call: Call) -> None:
        """Answer requests, and send what was asked for again whenever it changes."""
        stirred = asyncio.Event()
        requests: _Requests = asyncio.Queue(_MOST_REQUESTS)
        reading = asyncio.get_running_loop().create_task(_read_on(call, requests, stirred))
        try:
            with watching(self._issuer, self._caller, stirred):
                await self._serve(call, requests, stirred)
        finally:
            reading.cancel()

    async def _serve(self, call: Call, requests: "_Requests", stirred: asyncio.Event) -> None:
        chosen = Chosen(self._issuer, self._caller)
        stream = _Stream()
        while True:
            while not requests.empty():
                request = requests.get_nowait()
                if request is None:
                    return
                if isinstance(request, GRPCError):
                    raise request
                stream.take(request, self._caller.app)
            if stream.names is not None:
                mark, resources = chosen.of(stream.names)
                if stream.must_send(mark):
                    version = stream.sending(mark)
                    await call.send_message(_response(version, version, resources))
                    continue
            await stirred_within(stirred, chosen.wait_s())


class _Stream:
    """What a client has been sent on one stream, and what it said to it (xDS protocol, ACK)."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] | None = None
        self._is_asked = False
        self._nonce = ""
        self._sent = 0
        self._mark: object = None

    def take(self, request: Any, app: str) -> None:
        """Take a request: the first, an ACK, a NACK, or other names."""
        _check(request)
        if request.response_nonce and request.response_nonce != self._nonce:
            return  # it answers an older response than the last
        names = tuple(request.resource_names)
        if request.error_detail.code or request.error_detail.message:
            # What Envoy could not use is not sent again until it is another.
            why = request.error_detail.message[:_SHOWN]
            logger.info("the Envoy of %s refuses a secret: %r", app, why)
        if names != self.names or not request.response_nonce:
            self._is_asked = True
        self.names = names

    def must_send(self, mark: object) -> bool:
        """Return whether the client wants what `mark` stands for."""
        return self._is_asked or mark != self._mark

    def sending(self, mark: object) -> str:
        """Return the version of the response that is sent now, which is its nonce as well."""
        self._sent += 1
        self._is_asked, self._mark, self._nonce = False, mark, str(self._sent)
        return self._nonce


class Chosen:
    """The secrets that a caller names, as resources."""

    def __init__(self, issuer: Issuer, caller: Caller) -> None:
        self._issuer = issuer
        self._caller = caller
        self._holding = Holding(issuer, caller, HOW)

    def wait_s(self) -> float:
        """Return how long there is nothing to renew, in seconds."""
        return self._holding.wait_s()

    def of(self, names: Sequence[str]) -> tuple[object, list[Any]]:
        """Return what tells this answer from another, and the resources.

        Raises:
            DeniedError: one of the names is not the caller's to ask for.
        """
        ids = self._holding.entitled()
        bundles = self._issuer.bundles
        roots = {f"spiffe://{each}": each for each in bundles.anchors}
        named = tuple(dict.fromkeys(names)) or (*roots, *ids)
        wanted = {each: ids[0] if each == DEFAULT else each for each in named}
        svids = {
            each.spiffe_id: each
            for each in self._holding.svids([each for each in wanted.values() if each in ids])
        }
        resources = []
        for name, what in wanted.items():
            if what in svids:
                resources.append(_certificate(name, svids[what]))
            elif name == ALL:
                resources.append(self._every_root())
            elif name == ROOTS or name in roots:
                resources.append(self._roots(name, roots.get(name, bundles.own_name)))
            else:
                error = DeniedError("no such secret is yours")
                deny(self._issuer, self._caller, error, name[:_SHOWN])
        serials = tuple(each.serial for each in svids.values())
        return (serials, bundles.version, named), resources

    def _roots(self, name: str, trust_domain: str) -> Any:
        secret = messages.Secret(name=name)
        pem = self._issuer.bundles.pem[trust_domain].encode()
        secret.validation_context.trusted_ca.inline_bytes = pem
        return secret

    def _every_root(self) -> Any:
        config = messages.ValidatorConfig()
        for name, pem in self._issuer.bundles.pem.items():
            domain = config.trust_domains.add(name=name)
            domain.trust_bundle.inline_bytes = pem.encode()
        secret = messages.Secret(name=ALL)
        validator = secret.validation_context.custom_validator_config
        validator.name = _VALIDATOR
        validator.typed_config.type_url = messages.VALIDATOR_TYPE
        validator.typed_config.value = config.SerializeToString()
        return secret


def methods(secrets: Any) -> dict[str, Handler]:
    """Return the mapping of grpclib for an object with our methods."""
    request, reply = messages.DiscoveryRequest, messages.DiscoveryResponse
    return {
        f"{SERVICE}StreamSecrets": streaming(secrets.stream_secrets, request, reply),
        f"{SERVICE}FetchSecrets": unary(secrets.fetch_secrets, request, reply),
    }


type _Requests = asyncio.Queue[Any]
"""Requests as they came; an error where one is none, and None at the end."""


async def _read_on(call: Call, requests: _Requests, stirred: asyncio.Event) -> None:
    """Read requests as they come; a client that sends too many waits."""
    request: Any = ...
    while request is not None and not isinstance(request, GRPCError):
        try:
            request = await read(call)
        except GRPCError as error:
            request = error
        await requests.put(request)
        stirred.set()


def _check(request: Any) -> None:
    if request.type_url not in {"", messages.SDS_TYPE}:
        raise GRPCError(Status.INVALID_ARGUMENT, "only secrets are served here")
    if len(request.resource_names) > _MOST_NAMES:
        raise GRPCError(Status.INVALID_ARGUMENT, f"name {_MOST_NAMES} secrets at most")


def _certificate(name: str, svid: IssuedSvid) -> Any:
    secret = messages.Secret(name=name)
    secret.tls_certificate.certificate_chain.inline_bytes = svid.chain_pem.encode()
    secret.tls_certificate.private_key.inline_bytes = svid.key_pem.encode()
    return secret


def _response(version: str, nonce: str, secrets: Sequence[Any]) -> Any:
    response = messages.DiscoveryResponse(
        version_info=version, type_url=messages.SDS_TYPE, nonce=nonce
    )
    for each in secrets:
        response.resources.add(type_url=messages.SDS_TYPE, value=each.SerializeToString())
    return response
