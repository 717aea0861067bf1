"""HTTPS requests of ours: whom they believe, how long they wait, how much they take."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from proxy.errors import ConfigError
from proxy.issuing.outgoing import Outgoing, UnreachableError
from proxy.limits import Limits
from tests.authority import PrivateAuthority
from tests.proxy.issuing.office import listening


class Stand:
    def __init__(self, url: str, ca: Path) -> None:
        self.url = url
        self.ca = ca


async def _moved(_: web.Request) -> web.Response:
    raise web.HTTPFound("/ok")


async def _never(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await asyncio.Event().wait()
    return response


async def _zipped(_: web.Request) -> web.Response:
    response = web.Response(body=bytes(1 << 20))
    response.enable_compression(web.ContentCoding.gzip)
    return response


async def _ok(request: web.Request) -> web.Response:
    form = await request.post()
    return web.Response(text=f"{request.headers.get('Cookie')} {form.get('a')!r}")


async def _cookie(_: web.Request) -> web.Response:
    response = web.Response(text="")
    response.set_cookie("a", "b")
    return response


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Stand]:
    authority = PrivateAuthority(folder)
    chain, key = authority.issue(["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    app = web.Application()
    handlers = {"ok": _ok, "moved": _moved, "never": _never, "zipped": _zipped, "set": _cookie}
    app.add_routes([web.route("*", f"/{name}", each) for name, each in handlers.items()])
    runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    sock = listening()
    port = sock.getsockname()[1]
    await web.SockSite(runner, sock, ssl_context=context).start()
    try:
        yield Stand(f"https://127.0.0.1:{port}", authority.certificate)
    finally:
        await runner.cleanup()


@asynccontextmanager
async def asking(ca: Path | None, **limits: float) -> AsyncIterator[Outgoing]:
    values = {name: type(getattr(Limits(), name))(value) for name, value in limits.items()}
    outgoing = Outgoing(None if ca is None else str(ca), Limits(**values))
    try:
        yield outgoing
    finally:
        await outgoing.close()


async def test_an_answer_comes_back_without_cookies_and_with_the_form(tmp_path: Path) -> None:
    async with serving(tmp_path) as stand, asking(stand.ca) as outgoing:
        await outgoing.get(f"{stand.url}/set")
        answer = await outgoing.ask("POST", f"{stand.url}/ok", {"a": "b"})
        assert (answer.status, answer.content) == (200, b"None 'b'")


async def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    async with serving(tmp_path) as stand, asking(stand.ca) as outgoing:
        with pytest.raises(UnreachableError, match="answered 302"):
            await outgoing.get(f"{stand.url}/moved")


@pytest.mark.parametrize("path", ["zipped", "ok"])
async def test_too_much_is_not_taken_zipped_or_not(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path) as stand, asking(stand.ca, outgoing_octets=5) as outgoing:
        with pytest.raises(UnreachableError, match="more than 5 octets"):
            await outgoing.get(f"{stand.url}/{path}")


async def test_who_never_ends_is_not_waited_for(tmp_path: Path) -> None:
    async with serving(tmp_path) as stand, asking(stand.ca, outgoing_s=0.2) as outgoing:
        with pytest.raises(UnreachableError, match="did not answer within"):
            await outgoing.get(f"{stand.url}/never")


async def test_only_the_named_authority_is_believed(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = PrivateAuthority(tmp_path / "other").certificate
    async with serving(tmp_path) as stand:
        for ca in (other, None):  # None: the system's, which does not know the test's either
            async with asking(ca) as outgoing:
                with pytest.raises(UnreachableError, match="cannot be asked"):
                    await outgoing.get(f"{stand.url}/ok")


async def test_nothing_is_sent_in_the_clear(tmp_path: Path) -> None:
    async with asking(PrivateAuthority(tmp_path).certificate) as outgoing:
        with pytest.raises(UnreachableError, match="https://"):
            await outgoing.get("http://127.0.0.1:1/")


async def test_a_file_that_is_no_authority_is_told(tmp_path: Path) -> None:
    async with asking(tmp_path / "none") as outgoing:
        with pytest.raises(ConfigError, match="cannot be used"):
            await outgoing.get("https://127.0.0.1:1/")


@pytest.mark.parametrize("url", ["https://127.0.0.1:1/", "https://[::/", "https://127.0.0.1:x/"])
async def test_nobody_there_is_told(tmp_path: Path, url: str) -> None:
    async with asking(PrivateAuthority(tmp_path).certificate) as outgoing:
        with pytest.raises(UnreachableError, match="cannot be asked"):
            await outgoing.get(url)
