"""What one client connection wants of one origin."""

from proxy.egress.errand import NO_PREFIX, Errand
from proxy.egress.origin import OriginKey
from proxy.flow import Flow, Plane
from rules.facts import Connect, Principal
from rules.name import parse


def test_begins_without_anything_that_was_spelled_or_decided() -> None:
    me = Principal("me")
    connect = Connect(me, parse("example.com"), 80)
    errand = Errand(Flow("0" * 32, me, Plane.HTTP), connect, OriginKey(me, connect.host, 80))
    assert errand.passage is None
    assert errand.fields is None
    assert not b"http://example.com/".startswith(errand.prefix)
    assert errand.prefix == NO_PREFIX
