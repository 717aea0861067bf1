import asyncio
import datetime as dt
import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from certs.bundle import MOST_HINT_S
from certs.domain import init_domain, load_domain
from proxy.config_identity import Federated
from proxy.issuing import federation
from proxy.issuing.bundles import Bundles
from proxy.issuing.federation import FILE_S, HINT_S, LEAST_S, RETRY_S, Federation
from proxy.limits import Limits
from tests.authority import PrivateAuthority
from tests.proxy.issuing.stand import until

PARTNER = "partner.example"


class Endpoint:
    """A bundle endpoint over HTTPS (SPIFFE Federation, section 5.2)."""

    def __init__(self, folder: Path) -> None:
        self.content = b""
        self.status = 200
        self.ca = PrivateAuthority(folder)
        self._leaf = self.ca.issue(("127.0.0.1",))
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def _answer(self, _: web.Request) -> web.Response:
        return web.Response(body=self.content, status=self.status)

    async def open(self) -> None:
        application = web.Application()
        application.add_routes([web.get("/bundle", self._answer)])
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self._leaf)
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        self.url = f"https://127.0.0.1:{self._runner.addresses[0][1]}/bundle"

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()


@pytest.fixture
async def endpoint(tmp_path: Path) -> AsyncIterator[Endpoint]:
    found = Endpoint(tmp_path)
    await found.open()
    yield found
    await found.close()


def jwks(folder: Path) -> bytes:
    init_domain(folder / PARTNER, PARTNER, dt.datetime.now(dt.UTC), None)
    return load_domain(folder / PARTNER, None).jwks()


async def test_a_bundle_is_fetched_over_https_as_often_as_it_says(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    bundles = Bundles()
    source = Federated(url=endpoint.url, ca=str(endpoint.ca.certificate))
    following = Federation(PARTNER, source, bundles, Limits())
    good = jwks(tmp_path)
    for hint, wait_s in ((b"300", 300), (b"1", LEAST_S), (b"0", HINT_S), (b"9999999", MOST_HINT_S)):
        endpoint.content = good.replace(
            b'"spiffe_refresh_hint":300', b'"spiffe_refresh_hint":' + hint
        )
        assert await following.refresh() == wait_s
    assert set(bundles.anchors) == {PARTNER}
    await following._outgoing.close()


@pytest.mark.parametrize(
    ("status", "content"), [(404, b""), (302, b""), (200, b"nonsense"), (200, b"x" * 2000)]
)
async def test_what_cannot_be_had_or_read_is_a_problem_and_the_old_one_stays(
    endpoint: Endpoint, tmp_path: Path, status: int, content: bytes
) -> None:
    bundles = Bundles()
    source = Federated(url=endpoint.url, ca=str(endpoint.ca.certificate))
    endpoint.content = jwks(tmp_path)
    following = Federation(PARTNER, source, bundles, Limits(outgoing_octets=1999))
    await following.refresh()
    endpoint.status, endpoint.content = status, content
    assert await following.refresh() == RETRY_S
    assert f"the bundle of {PARTNER}" in bundles.trust.problem
    assert set(bundles.anchors) == {PARTNER}
    await following._outgoing.close()


async def test_an_endpoint_of_another_authority_is_not_believed(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = PrivateAuthority(tmp_path / "other")
    endpoint.content = jwks(tmp_path)
    bundles = Bundles()
    source = Federated(url=endpoint.url, ca=str(other.certificate))
    following = Federation(PARTNER, source, bundles, Limits())
    assert await following.refresh() == RETRY_S
    assert bundles.anchors == {}
    await following._outgoing.close()


async def test_a_file_is_read_again_and_a_problem_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, bundles = tmp_path / "bundle.json", Bundles()
    following = Federation(PARTNER, Federated(file=str(file)), bundles, Limits())
    for _ in range(3):
        assert await following.refresh() == FILE_S
    assert caplog.text.count("put it there") == 1
    file.write_bytes(jwks(tmp_path))
    assert await following.refresh() == FILE_S
    assert bundles.trust.problem == ""
    file.unlink()
    await following.refresh()
    assert caplog.text.count("put it there") == 2


async def test_it_is_followed_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(federation, "FILE_S", 0.001)
    file, bundles = tmp_path / "bundle.json", Bundles()
    following = Federation(PARTNER, Federated(file=str(file)), bundles, Limits())
    task = asyncio.get_running_loop().create_task(following.follow())
    await until(lambda: bundles.trust.problem != "")
    file.write_bytes(jwks(tmp_path))
    await until(lambda: PARTNER in bundles.anchors)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_file_that_is_none_keeps_nobody_waiting(tmp_path: Path) -> None:
    """A FIFO that nobody writes to held a thread for ever."""
    fifo, bundles = tmp_path / "bundle.json", Bundles()
    os.mkfifo(fifo)
    following = Federation(PARTNER, Federated(file=str(fifo)), bundles, Limits())
    async with asyncio.timeout(10):
        assert await following.refresh() == FILE_S
    assert "no regular file" in bundles.trust.problem
    fifo.unlink()
    fifo.mkdir()
    await following.refresh()
    assert PARTNER in bundles.trust.problem
