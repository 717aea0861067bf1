"""`http://sallyport.internal/`: what the appliance tells an agent about itself.

An app learns of its own refusals only.  Web pages get nothing: a page that the agent's browser
shows could otherwise read them (threats.md, "HTTP itself").
"""

import msgspec

from proxy.egress.context import Context
from proxy.problem import problem
from proxy.wire.head import RequestHead
from rules.facts import Principal

_WHY = "/why/"
_FROM_PAGES = frozenset({b"origin"})
_PHRASES = {200: "OK", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed"}


def answer(context: Context, principal: Principal, head: RequestHead, path: str) -> bytes:
    """Return the whole response to a request for `path` of our own host."""
    status, media, body = _answer(context, principal, head, path)
    lines = [
        f"HTTP/1.1 {status} {_PHRASES[status]}",
        f"Content-Type: {media}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
    ]
    if status == 405:
        lines.append("Allow: GET, HEAD")  # RFC 9110, section 15.5.6
    if not head.persistent:
        lines.append("Connection: close")
    octets = "\r\n".join(lines).encode("ascii") + b"\r\n\r\n"
    return octets if head.method == "HEAD" else octets + body


def _answer(
    context: Context, principal: Principal, head: RequestHead, path: str
) -> tuple[int, str, bytes]:
    if is_from_a_page(head):
        return _error(403, "not for web pages")
    if head.method not in {"GET", "HEAD"}:
        return _error(405, "only GET and HEAD")
    if path == "/":
        return 200, "application/json", _index(context, principal)
    if path.startswith(_WHY):
        refusal = context.refusals.get(principal.app, path.removeprefix(_WHY))
        if refusal is not None:
            found = problem(refusal.reason, refusal.id, refusal.app, refusal.target, refusal.how)
            return 200, "application/problem+json", msgspec.json.encode(found)
        return _error(404, "no such refusal of this app, or it is too long ago")
    return _error(404, "there is / and /why/ID")


def _index(context: Context, principal: Principal) -> bytes:
    return msgspec.json.encode(
        {
            "app": principal.app,
            "evidence": principal.evidence,
            "generation": context.authorizer.generation,
            "why": "http://sallyport.internal/why/ID",
        }
    )


def _error(status: int, title: str) -> tuple[int, str, bytes]:
    body = msgspec.json.encode({"title": title, "status": status})
    return status, "application/json", body


def is_from_a_page(head: RequestHead) -> bool:
    """Return whether a browser says that a page asks (Fetch Metadata, section 2.3)."""
    return any(
        name in _FROM_PAGES or (name == b"sec-fetch-site" and value.lower() != b"none")
        for name, value in head.fields
    )
