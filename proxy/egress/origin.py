"""One connection to an origin: it carries one exchange at a time and rests in the pool between."""

import asyncio
from collections.abc import Callable
from typing import Protocol, cast, override

from msgspec import Struct

from proxy.egress.deadlines import Deadlines
from proxy.wire.head import ALT_SVC
from proxy.wire.section import SectionMemory
from rules.address import Address
from rules.decision import UpgradeTls, upgraded_port
from rules.facts import Principal
from rules.name import DomainName


class OriginKey(Struct, frozen=True):
    """Whose connection to which origin: never shared across principals or host names.

    With `secure` it is over TLS, and presents that certificate to nobody else.  `port` is the
    one that was asked for.
    """

    principal: Principal
    host: DomainName | Address
    port: int
    secure: UpgradeTls | None = None

    @property
    def dialled(self) -> int:
        """The port that is dialled."""
        return self.port if self.secure is None else upgraded_port(self.port)


class Replay(Struct, frozen=True):
    """The head of the last response, `octets`, which was sent on as `written`.

    It answered `method`, of a client's connection that stays.  `length` is that of its content,
    and `is_persistent` whether the origin's connection stays.
    """

    octets: bytes
    written: bytes
    method: str
    length: int
    is_persistent: bool


class Receiver(Protocol):
    """Who uses the connection just now."""

    def receive(self, data: bytes) -> None:
        """Take octets of the origin."""

    def origin_ended(self) -> None:
        """The origin sends no more, in good order."""

    def origin_lost(self) -> None:
        """The connection is gone."""

    def origin_full(self) -> None:
        """The origin does not read as fast as we write."""

    def origin_ready(self) -> None:
        """The origin may be written to again."""

    def origin_late(self) -> None:
        """The time limit that was set on the origin has passed."""


class OriginConnection(asyncio.Protocol):
    """A connection to the `address` that was decided on for the host of `key`.

    `forget` is called when the connection is lost while nobody uses it.  With `is_brief` it is
    about to be given up to a tunnel, and has no limits in time unless it comes back.
    """

    __slots__ = (
        "_deadlines",
        "_forget",
        "_is_brief",
        "address",
        "address_text",
        "born",
        "chain",
        "deadline",
        "early",
        "failure",
        "grounds",
        "key",
        "last",
        "memory",
        "receiver",
        "rested",
        "transport",
    )  # fmt: skip

    def __init__(
        self,
        deadlines: Deadlines,
        forget: "Callable[[OriginConnection], None]",
        key: OriginKey,
        address: Address,
        address_text: str,
        *,
        is_brief: bool = False,
    ) -> None:
        self.key = key
        self.address = address
        self.address_text = address_text
        self.receiver: Receiver | None = None
        self.rested = False  # it was in the pool: the origin may have closed it meanwhile
        self.memory: SectionMemory | None = None if is_brief else SectionMemory(ALT_SVC)
        self.last: Replay | None = None
        self.chain: tuple[DomainName, ...] = ()  # the aliases that led to its address
        self.grounds: object = None  # on which its address was allowed for its key
        self.early = b""  # what came before anybody used the connection
        self.failure: Exception | None = None  # why it was lost, if not in good order
        self.deadline = float("inf")
        self.born = 0.0
        self._deadlines = deadlines
        self._forget = forget
        self._is_brief = is_brief
        self.transport: asyncio.Transport

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        self.transport = cast("asyncio.Transport", transport)
        if not self._is_brief:
            self.born = asyncio.get_running_loop().time()
            self._deadlines.add(self)

    @override
    def data_received(self, data: bytes) -> None:
        if self.receiver is not None:
            self.receiver.receive(data)
        elif self.rested or self.transport.is_closing():
            self.transport.abort()  # octets that nobody asked for: a response to smuggle in
        else:  # dialled a moment ago, for a tunnel perhaps, where the server may speak first
            self.early += data
            self.transport.pause_reading()

    @override
    def eof_received(self) -> bool:
        if self.receiver is not None:
            self.receiver.origin_ended()
        return False

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.failure = exc
        self._deadlines.discard(self)
        if self.receiver is None:
            self._forget(self)
        else:
            self.receiver.origin_lost()

    @override
    def pause_writing(self) -> None:
        if self.receiver is not None:
            self.receiver.origin_full()

    @override
    def resume_writing(self) -> None:
        if self.receiver is not None:
            self.receiver.origin_ready()

    @property
    def is_busy(self) -> bool:
        """Whether it carries an exchange."""
        return self.receiver is not None

    def expired(self, now: float) -> None:  # noqa: ARG002 - every limit acts alike
        """Tell who waits; an idle connection just ends."""
        self.deadline = float("inf")
        if self.receiver is None:
            self.transport.abort()
        else:
            self.receiver.origin_late()

    def end(self) -> None:
        """End at once."""
        self.transport.abort()

    def leave(self) -> asyncio.Transport:
        """Give the transport up to another protocol."""
        if not self._is_brief:
            self._deadlines.discard(self)
        self.receiver = None
        if self.early:
            self.transport.resume_reading()
        return self.transport

    def come_back(self) -> None:
        """Take the transport that was given up."""
        if self._is_brief:
            self._is_brief = False
            self.born = asyncio.get_running_loop().time()
            self.memory = SectionMemory(ALT_SVC)
        self._deadlines.add(self)
        self.transport.set_protocol(self)
        self.transport.resume_reading()
