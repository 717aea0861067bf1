import asyncio
import socket
from collections.abc import AsyncIterator

import msgspec
import pytest

from proxy.channel import Judge, Judged, Named, ToAppliance, ToIssuer, Whose
from proxy.channel_socket import MOST_OCTETS, ChannelSocket
from proxy.issuing.calls import Calls, UnansweredError


class Asking:
    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.theirs.settimeout(10)
        self.channel = ChannelSocket(ours, ToIssuer, lambda *_: None, lambda: None)
        self.calls = Calls(self.channel, 2)

    def ask(self, app: str = "coder", timeout_s: float = 10.0) -> asyncio.Task[Named]:
        asked = self.calls.ask(lambda call: Whose(call, app), Named, timeout_s)
        return asyncio.get_running_loop().create_task(asked)

    def next(self) -> Whose | Judge:
        message = msgspec.json.decode(self.theirs.recv(1 << 20), type=ToAppliance)
        assert isinstance(message, Whose | Judge)
        return message


@pytest.fixture
async def asking() -> AsyncIterator[Asking]:
    found = Asking()
    yield found
    found.channel.close()
    found.theirs.close()


async def test_each_answer_comes_to_who_asked(asking: Asking) -> None:
    one, two = asking.ask("one"), asking.ask("two")
    await asyncio.sleep(0)
    first, second = asking.next(), asking.next()
    assert first.call != second.call
    asking.calls.answered(Named(second.call, "two", ()))
    asking.calls.answered(Named(first.call, "one", ()))
    assert [(await each).app for each in (one, two)] == ["one", "two"]
    assert len(asking.calls) == 0
    asking.calls.answered(Named(first.call, "one", ()))  # once more: nobody waits


async def test_beyond_the_bound_nothing_is_asked(asking: Asking) -> None:
    waiting = [asking.ask(), asking.ask()]
    await asyncio.sleep(0)
    assert asking.calls.is_full
    with pytest.raises(UnansweredError, match="busy"):
        await asking.ask()
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert not asking.calls.is_full


async def test_without_an_answer_in_time_there_is_none(asking: Asking) -> None:
    with pytest.raises(UnansweredError, match="does not answer"):
        await asking.ask(timeout_s=0.0)
    assert len(asking.calls) == 0


async def test_an_answer_of_another_kind_is_none(asking: Asking) -> None:
    waiting = asking.ask()
    await asyncio.sleep(0)
    asking.calls.answered(Judged(asking.next().call, True, "coder", "rule", "0" * 32))
    with pytest.raises(UnansweredError, match="another question"):
        await waiting


async def test_a_channel_that_has_ended_answers_nothing(asking: Asking) -> None:
    asking.channel.close()
    with pytest.raises(UnansweredError):
        await asking.ask()


async def test_a_question_that_does_not_fit_is_told(asking: Asking) -> None:
    with pytest.raises(ValueError, match="fit"):
        await asking.ask("x" * MOST_OCTETS)
    assert len(asking.calls) == 0
