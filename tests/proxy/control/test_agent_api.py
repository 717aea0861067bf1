"""The agent-facing API over the control API: who asks there, and what he is told."""

from pathlib import Path

import msgspec

from proxy.control.agent_api import MountedApi
from proxy.control.asked import Asked as AskedHere
from proxy.control.place import Caller as LocalCaller
from rules.decision import Decision, Reason, Verdict
from rules.facts import Evidence, Principal
from tests.proxy.agent_api.endpoints import Endpoints
from tests.proxy.control.remote_stand import ALICE, serving
from tests.proxy.control_stand import standing

CODER = Principal("coder", (Evidence.CERTIFICATE,))
NOBODY = Decision(Verdict.DENY, Reason.IDENTITY_UNKNOWN)


def nobody(_: str) -> Decision:
    return NOBODY


def post(path: str, content: bytes, *fields: str, close: bool = True) -> bytes:
    lines = (
        *(f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json"),
        *(f"Content-Length: {len(content)}", *fields, *(["Connection: close"] if close else [])),
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


async def test_over_the_socket_an_admin_asks_who_is_no_agent(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        stand.agent_api = MountedApi(Endpoints().api, nobody)
        told = await stand.raw(post("/echo", b'{"text": "hello"}'))
        head, _, content = told.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\ncache-control: no-store" in head
        members = msgspec.json.decode(content)
        assert members == {
            "app": "", "plane": "control", "listener": "control", "spiffe_id": "", "binding": "",
            "is_admin": True, "octets": 17, "text": "hello",
        }  # fmt: skip


async def test_what_http_says_of_a_request_is_said_here_too(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        stand.agent_api = MountedApi(Endpoints().api, nobody)
        for octets, status in (
            (post("/echo", b"{}"), b"400"),
            (post("/state", b""), b"405"),
            (post("/problem", b""), b"403"),
            (post("/broken", b""), b"500"),
            (post("/echo", bytes(65536)), b"413"),
            (post("/echo", b"{}", "Origin: https://evil.example"), b"403"),
            (post("/echo", b"{}").replace(b"application/json", b"text/x"), b"415"),
        ):
            assert (await stand.raw(octets)).split()[1] == status
        head = b"HEAD /openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        told = await stand.raw(head)
        assert (told.split()[1], told.endswith(b"\r\n\r\n")) == (b"200", True)


async def test_what_the_control_api_has_is_its_own(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        stand.agent_api = MountedApi(Endpoints().api, nobody)
        assert (await stand.ask("GET", "/status"))["version"] == "0.9"
        kept = post("/echo", b'{"text": "1"}', close=False) + post("/echo", b'{"text": "2"}')
        assert (await stand.raw(kept)).count(b"HTTP/1.1 200 OK") == 2


async def test_without_an_api_there_is_none(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        assert (await stand.raw(post("/echo", b"{}"))).split()[1] == b"404"


async def test_an_admin_elsewhere_is_known_by_his_certificate(tmp_path: Path) -> None:
    async with serving(tmp_path) as stand:
        stand.agent_api = MountedApi(Endpoints().api, nobody)
        alice = stand.issued()
        reader, writer = await stand.connect(alice)
        writer.write(post("/echo", b'{"text": "a"}'))
        content = (await reader.read()).partition(b"\r\n\r\n")[2]
        writer.close()
        members = msgspec.json.decode(content)
        assert (members["app"], members["spiffe_id"]) == ("", ALICE)
        assert (members["binding"], members["is_admin"]) == ("", True)


async def test_an_admin_who_is_an_agent_as_well_has_his_key_as_binding(tmp_path: Path) -> None:
    async with serving(tmp_path) as stand:
        asked: list[str] = []

        def coder(spiffe_id: str) -> Principal:
            asked.append(spiffe_id)
            return CODER

        stand.agent_api = MountedApi(Endpoints().api, coder)
        reader, writer = await stand.connect(stand.issued())
        writer.write(post("/echo", b'{"text": "a"}'))
        members = msgspec.json.decode((await reader.read()).partition(b"\r\n\r\n")[2])
        writer.close()
        assert (members["app"], len(members["binding"]), members["is_admin"]) == ("coder", 64, True)
        assert asked == [ALICE]


async def test_a_path_is_what_it_was() -> None:
    mounted = MountedApi(Endpoints().api, nobody)

    def here(*path: str) -> AskedHere:
        return AskedHere("GET", path, "", b"", LocalCaller(1, 0, 0))

    assert mounted.takes(here("state"))
    assert not mounted.takes(here("state", ""))
    assert not mounted.takes(here("tokens"))
    answer = await mounted.answer(here("state"))
    assert answer.status == 200
