"""What the issuer asks the appliance, and waits for: `Whose` and `Judge`."""

import asyncio
from collections.abc import Callable

from msgspec import Struct

from proxy.channel import Judged, Named
from proxy.channel_socket import ChannelSocket
from proxy.errors import ProxyError


class UnansweredError(ProxyError):
    """The appliance did not answer in time, or more was asked than `most`."""


class Calls:
    """Numbers questions, and brings each answer to who asked; `most` are under way at once."""

    def __init__(self, channel: ChannelSocket, most: int) -> None:
        self._channel = channel
        self._most = most
        self._last = 0
        self._waiting: dict[int, asyncio.Future[Struct]] = {}

    def __len__(self) -> int:
        """Return how many are under way."""
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether nothing more is asked until something is answered."""
        return len(self._waiting) >= self._most

    async def ask[T: Struct](
        self, question: Callable[[int], Struct], kind: type[T], timeout_s: float
    ) -> T:
        """Return the answer to what `question` makes of the call's number.

        Raises:
            UnansweredError: there is none, or not of this kind.
            ValueError: the question does not fit the channel.
        """
        if self.is_full or self._channel.closed:
            raise UnansweredError("the appliance is busy: try again")
        self._last += 1
        number = self._last
        waiter = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._channel.send(question(number))
            async with asyncio.timeout(timeout_s):
                answer = await waiter
        except TimeoutError:
            raise UnansweredError("the appliance does not answer: try again") from None
        finally:
            del self._waiting[number]
        if not isinstance(answer, kind):
            raise UnansweredError("the appliance answered another question")
        return answer

    def answered(self, answer: Named | Judged) -> None:
        """Bring `answer` to who asked; too late is no error."""
        waiter = self._waiting.get(answer.call)
        if waiter is not None and not waiter.done():
            waiter.set_result(answer)
