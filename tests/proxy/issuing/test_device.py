"""The device flow against a real OpenID provider, with people who click on its pages."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from certs.device import make_request, read_message, store
from proxy.config_identity import Oidc
from proxy.limits import Limits
from proxy.transport.tls import upstream_context
from tests.proxy.issuing import openid
from tests.proxy.issuing.office import CODER, Clock, Office, Served, served
from tests.proxy.issuing.openid import OpenId

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(bool(openid.MISSING), reason=openid.MISSING),
]

ALICE = {"coder": {"email": "alice@desk.example"}}


class Device:
    """A device without a browser; `began` is what it was told."""

    def __init__(self, folder: Path, stand: Served, clock: Clock) -> None:
        self.folder = folder
        self.stand = stand
        self.clock = clock
        self.began: dict[str, Any] = {}

    async def begin(self, app: str = "coder") -> int:
        request = base64.b64encode(make_request(self.folder)).decode()
        status, self.began = await self.post("/enroll/device", {"app": app, "csr": request})
        return status

    async def ask(self) -> tuple[int, dict[str, Any]]:
        return await self.post("/enroll/device/token", {"handle": self.began["handle"]})

    async def ask_in_time(self) -> tuple[int, dict[str, Any]]:
        self.clock.ahead_s += self.began["interval"]
        return await self.ask()

    async def outcome(self) -> tuple[int, dict[str, Any]]:
        """Ask until somebody has decided."""
        async with asyncio.timeout(20):
            while True:
                status, answer = await self.ask_in_time()
                if answer.get("error") != "authorization_pending":
                    return status, answer
                await asyncio.sleep(0.05)

    async def post(self, path: str, content: object) -> tuple[int, dict[str, Any]]:
        context = upstream_context(self.stand.office.ca)
        url = f"https://localhost:{self.stand.enroll}{path}"
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, json=content, ssl=context) as response,
        ):
            if response.content_type != "application/json":
                return response.status, {"text": await response.text()}
            return response.status, await response.json()


class World:
    def __init__(self, op: OpenId, stand: Served, clock: Clock, folder: Path) -> None:
        self.op = op
        self.stand = stand
        self.clock = clock
        self._folder = folder

    def device(self, name: str = "device") -> Device:
        return Device(self._folder / name, self.stand, self.clock)


@pytest.fixture(scope="module")
def op(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenId]:
    with openid.provider(tmp_path_factory.mktemp("op")) as found:
        yield found


@asynccontextmanager
async def world(
    folder: Path,
    op: OpenId,
    limits: Limits | None = None,
    apps: dict[str, dict[str, str]] | None = None,
) -> AsyncIterator[World]:
    clock = Clock()
    oidc = Oidc(op.issuer, "sallyport", ALICE if apps is None else apps, str(op.ca))
    async with served(Office(folder / "state", limits or Limits(), oidc), clock) as stand:
        yield World(op, stand, clock, folder)


async def test_a_provider_that_signs_with_rsa_is_believed(tmp_path: Path) -> None:
    folder = tmp_path / "op"
    folder.mkdir()
    with openid.provider(folder, "RS256") as rsa:
        async with world(tmp_path, rsa) as found:
            device = found.device()
            await device.begin()
            await rsa.approve(device.began["verification_uri_complete"], "alice")
            assert (await device.outcome())[0] == 200


async def test_a_person_approves_and_the_device_gets_its_certificate(
    tmp_path: Path, op: OpenId
) -> None:
    async with world(tmp_path, op) as found:
        device = found.device()
        assert await device.begin() == 200
        assert device.began["spiffe_id"] == CODER
        status, answer = await device.ask_in_time()
        assert (status, answer["error"]) == (400, "authorization_pending")
        await found.op.approve(device.began["verification_uri_complete"], "alice")
        status, answer = await device.outcome()
        assert status == 200, answer
        certificates = read_message(base64.b64decode(answer["certificates"]))
        enrolled = store(device.folder, certificates)
        assert enrolled.spiffe_id == CODER
        [event] = found.stand.office.told("enrolled")
        assert (event.app, event.detail["how"]) == ("coder", "oidc")
        assert event.detail["user_code"] == device.began["user_code"]
        # An answer that was lost can be had again, by the device that has the handle.
        assert (await device.ask())[0] == 200
        assert len(found.stand.office.issued) == 1


async def test_the_approval_is_bound_to_the_key_of_the_device(tmp_path: Path, op: OpenId) -> None:
    async with world(tmp_path, op) as found:
        device = found.device()
        await device.begin()
        await found.op.approve(device.began["verification_uri_complete"], "alice")
        await device.outcome()
        [known] = found.stand.office.issued.values()
        [event] = found.stand.office.told("enrolled")
        assert event.detail["spki_sha256"] == known.spki_sha256
        assert len(known.spki_sha256) == hashlib.sha256().digest_size * 2


@pytest.mark.parametrize(
    ("person", "text"),
    [("bob", "does not have the claim email"), ("mallory", "has not verified")],
)
async def test_who_lacks_the_claims_opens_nothing(
    tmp_path: Path, op: OpenId, person: str, text: str
) -> None:
    wanted = {"coder": {"email": f"{'alice' if person == 'bob' else person}@desk.example"}}
    async with world(tmp_path, op, apps=wanted) as found:
        device = found.device()
        await device.begin()
        await found.op.approve(device.began["verification_uri_complete"], person)
        status, answer = await device.outcome()
        assert (status, answer["error"]) == (400, "access_denied")
        assert text in answer["error_description"]
        assert not found.stand.office.issued
        assert text in str(found.stand.office.told("refused")[0].detail["text"])


async def test_a_claim_may_be_one_of_a_list(tmp_path: Path, op: OpenId) -> None:
    async with world(tmp_path, op, apps={"coder": {"groups": "people"}}) as found:
        device = found.device()
        await device.begin()
        await found.op.approve(device.began["verification_uri_complete"], "carol")
        assert (await device.outcome())[0] == 200


async def test_a_person_who_denies_ends_the_flow(tmp_path: Path, op: OpenId) -> None:
    async with world(tmp_path, op) as found:
        device = found.device()
        await device.begin()
        await found.op.deny(device.began["verification_uri_complete"])
        status, answer = await device.outcome()
        assert (status, answer["error"]) == (400, "access_denied")


async def test_an_app_that_lost_its_name_meanwhile_gets_nothing(tmp_path: Path, op: OpenId) -> None:
    async with world(tmp_path, op) as found:
        device = found.device()
        await device.begin()
        found.stand.office.apps["coder"] = ()
        await found.op.approve(device.began["verification_uri_complete"], "alice")
        status, answer = await device.outcome()
        assert (status, answer["error"]) == (400, "access_denied")
        assert not found.stand.office.issued


async def test_a_device_that_asks_too_fast_is_slowed_and_then_ended(
    tmp_path: Path, op: OpenId
) -> None:
    """Device-flow polling abuse."""
    async with world(tmp_path, op, Limits(enroll_slow_downs=2)) as found:
        device = found.device()
        await device.begin()
        answers = [(await device.ask())[1] for _ in range(4)]
        assert [each["error"] for each in answers] == [
            "slow_down",
            "slow_down",
            "access_denied",
            "access_denied",
        ]
        assert [answers[0]["interval"], answers[1]["interval"]] == [10, 20]
        assert found.stand.office.told("refused")[0].reason == "rate"
        # Whoever approves now approves nothing.
        await found.op.approve(device.began["verification_uri_complete"], "alice")
        assert (await device.ask())[1]["error"] == "access_denied"
        assert not found.stand.office.issued


async def test_a_flow_that_nobody_approves_ends(tmp_path: Path, op: OpenId) -> None:
    async with world(tmp_path, op, Limits(enroll_flow_s=12.0)) as found:
        device = found.device()
        await device.begin()
        assert device.began["expires_in"] == 12
        status, answer = await device.outcome()
        assert (status, answer["error"]) == (400, "expired_token")


async def test_flows_under_way_are_bounded_and_each_peer_has_a_share(
    tmp_path: Path, op: OpenId
) -> None:
    async with world(tmp_path, op, Limits(enroll_flows=3, enroll_flows_per_peer=2)) as found:
        statuses = [await found.device(f"device{number}").begin() for number in range(4)]
        assert statuses == [200, 200, 503, 503]
        assert {each.reason for each in found.stand.office.told("refused")} == {"capacity"}
        bounds = {each.target for each in found.stand.office.told("bound")}
        assert bounds == {"enroll_flows_per_peer"}


async def test_an_app_without_claims_is_refused_before_anybody_is_asked(
    tmp_path: Path, op: OpenId
) -> None:
    async with world(tmp_path, op) as found:
        device = found.device()
        assert await device.begin("writer") == 403
        assert "join token" in device.began["text"]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        ({"app": "coder"}, 400),
        ([], 400),
        ({"app": "coder", "csr": "AAAA"}, 400),
        ("x" * 20000, 413),
    ],
)
async def test_what_is_no_request_is_refused(
    tmp_path: Path, op: OpenId, content: object, status: int
) -> None:
    async with world(tmp_path, op) as found:
        assert (await found.device().post("/enroll/device", content))[0] == status


async def test_a_handle_that_nobody_got_is_no_flow(tmp_path: Path, op: OpenId) -> None:
    async with world(tmp_path, op) as found:
        status, answer = await found.device().post("/enroll/device/token", {"handle": "guess"})
        assert (status, answer["error"]) == (400, "invalid_grant")


async def test_a_provider_that_does_not_answer_is_told(tmp_path: Path) -> None:
    clock = Clock()
    oidc = Oidc("https://127.0.0.1:1", "sallyport", ALICE)
    async with served(Office(tmp_path / "state", Limits(), oidc), clock) as stand:
        device = Device(tmp_path / "device", stand, clock)
        assert await device.begin() == 502
        assert stand.office.told("refused")[0].reason == "upstream-unreachable"


async def test_another_client_id_is_not_known_to_the_provider(tmp_path: Path, op: OpenId) -> None:
    async with world(tmp_path, op) as found:
        clock = Clock()
        oidc = Oidc(found.op.issuer, "nobody", ALICE, str(found.op.ca))
        async with served(Office(tmp_path / "state2", Limits(), oidc), clock) as stand:
            device = Device(tmp_path / "device", stand, clock)
            assert await device.begin() == 502
            assert "invalid_client" in device.began["text"]
