"""The HTTP/2 side of a DoH server that does as it is told, over a `Conversation`."""

from collections.abc import Awaitable, Callable, Mapping
from typing import cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    Event,
    RequestReceived,
    SettingsAcknowledged,
    StreamEnded,
    StreamReset,
)
from h2.settings import SettingCodes, Settings
from msgspec import Struct

from tests.proxy.resolver.hostile import Conversation, StreamScript, answer

TYPE = ("content-type", "application/dns-message")


class Request(Struct):
    """What a client asked on a stream."""

    stream: int
    headers: list[tuple[bytes, bytes]]
    content: bytes = b""


class HttpTalk:
    """One connection, as a script sees it."""

    def __init__(self, talk: Conversation, settings: Mapping[SettingCodes, int]) -> None:
        self.talk = talk
        config = H2Configuration(client_side=False, header_encoding=None)
        self.http = H2Connection(config)
        if settings:
            self.http.local_settings = Settings(client=False, initial_values=dict(settings))
        self._open: dict[int, Request] = {}
        self._ready: list[Request] = []
        self.reset: list[int] = []
        self.acknowledged = 0  # settings of ours

    async def begin(self) -> None:
        self.http.initiate_connection()
        await self.flush()

    async def flush(self) -> None:
        await self.talk.send_octets(self.http.data_to_send())

    async def request(self) -> Request:
        """Return the next whole request; EOFError when the other side closed."""
        while not self._ready:
            await self.read()
        request = self._ready.pop(0)
        self.talk.peer.received(request.content)
        return request

    async def until_reset(self, stream: int) -> None:
        while stream not in self.reset:
            await self.read()

    async def read(self) -> None:
        """Take what comes next."""
        data = await self.talk.read_some()
        if not data:
            raise EOFError
        for event in self.http.receive_data(data):
            self._take(event)
        await self.flush()

    async def respond(
        self, stream: int, content: bytes, *fields: tuple[str, str], status: str = "200"
    ) -> None:
        """Send a whole response."""
        self.http.send_headers(stream, [(":status", status), *(fields or (TYPE,))])
        self.http.send_data(stream, content, end_stream=True)
        await self.flush()

    def _take(self, event: Event) -> None:
        match event:
            case RequestReceived():
                headers = cast("list[tuple[bytes, bytes]]", [tuple(pair) for pair in event.headers])
                self._open[event.stream_id] = Request(event.stream_id, headers)
            case DataReceived():
                self._open[event.stream_id].content += event.data
                self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case StreamEnded():
                self._ready.append(self._open.pop(event.stream_id))
            case SettingsAcknowledged():
                self.acknowledged += 1
            case StreamReset():
                self.reset.append(event.stream_id)
            case _:
                pass


type HttpScript = Callable[[HttpTalk], Awaitable[None]]


def over_http(
    script: HttpScript, settings: Mapping[SettingCodes, int] | None = None
) -> StreamScript:
    """Return the conversation in which `script` speaks HTTP/2."""

    async def converse(talk: Conversation) -> None:
        http = HttpTalk(talk, settings or {})
        await http.begin()
        await script(http)

    return converse


async def answering(http: HttpTalk) -> None:
    """Answer every request at once."""
    while True:
        request = await http.request()
        await http.respond(request.stream, answer(request.content))


async def silent(http: HttpTalk) -> None:
    """Take every request and say nothing."""
    while True:
        await http.request()
