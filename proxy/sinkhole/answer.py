"""What a visitor of the sinkhole is answered: why the name was refused, in HTTP or by an alert."""

import msgspec

from proxy.advice import advise
from proxy.problem import Problem, problem
from proxy.sinkhole.heard import Heard
from proxy.sinkhole.told import Told
from proxy.wire.head import write_response
from rules.decision import Reason

# RFC 8446, section 5.1: a record of TLS 1.2 and later; section 6: fatal; 6.2: access_denied.
# A client of any version reads it: it is what a server says before it has chosen one.
ALERT = bytes((21, 3, 3, 0, 2, 2, 49))

_UNTOLD = "no look-up of this name was answered with this address lately; ask the admin"
_MALFORMED = "send one well-formed request of HTTP/1.1; nothing is served here"
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Refused: {target}</title></head><body>
<h1>{target} is refused here</h1>
<p>Sallyport answered the look-up of this name with its own address. The site itself was not
reached.</p>
<p>What to do: {how}.</p>
<dl><dt>Reason</dt><dd>{reason}</dd><dt>App</dt><dd>{app}</dd><dt>Id</dt><dd>{id}</dd></dl>
<p>The admin sees more with <code>sallyport why {id}</code>.</p>
</body></html>
"""
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"})


def reason_of(heard: Heard, told: Told | None) -> Reason:
    """Return why the visitor gets nothing; SPECIAL_USE where no look-up led here lately."""
    if heard.outcome == "malformed":
        return Reason.REQUEST_MALFORMED
    return Reason.SPECIAL_USE if told is None else told.decision.reason


def answer_http(heard: Heard, told: Told | None, app: str, unique: str) -> bytes:
    """Return the whole response to a request that `app` sent.

    It shows the id of the refusal of the look-up; without one `unique`, that of this visit.
    """
    shown = unique if told is None else told.id
    target = "this" if heard.host is None else str(heard.host)
    said = problem(reason_of(heard, told), shown, app, target, _how(heard, told, app))
    body, media = _page(said, shown), b"text/html; charset=utf-8"
    if not heard.wants_html:
        body, media = msgspec.json.encode(said), b"application/problem+json"
    head = write_response(
        said.status,
        b"sallyport %b %b" % (said.reason.encode(), shown.encode()),
        [
            (b"x-deny-reason", said.reason.encode()),
            (b"content-type", media),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),  # the next rules may allow the name
            (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
            (b"x-content-type-options", b"nosniff"),
            (b"vary", b"accept"),
            (b"connection", b"close"),
        ],
    )
    return head if heard.is_head else head + body  # RFC 9110, section 9.3.2


def _how(heard: Heard, told: Told | None, app: str) -> str:
    if heard.outcome == "malformed":
        return _MALFORMED
    if told is None:
        return _UNTOLD
    if told.app == app:
        return advise(told.decision, app)
    # Whose look-up it was is not told to who cannot be named.
    ask = "ask the admin, with the id"
    return f"{told.decision.text}; {ask}" if told.decision.text else ask


def _page(said: Problem, unique: str) -> bytes:
    shown = {"target": said.target, "how": said.how, "reason": said.reason, "app": said.app}
    safe = {key: value.translate(_ESCAPES) for key, value in shown.items()}
    return _PAGE.format(**safe, id=unique).encode()
