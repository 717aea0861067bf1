"""ext_authz as Envoy asks it; test_envoy.py asks with a real one."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from grpclib.client import Channel, UnaryUnaryMethod

from proxy.channel import Adopt, Judge, Judged, ToAppliance
from proxy.channel_socket import MOST_OCTETS
from proxy.issuing import messages
from proxy.issuing.adopting import Adopted
from proxy.issuing.authz import METHOD, Authorization
from proxy.limits import Limits
from tests.proxy.issuing.desk import ID, WAIT_S
from tests.proxy.issuing.stand import Stand, standing

REFUSAL = "0192f3a1b2c37d4e8f90a1b2c3d4e5f6"


class Asking:
    """An Envoy's connection to the stand, and an appliance that answers."""

    def __init__(self, stand: Stand, path: Path) -> None:
        self.stand = stand
        self.asked: list[Judge] = []
        self.bounds: list[tuple[str, str]] = []
        self.answer: Callable[[Judge], Judged | None] = lambda _: None
        self.timeout_s = WAIT_S
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(path))
        self.listening.listen()
        self.channel = Channel(path=str(path))
        self.adopted = Adopted(
            lambda _, caller: (
                Authorization(
                    stand.calls, self.timeout_s, caller, lambda *hit: self.bounds.append(hit)
                ),
            ),
            Limits(),
            lambda *_: None,
            lambda _: None,
        )
        asyncio.get_running_loop().add_reader(self.listening.fileno(), self._accept)
        asyncio.get_running_loop().add_reader(stand.theirs.fileno(), self._judge)

    def _accept(self) -> None:
        accepted, _ = self.listening.accept()
        self.adopted.adopt(Adopt(1, "ext_authz", "envoy"), accepted.detach())

    def _judge(self) -> None:
        octets = self.stand.theirs.recv(1 << 20)
        if not octets:
            asyncio.get_running_loop().remove_reader(self.stand.theirs.fileno())
            return
        message = msgspec.json.decode(octets, type=ToAppliance)
        assert isinstance(message, Judge)
        self.asked.append(message)
        judged = self.answer(message)
        if judged is not None:
            self.stand.theirs.send(msgspec.json.encode(judged))

    async def check(self, principal: str = ID, **http: str) -> Any:
        method: UnaryUnaryMethod[Any, Any] = UnaryUnaryMethod(
            self.channel, METHOD, messages.CheckRequest, messages.CheckResponse
        )
        known = {"method": "GET", "host": "api.example.com", "scheme": "https", "path": "/a?b=c"}
        request = messages.CheckRequest(
            attributes={
                "source": {"principal": principal},
                "request": {"http": {**known, **http}},
            }
        )
        return await method(request, timeout=WAIT_S)

    async def close(self) -> None:
        self.channel.close()
        self.adopted.close()
        for each in (self.listening, self.stand.theirs):
            asyncio.get_running_loop().remove_reader(each.fileno())
        self.listening.close()
        await asyncio.sleep(0)


def denied(response: Any) -> tuple[int, dict[str, str], dict[str, Any]]:
    assert response.status.code == 7  # google.rpc.Code: PERMISSION_DENIED
    said = response.denied_response
    headers = {each.header.key: each.header.value for each in said.headers}
    return said.status.code, headers, msgspec.json.decode(said.body)


@pytest.fixture
async def asking(tmp_path: Path) -> AsyncIterator[Asking]:
    async with standing(tmp_path, Limits(ext_authz_calls=2)) as stand:
        found = Asking(stand, tmp_path / "authz.sock")
        yield found
        await found.close()


async def test_a_request_is_put_to_the_appliance_as_envoy_has_it(asking: Asking) -> None:
    asking.answer = lambda each: Judged(each.call, True, "coder", "rule", REFUSAL)
    response = await asking.check()
    assert response.status.code == 0
    assert response.WhichOneof is not None
    assert response.HasField("ok_response")
    assert list(response.ok_response.headers) == []
    assert asking.asked == [
        Judge(asking.asked[0].call, ID, "GET", "https", "api.example.com", "/a?b=c")
    ]


async def test_a_refusal_says_why_as_everywhere(asking: Asking) -> None:
    asking.answer = lambda each: Judged(
        each.call, False, "coder", "rate", REFUSAL, 429, "wait a second"
    )
    status, headers, problem = denied(await asking.check())
    assert status == 429
    assert headers == {"x-deny-reason": "rate", "content-type": "application/problem+json"}
    assert problem["status"] == 429
    assert (problem["reason"], problem["app"], problem["how"]) == ("rate", "coder", "wait a second")
    assert problem["target"] == "api.example.com"
    assert problem["instance"] == "urn:uuid:0192f3a1-b2c3-7d4e-8f90-a1b2c3d4e5f6"


async def test_a_client_without_a_certificate_is_put_as_nobody(asking: Asking) -> None:
    asking.answer = lambda each: Judged(each.call, False, "", "identity-unknown", REFUSAL)
    status, headers, _ = denied(await asking.check(principal=""))
    assert (status, headers["x-deny-reason"]) == (403, "identity-unknown")
    assert asking.asked[0].spiffe_id == ""


async def test_a_reason_that_we_do_not_know_is_an_error_of_ours(asking: Asking) -> None:
    asking.answer = lambda each: Judged(each.call, False, "coder", "because", "")
    assert denied(await asking.check())[1]["x-deny-reason"] == "internal-error"


async def test_without_an_answer_in_time_the_answer_is_no(asking: Asking) -> None:
    asking.timeout_s = 0.05
    status, headers, _ = denied(await asking.check())
    assert (status, headers["x-deny-reason"]) == (503, "internal-error")


async def test_without_an_appliance_the_answer_is_no(asking: Asking) -> None:
    asking.stand.channel.close()
    assert denied(await asking.check())[0] == 503


async def test_more_questions_than_fit_are_refused_and_counted(asking: Asking) -> None:
    under_way = [asyncio.ensure_future(asking.check()) for _ in range(2)]
    while len(asking.asked) < 2:  # noqa: ASYNC110 - questions come as packets
        await asyncio.sleep(0.001)
    status, headers, _ = denied(await asking.check())
    assert (status, headers["x-deny-reason"]) == (503, "capacity")
    assert asking.bounds == [("envoy", "ext_authz_calls")]
    for each in asking.asked:
        judged = Judged(each.call, True, "coder", "rule", REFUSAL)
        asking.stand.theirs.send(msgspec.json.encode(judged))
    assert [each.status.code for each in await asyncio.gather(*under_way)] == [0, 0]


async def test_a_target_that_does_not_fit_the_channel_is_malformed(asking: Asking) -> None:
    """JSON writes a control character as six octets."""
    path = "/" + "\1" * (MOST_OCTETS // 6 + 1)
    status, headers, _ = denied(await asking.check(path=path))
    assert (status, headers["x-deny-reason"]) == (400, "request-malformed")
    assert asking.asked == []
