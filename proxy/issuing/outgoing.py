"""HTTPS requests of ours: to OpenID providers, and to the bundle endpoints of others.

No proxy of the environment, no redirect, no cookie; answers are bounded in octets and time.
"""

import ssl
from collections.abc import Mapping
from pathlib import Path

from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from msgspec import Struct

from proxy.errors import ProxyError
from proxy.limits import Limits
from proxy.transport.tls import upstream_context

_CHUNK_OCTETS = 65536
_CONNECTIONS = 4  # at once to one host: a provider is asked for each flow


class UnreachableError(ProxyError):
    """Nothing that could be used came back; the text says of whom, and why."""


class Answer(Struct, frozen=True):
    """What came back."""

    status: int
    content: bytes


class Outgoing:
    """Asks servers that `ca` (a PEM file; None: the system's authorities) verifies."""

    def __init__(self, ca: str | None, limits: Limits) -> None:
        self._ca = ca
        self._limits = limits
        self._session: ClientSession | None = None

    async def get(self, url: str) -> bytes:
        """Return the content of `url`.

        Raises:
            UnreachableError: there is none, or an answer other than 200.
            ConfigError: the file of authorities cannot be used.
        """
        answer = await self.ask("GET", url)
        if answer.status != 200:
            raise UnreachableError(f"{url} answered {answer.status}")
        return answer.content

    async def ask(self, method: str, url: str, form: Mapping[str, str] | None = None) -> Answer:
        """Return what `url` answers, whatever its status; raises as `get`."""
        if not url.startswith("https://"):
            raise UnreachableError(f"{url} is not asked: it is to begin with https://")
        most = self._limits.outgoing_octets
        content = bytearray()
        try:
            async with self._opened().request(
                method,
                url,
                data=form,
                allow_redirects=False,
                headers={"Accept": "application/json"},
            ) as response:
                async for chunk in response.content.iter_chunked(_CHUNK_OCTETS):
                    content += chunk
                    if len(content) > most:
                        raise UnreachableError(f"{url} answered more than {most} octets")
                return Answer(response.status, bytes(content))
        except TimeoutError:
            text = f"{url} did not answer within {self._limits.outgoing_s:g} s"
            raise UnreachableError(text) from None
        except (ClientError, OSError, ssl.SSLError, ValueError) as error:
            raise UnreachableError(
                f"{url} cannot be asked: {str(error) or type(error).__name__}"
            ) from None

    async def close(self) -> None:
        """End what is open."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _opened(self) -> ClientSession:
        if self._session is None:
            context = upstream_context(None if self._ca is None else Path(self._ca))
            self._session = ClientSession(
                connector=TCPConnector(ssl=context, limit_per_host=_CONNECTIONS, force_close=True),
                timeout=ClientTimeout(total=self._limits.outgoing_s),
                cookie_jar=DummyCookieJar(),
                trust_env=False,
                headers={"Accept": "application/json"},
            )
        return self._session
