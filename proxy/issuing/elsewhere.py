"""Another SPIFFE implementation issues: we tell workloads where to ask, and are one of its own."""

import socket
from collections.abc import Callable, Collection, Coroutine
from typing import Any

from grpclib.const import Handler

from proxy.channel import Sign, Signed, Trust
from proxy.errors import BindError
from proxy.issuing import evidence, sds, workload
from proxy.issuing.answering import Call
from proxy.issuing.caller import Caller
from proxy.issuing.refusing import ElsewhereError
from proxy.issuing.spire import Spire

_NO_ATTESTATION = (
    "nothing is attested here while SPIRE issues: the operator takes identity.workload_api away"
)


class Signpost:
    """Refuses every method of the Workload API and SDS, and says where to ask."""

    def __mapping__(self) -> dict[str, Handler]:
        """Return the methods by path, as grpclib wants them."""
        return workload.methods(self) | sds.methods(self)

    async def refuse(self, call: Call) -> None:
        """Say where to ask."""
        del call
        raise ElsewhereError("SPIRE issues here: use its socket")

    fetch_x509_svid = fetch_x509_bundles = fetch_jwt_svid = fetch_jwt_bundles = refuse
    validate_jwt_svid = stream_secrets = fetch_secrets = refuse


class Elsewhere:
    """What `proxy.issuing.here.Here` is, while `spire` issues."""

    def __init__(self, spire: Spire) -> None:
        self._spire = spire

    async def open(self) -> None:
        """Nothing of ours is to be read."""

    def tasks(self) -> list[Coroutine[Any, Any, None]]:
        """Return what runs for ever."""
        return [self._spire.follow()]

    def tell(self, tell: Callable[[Trust], object]) -> None:
        """Tell whom to believe, now and at each change."""
        self._spire.tell(tell)

    def services(self, caller: Caller) -> Collection[Any]:
        """Return what is served to a workload."""
        del caller
        return (Signpost(),)

    def sign(self, asked: Sign) -> Signed:
        """Return our own SVID, where that is what is asked for."""
        return self._spire.sign(asked)

    def answer(self, asked: evidence.Asked) -> evidence.Answered:
        """Refuse: what is signed here nobody could verify by SPIRE's keys."""
        return evidence.unanswered(asked, _NO_ATTESTATION)

    async def look(self) -> None:
        """Nothing of ours can have changed."""

    async def serve(self, kind: str, sock: socket.socket, label: str) -> None:
        """Refuse: there is nothing that we could enrol or vouch for.

        Raises:
            BindError: always.
        """
        del sock
        raise BindError(f"{label} is not served: SPIRE issues here; take listen.{kind} away")

    async def close(self) -> None:
        """Nothing is open."""
