"""What a person asks `explain`: a name, an authority or a URL, as the facts it would raise."""

import re

from proxy.wire.host import parse_authority
from rules.address import Address
from rules.facts import Connect, Evidence, Facts, Principal, Question, Request
from rules.name import DomainName
from rules.path import normal_path
from rules.rtype import number

_URL = re.compile(
    r"(?P<scheme>https?)://(?P<authority>[^/?#]+)(?P<path>/[^?#]*)?(?:[?#].*)?", re.IGNORECASE
)
_PORTS = {"http": 80, "https": 443}


def read_facts(
    app: str, text: str, rtype: str, method: str, evidence: tuple[Evidence, ...] = ()
) -> tuple[Facts, ...]:
    """Return the facts that `text` would raise, in the order in which a flow raises them.

    `evidence` is what would prove that it is `app` who asks.  A name alone is a Question;
    `HOST:PORT` or an address a Connect; a URL both, and for http a Request too.

    Raises:
        PeerError: not a name, authority or URL in canonical spelling.
        rules.errors.RuleError: a path that has no normal form.
        ValueError: an unknown record type.
    """
    principal = Principal(app, evidence)
    kind = number(rtype)
    if kind is None:
        raise ValueError(f"{rtype!r} is no DNS record type")
    url = _URL.fullmatch(text)
    if url is None:
        host, port = parse_authority(text.encode(), 443)
        if isinstance(host, str) and ":" not in text:
            return (Question(principal, host, kind),)
        return (*_look_up(principal, host, kind), Connect(principal, host, port))
    scheme = url["scheme"].lower()
    host, port = parse_authority(url["authority"].encode(), _PORTS[scheme])
    facts: tuple[Facts, ...] = (*_look_up(principal, host, kind), Connect(principal, host, port))
    if scheme == "https":
        return facts
    path = normal_path(url["path"] or "/")
    return (*facts, Request(principal, method.upper(), host, port, path))


def _look_up(principal: Principal, host: DomainName | Address, rtype: int) -> tuple[Facts, ...]:
    return (Question(principal, host, rtype),) if isinstance(host, str) else ()
