"""A connection to the agent-facing API: http.client over mutual TLS, or to a proxy in a lease.

No proxy of the environment is used, no redirect followed, and an answer has a bound.
"""

import http.client
import ssl
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import msgspec

from proxy.attester.errors import RefusedError, UnreachableError
from proxy.attester.place import Place

_TIMEOUT_S = 10.0  # of one step: connecting, or an octet's coming; an appliance takes milliseconds
_MOST_OCTETS = 65536  # of an answer; a token has about 1 KiB
_SHOWN_CHARACTERS = 512  # of what somebody else wrote

_JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"


class _Problem(msgspec.Struct):
    """What of RFC 9457, section 3.1, and of RFC 6749, section 5.2, is for people."""

    title: str = ""
    detail: str = ""
    reason: str = ""
    how: str = ""
    error: str = ""
    error_description: str = ""


class Api:
    """Asks the API at `place`; `context` is for TLS.  One connection, until the block ends."""

    def __init__(self, place: Place, context: ssl.SSLContext | None = None) -> None:
        self._place = place
        if place.is_tls:
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                place.host, place.port, timeout=_TIMEOUT_S, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(
                place.host, place.port, timeout=_TIMEOUT_S
            )

    def __enter__(self) -> Self:
        """Return this; the first request connects."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection."""
        self._connection.close()

    def post[T](self, path: str, content: object, kind: type[T]) -> T:
        """Return what POST of `content` as JSON answers.

        Raises:
            RefusedError: the appliance said no.
            UnreachableError: it did not answer, or not what it should.
        """
        return _read(self._ask(path, msgspec.json.encode(content), _JSON), kind)

    def post_form[T](self, path: str, fields: dict[str, str], kind: type[T]) -> T:
        """Return what POST of a form answers; raises as `post`."""
        return _read(self.send_form(path, fields), kind)

    def send_form(self, path: str, fields: dict[str, str]) -> bytes:
        """Return the octets that POST of a form answers; raises as `post`."""
        return self._ask(path, urlencode(fields).encode("ascii"), _FORM)

    def _ask(self, path: str, content: bytes, media_type: str) -> bytes:
        target = self._place.prefix + path
        sent = {"Content-Type": media_type, "Accept": _JSON}
        try:
            self._connection.request("POST", target, content, sent)
            response = self._connection.getresponse()
            answer = response.read(_MOST_OCTETS + 1)
        except (OSError, http.client.HTTPException) as error:
            failed = self._failed(self._alert() or error)
            self._connection.close()
            raise failed from None
        if len(answer) > _MOST_OCTETS:
            self._connection.close()
            raise UnreachableError(f"{self._where()} answers more than {_MOST_OCTETS} octets")
        if not 200 <= response.status < 300:
            raise _refused(response.status, answer)
        return answer

    def _alert(self) -> OSError | None:
        """Return what TLS says against us, where we were still writing when it was said."""
        connected: Any = self._connection.sock
        if isinstance(connected, ssl.SSLSocket):
            connected.settimeout(0.0)
            try:
                connected.recv(1)
            except OSError as error:  # ssl.SSLError is one
                return error if _is_alert(error) else None
        return None

    def _failed(self, error: Exception) -> RefusedError | UnreachableError:
        if isinstance(error, ssl.SSLCertVerificationError):
            text = f"{self._where()} is not who --ca verifies: {error.verify_message}"
            return UnreachableError(f"{text}; name its `sallyport ca export`")
        if isinstance(error, ssl.SSLError):
            # RFC 8446, section 4.4.2: the answer to our certificate comes after our handshake.
            why = getattr(error, "reason", None) or "no TLS"
            if _is_alert(error):
                text = f"{self._where()} does not take our certificate ({why})"
                return RefusedError(text, how="see that it has not ended; enrol again")
            return UnreachableError(f"{self._where()}: {why}; is it a TLS listener of ours?")
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        cure = "is the appliance up, and this its address?"
        return UnreachableError(f"{self._where()} cannot be asked: {printable(why)}; {cure}")

    def _where(self) -> str:
        return f"{self._place.host}:{self._place.port}"


def _is_alert(error: OSError) -> bool:
    return "ALERT" in (getattr(error, "reason", None) or "")


def _refused(status: int, content: bytes) -> RefusedError:
    """Return the error that an answer is, whether it is a problem, OAuth's, or neither."""
    try:
        found = msgspec.json.decode(content, type=_Problem)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        found = _Problem(detail=content[:_SHOWN_CHARACTERS].decode("utf-8", "replace"))
    reason = found.reason or found.error
    texts = [found.detail or found.error_description or found.title]
    if reason and reason not in texts[0]:
        texts.insert(0, reason)
    text = f"refused ({status}): {': '.join(each for each in texts if each)}"
    return RefusedError(printable(text), status, printable(reason), printable(found.how))


def _read[T](content: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        text = "the answer is not what it should be; is this an appliance of ours?"
        raise UnreachableError(text) from None


def printable(text: Any) -> str:
    """Return what may go to a terminal."""
    shown = str(text)[:_SHOWN_CHARACTERS]
    return "".join(each if each.isprintable() else " " for each in shown)
