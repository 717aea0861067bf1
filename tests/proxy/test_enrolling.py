"""The device's end of enrolment, against our own listeners."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import override

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs.device import make_request, store
from certs.errors import CertsError
from proxy.config_identity import Oidc
from proxy.enrolling import EnrollError, Server, Shown, open_server
from proxy.limits import Limits
from tests.authority import PrivateAuthority
from tests.proxy.issuing import openid
from tests.proxy.issuing.office import CODER, Office, Served, served


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(Office(tmp_path / "state", Limits())) as found:
        yield found


def server_of(stand: Served) -> Server:
    return open_server(f"https://localhost:{stand.enroll}", stand.office.ca)


async def test_a_token_enrols_and_the_certificate_renews(stand: Served, tmp_path: Path) -> None:
    folder, server = tmp_path / "device", server_of(stand)
    token = await stand.office.join("coder")
    request = make_request(folder)
    got = await asyncio.to_thread(server.by_token, "coder", token, request)
    first = store(folder, got)
    chain, key = folder / "svid.pem", folder / "svid.key"
    got = await asyncio.to_thread(server.by_certificate, chain, key, make_request(folder, CODER))
    second = store(folder, got)
    assert (first.spiffe_id, second.spiffe_id) == (CODER, CODER)
    assert first.serial != second.serial


async def test_a_refusal_says_why_and_that_trying_again_is_of_no_use(
    stand: Served, tmp_path: Path
) -> None:
    request = make_request(tmp_path / "device")
    with pytest.raises(EnrollError, match="no such join token") as caught:
        await asyncio.to_thread(server_of(stand).by_token, "coder", "spt_none", request)
    assert caught.value.is_final


async def test_a_token_is_not_sent_to_a_server_that_is_another(
    stand: Served, tmp_path: Path
) -> None:
    other = PrivateAuthority(tmp_path).certificate
    server = open_server(f"https://localhost:{stand.enroll}", other)
    with pytest.raises(EnrollError, match="not the one that") as caught:
        await asyncio.to_thread(server.by_token, "coder", "spt_any", b"")
    assert caught.value.is_final
    assert not stand.office.events


async def test_the_environments_proxy_sees_nothing(
    stand: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    token = await stand.office.join("coder")
    request = make_request(tmp_path / "device")
    assert await asyncio.to_thread(server_of(stand).by_token, "coder", token, request)


def test_a_server_that_is_not_there_may_be_tried_again(tmp_path: Path) -> None:
    server = open_server("https://127.0.0.1:1", PrivateAuthority(tmp_path).certificate)
    with pytest.raises(EnrollError, match=r"listen\.enroll") as caught:
        server.by_token("coder", "spt_any", b"")
    assert not caught.value.is_final


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:1",
        "https://localhost:1/path",
        "https://user:word@localhost:1",
        "https://localhost:0",
        "https://localhost:1?q",
        "localhost:1",
        "https://0x7f.1",
        "",
    ],
)
def test_another_spelling_of_an_address_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(EnrollError, match="no address to enrol at"):
        open_server(url, PrivateAuthority(tmp_path).certificate)


def test_an_ipv6_address_stands_in_brackets(tmp_path: Path) -> None:
    server = open_server("https://[::1]:8443", PrivateAuthority(tmp_path).certificate)
    assert (server._host, server._port) == ("::1", 8443)


def test_a_file_that_verifies_nobody_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EnrollError, match="no file of PEM certificates"):
        open_server("https://localhost:1", tmp_path / "none")


@pytest.mark.live
@pytest.mark.skipif(bool(openid.MISSING), reason=openid.MISSING)
async def test_a_person_approves_while_the_device_waits(tmp_path: Path) -> None:
    folder = tmp_path / "op"
    folder.mkdir()
    with openid.provider(folder) as op:
        claims = {"coder": {"email": "alice@desk.example"}}
        oidc = Oidc(op.issuer, "sallyport", claims, str(op.ca))
        async with served(Office(tmp_path / "state", Limits(), oidc)) as stand:
            loop, approved = asyncio.get_running_loop(), threading.Event()

            def show(shown: Shown) -> None:
                work = op.approve(shown.verification_uri_complete, "alice")
                asyncio.run_coroutine_threadsafe(work, loop).result(20)
                approved.set()

            device = tmp_path / "device"
            waits = threading.Event()
            got = await asyncio.to_thread(
                server_of(stand).by_approval,
                "coder",
                make_request(device),
                show,
                lambda seconds: waits.wait(min(seconds, 0.5)),
            )
            assert approved.is_set()
            assert store(device, got).spiffe_id == CODER


@given(st.binary(max_size=200))
def test_any_answer_is_an_error_with_a_text(octets: bytes) -> None:
    """What a server sends may be anything; what the person sees is one line."""

    class Answering(Server):
        @override
        def _ask(self, *_: object) -> tuple[int, bytes]:
            return 200, octets

    server = Answering.__new__(Answering)
    with pytest.raises((EnrollError, CertsError)) as caught:
        server.by_token("coder", "spt_any", b"")
    assert str(caught.value).isprintable()
    with pytest.raises((EnrollError, CertsError)) as caught:
        server.by_approval("coder", b"", lambda _: None, lambda _: None)
    assert str(caught.value).isprintable()
