"""A real OpenID provider (npm's oidc-provider), and people who approve on its pages."""

import asyncio
import html
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin

import requests

from tests.authority import PrivateAuthority

_ROOT = Path(__file__).parents[3]
PACKAGE = _ROOT / ".venv-node" / "oidc-provider" / "node_modules" / "oidc-provider"
MISSING = "" if shutil.which("node") and PACKAGE.is_dir() else "needs node and npm's oidc-provider"
_SCRIPT = Path(__file__).with_name("oidc_op.mjs")
_TIMEOUT_S = 10.0
_PAGES = 8  # until an approval is done there are five
_FORM = re.compile(r'action="([^"]+)"')
_FIELD = re.compile(r'name="([^"]+)" value="([^"]*)"')


class OpenId:
    """Where the provider is; `ca` verifies it."""

    def __init__(self, issuer: str, ca: Path) -> None:
        self.issuer = issuer
        self.ca = ca

    async def approve(self, page: str, person: str) -> None:
        """Log in as `person` and allow what the page asks for."""
        await asyncio.to_thread(self._click_through, page, person)

    async def deny(self, page: str) -> None:
        """Say no on the first page."""
        await asyncio.to_thread(self._abort, page)

    def _click_through(self, page: str, person: str) -> None:
        with self._browser() as browser:
            response = browser.get(page, timeout=_TIMEOUT_S)
            for _ in range(_PAGES):
                form = _form(response.text)
                if form is None:
                    break
                action, fields = form
                if 'name="login"' in response.text:
                    fields |= {"login": person, "password": "any"}
                fields.pop("abort", None)
                place = urljoin(response.url, action)
                response = browser.post(place, data=fields, timeout=_TIMEOUT_S)
            assert response.status_code == 200
            assert "Sign-in Success" in response.text

    def _abort(self, page: str) -> None:
        with self._browser() as browser:
            response = browser.get(page, timeout=_TIMEOUT_S)
            form = _form(response.text)
            assert form is not None
            action, fields = form
            place = urljoin(response.url, action)
            browser.post(place, data={**fields, "abort": "yes"}, timeout=_TIMEOUT_S)

    def _browser(self) -> requests.Session:
        browser = requests.Session()
        browser.trust_env = False
        browser.verify = str(self.ca)
        return browser


def _form(text: str) -> tuple[str, dict[str, str]] | None:
    action = _FORM.search(text)
    return None if action is None else (html.unescape(action[1]), dict(_FIELD.findall(text)))


@contextmanager
def provider(folder: Path, algorithm: str = "ES256") -> Iterator[OpenId]:
    """Run the provider."""
    authority = PrivateAuthority(folder)
    chain, key = authority.issue(["localhost", "127.0.0.1"])
    command = ["node", _SCRIPT, PACKAGE, chain, key, algorithm]
    with subprocess.Popen(
        [str(each) for each in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield OpenId(json.loads(process.stdout.readline())["issuer"], authority.certificate)
        finally:
            process.kill()
