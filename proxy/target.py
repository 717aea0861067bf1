"""What a fact was about, as text for people and as fields for audit."""

from functools import lru_cache
from typing import assert_never

from rules.facts import Connect, Endpoint, Facts, Question, Request
from rules.rtype import mnemonic


def authority(host: object, port: int) -> str:
    """Return `HOST:PORT`, with brackets around an IPv6 address (RFC 3986, section 3.2.2)."""
    text = str(host)
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"


def describe(facts: Facts) -> tuple[str, dict[str, object]]:
    """Return the target as one line, and its parts by audit field name, not to be changed.

    A request's query is in neither: it may hold secrets.
    """
    match facts:
        case Question():
            kind = mnemonic(facts.rtype)
            via = {} if facts.via is None else {"via": facts.via}
            return f"{facts.name} {kind}", {"name": facts.name, "type": kind, **via}
        case Connect():
            return _origin(facts)
        case Endpoint():
            return f"{facts.name or 'literal'} {facts.address}", {
                "name": facts.name,
                "address": str(facts.address),
                "port": facts.port,
            }
        case Request():
            where = f"{facts.method} http://{authority(facts.host, facts.port)}{facts.path}"
            return where, {
                "method": facts.method,
                "host": str(facts.host),
                "port": facts.port,
                "path": facts.path,
            }
        case _:
            assert_never(facts)


@lru_cache(maxsize=1024)  # an agent comes back to the same origins, with two lines per tunnel
def _origin(facts: Connect) -> tuple[str, dict[str, object]]:
    return authority(facts.host, facts.port), {"host": str(facts.host), "port": facts.port}
