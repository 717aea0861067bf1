"""What may be asked of secrets over the control API; a value is in no answer, line or error."""

import base64
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy.canaries.known import KnownSecrets
from proxy.canaries.live import LiveSecrets
from proxy.canaries.secret import FILE_NAME
from proxy.control.asked import Asked, Asker, RefusedError
from proxy.control.place import Caller
from proxy.control.secrets import SecretRoutes
from proxy.errors import ConfigError
from proxy.leak import Leak
from proxy.limits import Limits
from rules.name import parse
from tests.rules.test_secret_scan import key_of

CALLER = Caller(4711, 1000, 1000)
VALUE = key_of(1)


class Desk:
    """The routes over real secrets."""

    def __init__(self, folder: Path) -> None:
        self.live = LiveSecrets(
            folder / FILE_NAME, KnownSecrets(Limits()), Limits(), lambda: 0.0, os.urandom
        )
        self.lines: list[tuple[str, str, dict[str, object]]] = []
        self._routes = SecretRoutes(lambda: self.live, self._record)

    def _record(self, caller: Asker, target: str, change: str, **said: object) -> None:
        assert caller is CALLER
        self.lines.append((target, change, said))

    async def ask(self, method: str, *path: str, content: bytes = b"") -> Any:
        asked = Asked(method, ("secrets", *path), "", content, CALLER)
        return await self._routes.methods(asked)[method]()

    async def add(self, name: str, value: bytes = VALUE, **more: object) -> Any:
        text = base64.b64encode(value).decode()
        content = msgspec.json.encode({"name": name, "value": text, **more})
        return await self.ask("POST", content=content)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path)
    yield made
    await made.live.close()


async def test_a_secret_is_registered_listed_and_forgotten(desk: Desk) -> None:
    made = await desk.add("api-key")
    assert (made.name, made.kind, made.by_uid) == ("api-key", "secret", 1000)
    assert made.at == "1970-01-01T00:00:00.000000Z"
    assert await desk.ask("GET") == [made]
    name = parse(f"{VALUE.decode()}.evil.example")
    assert desk.live.known.found("coder", name) == Leak("api-key", "plain")
    assert await desk.ask("DELETE", "api-key") == made
    assert await desk.ask("GET") == []
    assert desk.live.known.found("coder", name) is None


async def test_who_changed_what_is_told_without_the_value(desk: Desk) -> None:
    await desk.add("trap", kind="canary")
    await desk.ask("DELETE", "trap")
    assert desk.lines == [
        ("secret trap", "secret-added", {"kind": "canary"}),
        ("secret trap", "secret-removed", {"kind": "canary"}),
    ]
    assert VALUE.decode() not in repr(desk.lines)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"name": "a"}',
        b'{"name": "A B", "value": "VALUE"}',
        b'{"name": "a", "value": "VALUE!"}',
        b'{"name": "a", "value": "VALUE", "kind": "other"}',
        b'{"name": "a", "value": "VALUE", "more": 1}',
    ],
)
async def test_what_is_no_secret_is_refused_without_its_value(desk: Desk, content: bytes) -> None:
    text = base64.b64encode(VALUE)
    with pytest.raises(RefusedError) as caught:
        await desk.ask("POST", content=content.replace(b"VALUE", text))
    assert caught.value.status == 400
    assert text.decode() not in str(caught.value)
    assert desk.lines == []


async def test_what_cannot_be_looked_for_is_refused_with_the_cure(desk: Desk) -> None:
    with pytest.raises(ConfigError, match="8 octets at least") as caught:
        await desk.add("a", b"ghp_xyzzyq")
    assert "xyzzyq" not in str(caught.value)
    with pytest.raises(RefusedError) as missing:
        await desk.ask("DELETE", "a")
    assert missing.value.status == 404
    assert desk.lines == []


async def test_other_paths_are_not_ours() -> None:
    routes = SecretRoutes(lambda: None, lambda *_, **__: None)
    assert routes.methods(Asked("GET", ("tokens",), "", b"", CALLER)) == {}
    with pytest.raises(RefusedError) as caught:
        await routes.methods(Asked("GET", ("secrets",), "", b"", CALLER))["GET"]()
    assert caught.value.status == 503
