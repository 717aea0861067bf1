"""Special-use names are known with all that is below them."""

import pytest

from rules.name import DomainName, parse
from rules.special import OUR_ZONE, SpecialUse, is_always_local, special_use


@pytest.mark.parametrize(
    ("name", "how", "apex"),
    [
        ("localhost", SpecialUse.LOOPBACK, "localhost"),
        ("a.b.localhost", SpecialUse.LOOPBACK, "localhost"),
        ("x.test", SpecialUse.NONEXISTENT, "test"),
        ("invalid", SpecialUse.NONEXISTENT, "invalid"),
        ("printer.local", SpecialUse.NONEXISTENT, "local"),
        ("abc.onion", SpecialUse.NONEXISTENT, "onion"),
        ("a.alt", SpecialUse.NONEXISTENT, "alt"),
        ("x.internal", SpecialUse.NONEXISTENT, "internal"),
        ("sallyport.internal", SpecialUse.OURS, "sallyport.internal"),
        ("a._why.sallyport.internal", SpecialUse.OURS, "sallyport.internal"),
        ("home.arpa", SpecialUse.EMPTY_ZONE, "home.arpa"),
        ("_dns.resolver.arpa", SpecialUse.EMPTY_TREE, "resolver.arpa"),
        ("ipv4only.arpa", SpecialUse.IPV4ONLY, "ipv4only.arpa"),
        ("use-application-dns.net", SpecialUse.NONEXISTENT, "use-application-dns.net"),
        ("1.0.0.10.in-addr.arpa", SpecialUse.EMPTY_ZONE, "10.in-addr.arpa"),
        ("1.0.31.172.in-addr.arpa", SpecialUse.EMPTY_ZONE, "31.172.in-addr.arpa"),
        ("1.127.100.in-addr.arpa", SpecialUse.EMPTY_ZONE, "127.100.in-addr.arpa"),
        ("1.1.168.192.in-addr.arpa", SpecialUse.EMPTY_ZONE, "168.192.in-addr.arpa"),
        ("1.0." + "0." * 30 + "ip6.arpa", SpecialUse.EMPTY_ZONE, "1." + "0." * 31 + "ip6.arpa"),
        ("1.d.f.ip6.arpa", SpecialUse.EMPTY_ZONE, "d.f.ip6.arpa"),
        ("8.b.d.0.1.0.0.2.ip6.arpa", SpecialUse.EMPTY_ZONE, "8.b.d.0.1.0.0.2.ip6.arpa"),
    ],
)
def test_a_special_use_name_is_found_with_its_apex(name: str, how: SpecialUse, apex: str) -> None:
    """Closes "`use-application-dns.net`, `_dns.resolver.arpa`" and "PTR and ip6.arpa nibbles"."""
    assert special_use(parse(name)) == (how, apex)


@pytest.mark.parametrize(
    "name",
    [".", "com", "example.com", "example.org", "example", "notlocalhost", "localhost.example.com",
     "test.example.com", "net", "application-dns.net", "arpa", "in-addr.arpa",
     "8.8.8.8.in-addr.arpa", "15.172.in-addr.arpa", "32.172.in-addr.arpa", "63.100.in-addr.arpa",
     "ip6.arpa"],
)  # fmt: skip
def test_other_names_are_looked_up_as_any(name: str) -> None:
    """RFC 6761, section 6.5: example.com and its kin resolve as other names do."""
    assert special_use(DomainName(name)) is None


def test_our_own_zone_is_special() -> None:
    assert special_use(OUR_ZONE) == (SpecialUse.OURS, OUR_ZONE)


@pytest.mark.parametrize(
    "name",
    ["localhost", "a.localhost", "sallyport.internal", "x._why.sallyport.internal",
     "_dns.resolver.arpa", "resolver.arpa", "use-application-dns.net"],
)  # fmt: skip
def test_some_names_are_answered_here_whatever_zone_covers_them(name: str) -> None:
    assert is_always_local(parse(name))


@pytest.mark.parametrize("name", ["internal", "db.internal", "10.in-addr.arpa", "x.local", "com"])
def test_the_others_are_left_to_a_zone_that_covers_them(name: str) -> None:
    assert not is_always_local(parse(name))
