"""Domain names, from text and from the wire: `MalformedNameError` is allowed."""

from rules.decide import decide
from rules.errors import MalformedNameError
from rules.facts import Principal, Question
from rules.name import NAME_CHARACTERS, DomainName, ancestors, from_labels, is_below, parse
from rules.rtype import A
from rules.special import special_use
from tests.rules.written import allow, deny, index

SEEDS: tuple[bytes, ...] = (
    b"example.com",
    b"A.Example.NET.",
    b"_dns.resolver.arpa",
    b"xn--bcher-kva.example",
    b"1.0.0.127.in-addr.arpa",
    b"attacker.example\x00.google.com",
    b"[example.com]",
    b"a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p",
)
_RULES = index(allow("*.example.net", "**.com"), deny("evil.com", "**.b.com"))
_ME = Principal("me")


def target(data: bytes) -> None:
    """Text and wire agree on what is a name, and any name can be decided on."""
    try:
        name = parse(data.decode("latin-1"))
    except MalformedNameError:
        name = None
    labels = data.removesuffix(b".").split(b".")
    try:
        from_wire = from_labels(labels)
    except MalformedNameError:
        from_wire = None
    assert name == from_wire
    if name is not None:
        _look_at(name)


def _look_at(name: DomainName) -> None:
    assert len(name) <= NAME_CHARACTERS
    assert parse(name) == name == name.lower()
    assert all(is_below(name, up) for up in ancestors(name))
    decision = decide(_RULES, Question(_ME, name, A))
    assert (decision.reason == "local") == (special_use(name) is not None)
