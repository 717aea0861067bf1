"""The device's end of enrolment: EST and the device flow, over http.client.

No proxy of the environment is used, no redirect followed: where a join token goes is where the
command line says.
"""

import base64
import http.client
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from certs.device import AnswerError, read_message
from proxy.errors import ConfigError, PeerError, ProxyError
from proxy.transport.tls import upstream_context
from proxy.wire.host import format_host, parse_authority

_TIMEOUT_S = 30.0
_MOST_OCTETS = 1 << 20
_EST = "/.well-known/est"
_COLUMNS = 64
_HTTPS_PORT = 443
_SLOWER_S = 5  # RFC 8628, section 3.5
_LEAST_INTERVAL_S, _MOST_INTERVAL_S = 1.0, 120.0


class EnrollError(ProxyError):
    """No certificate came; `is_final` where trying again is of no use."""

    def __init__(self, text: str, *, is_final: bool = False) -> None:
        super().__init__(text)
        self.is_final = is_final


class Shown(Struct, frozen=True):
    """What a person needs to approve (RFC 8628, section 3.3), and how often to ask."""

    handle: str
    user_code: str
    verification_uri: str
    expires_in: int
    interval: float
    spiffe_id: str
    verification_uri_complete: str = ""


class _Done(Struct):
    certificates: str


class _Pending(Struct):
    error: str
    error_description: str = ""
    interval: float = 0.0


class Server:
    """The enrolment listener at `host` and `port`; `ca` verifies it."""

    def __init__(self, host: str, port: int, ca: Path) -> None:
        self._host = host
        self._port = port
        self._ca = ca
        self._context: ssl.SSLContext = upstream_context(ca)

    def by_token(self, app: str, secret: str, request: bytes) -> tuple[bytes, ...]:
        """Return what a join token is good for, as DER; raises as `by_certificate`."""
        pair = base64.b64encode(f"{app}:{secret}".encode()).decode()
        return self._enrolled("simpleenroll", request, {"Authorization": f"Basic {pair}"})

    def by_certificate(self, chain: Path, key: Path, request: bytes) -> tuple[bytes, ...]:
        """Return the certificates that follow the one in the file `chain`, DER.

        Raises:
            EnrollError: there are none.
            AnswerError: what came is none.
        """
        self._context = upstream_context(self._ca)  # a chain cannot be taken out of one
        try:
            self._context.load_cert_chain(chain, key)
        except OSError as error:  # ssl.SSLError is one
            text = f"the certificate {chain} cannot be used: {error.strerror or error}"
            raise EnrollError(text) from None
        return self._enrolled("simplereenroll", request, {})

    def by_approval(
        self,
        app: str,
        request: bytes,
        show: Callable[[Shown], None],
        sleep: Callable[[float], object],
    ) -> tuple[bytes, ...]:
        """Return the certificates that a person approved; raises as `by_certificate`."""
        asked = {"app": app, "csr": base64.b64encode(request).decode()}
        status, content = self._post_json("/enroll/device", asked)
        if status != 200:
            raise _refused(status, content)
        shown = _read(content, Shown)
        texts = (shown.user_code, shown.verification_uri, shown.verification_uri_complete)
        if not all(text.isprintable() for text in texts):  # it goes to a terminal
            raise EnrollError("the server's answer is not for showing to people", is_final=True)
        show(shown)
        return self._approved(shown, sleep)

    def _approved(self, shown: Shown, sleep: Callable[[float], object]) -> tuple[bytes, ...]:
        interval, waited = _within(shown.interval), 0.0
        while waited <= shown.expires_in:
            sleep(interval)
            waited += interval
            status, content = self._post_json("/enroll/device/token", {"handle": shown.handle})
            if status == 200:
                return read_message(_der(_read(content, _Done).certificates.encode()))
            if status != 400:
                raise _refused(status, content)
            pending = _read(content, _Pending)
            if pending.error == "slow_down":
                interval = _within(max(pending.interval, interval + _SLOWER_S))
            elif pending.error != "authorization_pending":
                text = _printable(f"{pending.error}: {pending.error_description}")
                raise EnrollError(text, is_final=True)
        raise EnrollError("nobody approved in time: begin again", is_final=True)

    def _enrolled(
        self, operation: str, request: bytes, fields: Mapping[str, str]
    ) -> tuple[bytes, ...]:
        """Return the certificate of an EST operation, and those above it."""
        status, above = self._ask("GET", f"{_EST}/cacerts", None, {})
        if status != 200:
            raise _refused(status, above)
        sent = {
            **fields,
            "Content-Type": "application/pkcs10",
            "Content-Transfer-Encoding": "base64",
        }
        status, content = self._ask("POST", f"{_EST}/{operation}", _lines(request), sent)
        if status != 200:
            raise _refused(status, content)
        return (*read_message(_der(content)), *read_message(_der(above)))

    def _post_json(self, path: str, document: object) -> tuple[int, bytes]:
        content = msgspec.json.encode(document)
        return self._ask("POST", path, content, {"Content-Type": "application/json"})

    def _ask(
        self, method: str, path: str, content: bytes | None, fields: Mapping[str, str]
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPSConnection(
            self._host, self._port, timeout=_TIMEOUT_S, context=self._context
        )
        try:
            connection.request(method, path, content, {**fields, "Connection": "close"})
            response = connection.getresponse()
            return response.status, response.read(_MOST_OCTETS)
        except ssl.SSLCertVerificationError as error:
            text = f"the server is not the one that {self._ca} verifies: {error.verify_message}"
            raise EnrollError(text, is_final=True) from None
        except (OSError, http.client.HTTPException) as error:
            where = f"{self._host}:{self._port}"
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise EnrollError(f"{where} cannot be asked: {why}; is `listen.enroll` set?") from None
        finally:
            connection.close()


def open_server(url: str, ca: Path) -> Server:
    """Return the server at `url`, which the PEM file `ca` verifies; nothing is sent yet.

    Raises:
        EnrollError: the URL is not https://HOST:PORT, or the file cannot be used.
    """
    cure = f"{url!r} is no address to enrol at: write https://HOST:PORT"
    parts = urlsplit(url)  # the host in it is parsed by our own parser
    is_plain = parts.path in {"", "/"} and not (parts.query or parts.fragment)
    if parts.scheme != "https" or not is_plain:
        raise EnrollError(cure, is_final=True)
    try:
        host, port = parse_authority(parts.netloc.encode("ascii"), _HTTPS_PORT)
        return Server(format_host(host).strip("[]"), port, ca)
    except (PeerError, UnicodeEncodeError):
        raise EnrollError(cure, is_final=True) from None
    except ConfigError:
        text = f"{ca} is no file of PEM certificates: `sallyport ca export` prints one"
        raise EnrollError(text, is_final=True) from None


def _refused(status: int, content: bytes) -> EnrollError:
    """Return the error that an answer is; 4xx but 429 stay as they are if it is asked again."""
    text = _printable(content[:512].decode("utf-8", "replace").strip())
    is_final = 400 <= status < 500 and status != 429
    return EnrollError(f"refused ({status}): {text}", is_final=is_final)


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text)


def _within(interval: float) -> float:
    return min(max(interval, _LEAST_INTERVAL_S), _MOST_INTERVAL_S)


def _lines(der: bytes) -> bytes:
    text = base64.b64encode(der)
    return b"\n".join(text[at : at + _COLUMNS] for at in range(0, len(text), _COLUMNS)) + b"\n"


def _der(text: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except ValueError:
        raise AnswerError("the server's answer is no base64: is it an EST server?") from None


def _read(content: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, RecursionError):
        raise AnswerError("the server's answer is not what it should be") from None
