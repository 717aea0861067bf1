"""What one client connection wants of one origin."""

from proxy.egress.errand import NO_PREFIX, Errand
from proxy.egress.origin import OriginKey
from proxy.flow import Flow, Plane
from rules.decision import SvidCertificate, UpgradeTls
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


def test_each_way_has_a_key_of_its_own() -> None:
    """A pool never mixes plain and TLS, nor two certificates."""
    me = Principal("me")
    connect = Connect(me, parse("example.com"), 80)
    errand = Errand(Flow("0" * 32, me, Plane.HTTP), connect, OriginKey(me, connect.host, 80))
    bare, shown = UpgradeTls(), UpgradeTls(SvidCertificate("spiffe://a.example/b"))
    assert errand.way(None) is errand.key
    assert errand.way(bare) is errand.way(UpgradeTls())
    assert len({errand.way(each) for each in (None, bare, shown)}) == 3
    assert [errand.way(each).dialled for each in (None, bare, shown)] == [80, 443, 443]
    assert errand.way(shown).port == 80
