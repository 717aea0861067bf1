"""Another implementation in our issuer's place: a second issuer of ours stands in for SPIRE.

A real SPIRE is not run here.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from hypothesis import given
from hypothesis import strategies as st

from proxy.channel import Adopt, Sign, Trust
from proxy.issuing import messages, spire
from proxy.issuing.adopting import Adopted
from proxy.issuing.answering import Call, read_one
from proxy.issuing.spire import MalformedReplyError, Spire, certificates
from proxy.issuing.workload import Workload, methods
from proxy.limits import Limits
from tests.proxy.issuing.desk import ID, TRUST_DOMAIN, Clock
from tests.proxy.issuing.stand import Stand, standing, until


class Agent:
    """What stands in for SPIRE: our Workload API on a path, or whatever `serve` says."""

    def __init__(self, stand: Stand, path: Path) -> None:
        self.stand = stand
        self.serve: Callable[[Call], Any] | None = None
        self.accepted = 0
        self.adopted = Adopted(self._services, Limits(), lambda *_: None, lambda _: None)
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(path))
        self.listening.listen()
        asyncio.get_running_loop().add_reader(self.listening.fileno(), self._accept)

    def _services(self, _: str, caller: Any) -> tuple[Any, ...]:
        if self.serve is None:
            return (Workload(self.stand.issuer, caller),)
        return (Odd(self.serve),)

    def _accept(self) -> None:
        accepted, _ = self.listening.accept()
        self.accepted += 1
        self.adopted.adopt(
            Adopt(len(self.adopted), "workload", "sallyport", (ID,)), accepted.detach()
        )

    def cut(self) -> None:
        self.adopted.close()

    async def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.listening.fileno())
        self.listening.close()
        self.adopted.close()
        await asyncio.sleep(0)


class Odd:
    """A Workload API whose X.509-SVIDs are what a test says."""

    def __init__(self, serve: Callable[[Call], Any]) -> None:
        self._serve = serve

    async def fetch(self, call: Call) -> None:
        await read_one(call)
        await self._serve(call)

    fetch_x509_svid = fetch_x509_bundles = fetch_jwt_svid = fetch_jwt_bundles = fetch
    validate_jwt_svid = fetch

    def __mapping__(self) -> Any:
        """Return the methods by path."""
        return methods(self)


class Following:
    def __init__(self, path: Path, trust_domain: str = TRUST_DOMAIN) -> None:
        self.clock = Clock()
        self.spire = Spire(str(path), trust_domain, self.clock)
        self.told: list[Trust] = []
        self.spire.tell(self.told.append)
        self.task = asyncio.get_running_loop().create_task(self.spire.follow())

    async def told_of(self, problem: str) -> Trust:
        await until(lambda: problem in self.told[-1].problem)
        return self.told[-1]

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
async def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Agent]:
    monkeypatch.setattr(spire, "LEAST_S", 0.01)
    async with standing(tmp_path / "spire") as stand:
        found = Agent(stand, tmp_path / "spire.sock")
        yield found
        await found.close()


@pytest.fixture
async def following(agent: Agent, tmp_path: Path) -> AsyncIterator[Following]:
    del agent
    found = Following(tmp_path / "spire.sock")
    yield found
    await found.close()


async def test_its_bundles_are_believed_and_its_svid_is_ours_to_present(
    agent: Agent, following: Following
) -> None:
    assert "nothing has come" in following.told[0].problem
    await until(lambda: following.told[-1].problem == "")
    assert following.told[-1].bundles == agent.stand.issuer.bundles.pem
    signed = following.spire.sign(Sign(3, ID))
    assert (signed.call, signed.problem) == (3, "")
    assert signed.chain.count("BEGIN CERTIFICATE") == 2
    assert "PRIVATE KEY" in signed.key
    (event,) = agent.stand.events("issued")
    assert (signed.serial, signed.not_after) == (event.detail["serial"], event.detail["not_after"])


async def test_another_id_or_profile_is_not_ours_to_present(following: Following) -> None:
    await until(lambda: following.told[-1].problem == "")
    for asked in (Sign(1, ID + "/x"), Sign(2, ID, "admin")):
        assert f"SPIRE gave us {ID}" in following.spire.sign(asked).problem
    following.clock.ahead_s = 3700
    assert "has ended" in following.spire.sign(Sign(3, ID)).problem


async def test_rotations_are_followed_and_a_lost_stream_is_taken_up_again(
    agent: Agent, following: Following
) -> None:
    await until(lambda: following.told[-1].problem == "")
    first = following.spire.sign(Sign(1, ID)).serial
    agent.stand.clock.ahead_s = 0.56 * 3600
    agent.stand.issuer.bundles.stir()
    await until(lambda: following.spire.sign(Sign(2, ID)).serial != first)
    agent.cut()
    told = await following.told_of("it is tried again")
    assert told.bundles == agent.stand.issuer.bundles.pem  # believed meanwhile
    await until(lambda: following.told[-1].problem == "")


async def test_a_trust_domain_that_is_not_the_configured_one_is_told(
    agent: Agent, tmp_path: Path
) -> None:
    del agent
    following = Following(tmp_path / "spire.sock", "sallyport.internal")
    told = await following.told_of("identity.trust_domain")
    assert TRUST_DOMAIN in told.bundles
    await following.close()


async def test_nobody_at_the_socket_is_told_once(tmp_path: Path) -> None:
    following = Following(tmp_path / "nowhere.sock")
    told = await following.told_of("it is tried again")
    assert (str(tmp_path), told.bundles) == (str(tmp_path), {})
    assert len(following.told) == 2
    await following.close()


async def _refuse(_: Call) -> None:
    raise GRPCError(Status.PERMISSION_DENIED, "no identity issued")


async def _nothing(call: Call) -> None:
    await call.send_message(messages.X509SVIDResponse())


def _sends(**fields: Any) -> Callable[[Call], Any]:
    async def send(call: Call) -> None:
        known = {"spiffe_id": ID, "x509_svid": b"0\x81\x01x", "x509_svid_key": b"k", "bundle": b""}
        svid = messages.X509SVID(**{**known, **fields})
        await call.send_message(messages.X509SVIDResponse(svids=[svid]))

    return send


@pytest.mark.parametrize(
    ("serve", "problem"),
    [
        (_refuse, "no identity issued"),
        (_nothing, "no SVID for us"),
        (_sends(x509_svid=b""), "without a certificate"),
        (_sends(x509_svid_key=b""), "or a key"),
        (_sends(x509_svid=b"nonsense"), "no certificate"),
        (_sends(x509_svid=b"0\x82\xff\xffx"), "a part of a certificate"),
        (_sends(), "it is tried again"),  # a certificate of one octet
    ],
)
async def test_what_is_no_answer_is_told_and_tried_again(
    agent: Agent, following: Following, serve: Callable[[Call], Any], problem: str
) -> None:
    agent.serve = serve
    assert (await following.told_of(problem)).bundles == {}
    agent.serve = None
    await until(lambda: following.told[-1].problem == "")


async def test_a_stream_that_breaks_off_or_ends_is_told(agent: Agent, following: Following) -> None:
    async def end(call: Call) -> None:
        svids = [messages.X509SVID(spiffe_id="nobody", x509_svid=b"", x509_svid_key=b"")]
        await call.send_message(messages.X509SVIDResponse(svids=svids))

    agent.serve = end
    await following.told_of("it is tried again")

    async def stop(call: Call) -> None:
        await call.send_initial_metadata()

    agent.serve = stop
    await following.told_of("the stream ended")


@given(st.binary(max_size=60))
def test_octets_are_certificates_or_none(octets: bytes) -> None:
    try:
        found = list(certificates(octets))
    except MalformedReplyError:
        return
    assert b"".join(found) == octets


@given(st.lists(st.binary(min_size=128, max_size=400), max_size=4))
def test_certificates_that_stand_together_are_told_apart(contents: list[bytes]) -> None:
    whole = []
    for each in contents:
        short = len(each) < 256
        head = b"0\x81" + bytes((len(each),)) if short else b"0\x82" + len(each).to_bytes(2)
        whole.append(head + each)
    assert list(certificates(b"".join(whole))) == whole


async def test_a_socket_that_others_could_have_put_there_is_not_asked(
    agent: Agent, tmp_path: Path
) -> None:
    """threats.md, "Identity": while SPIRE is away, who is in its place says whom we believe."""
    link = tmp_path / "link.sock"
    link.symlink_to(tmp_path / "spire.sock")  # what counts is where it leads
    for mode, path in ((0o777, "spire.sock"), (0o1777, "spire.sock"), (0o770, "link.sock")):
        tmp_path.chmod(mode)
        following = Following(tmp_path / path)
        told = await following.told_of("others may write there")
        assert ("identity.workload_api" in told.problem, told.bundles) == (True, {})
        await following.close()
    assert agent.accepted == 0
    tmp_path.chmod(0o700)
    following = Following(link)
    await until(lambda: following.told[-1].problem == "")
    await following.close()
