"""Aliases into other domains: what is hosting, what is a tracker, and what nobody knows."""

from collections.abc import Sequence
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.cloaking import CloakFinding, Known, cloaked, read_known
from rules.errors import MalformedNameError
from rules.name import DomainName, is_below, parse
from rules.suffix import PublicSuffixes, read_suffixes

SUFFIXES = read_suffixes(
    ["com", "net", "uk", "co.uk", "example", "// ===BEGIN PRIVATE DOMAINS===", "pages.example"]
)
KNOWN = Known(
    hosting=frozenset({parse("cdn.example")}),
    trackers=frozenset({parse("tracker.example"), parse("t.cdn.example")}),
)


def _cloaked(name: str, *chain: str) -> CloakFinding | None:
    return cloaked(parse(name), [parse(target) for target in chain], SUFFIXES, KNOWN)


def _shipped(name: str) -> list[str]:
    folder = resources.files("rules") / "known"
    return (folder / f"{name}.txt").read_text(encoding="utf-8").splitlines()


def _installed() -> PublicSuffixes:
    data = resources.files("publicsuffixlist") / "public_suffix_list.dat"
    return read_suffixes(data.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize(
    "chain",
    [
        (),
        ("origin.shop.com",),
        ("shop.com",),
        ("www.shop.com.cdn.example",),
        ("cdn.example",),
        ("shop.pages.example",),
        ("shop.co.uk",),
        ("a.cdn.example", "shop.pages.example", "b.shop.com"),
    ],
    ids=["none", "own", "apex", "cdn", "cdn-itself", "tenant", "same-label", "through"],
)
def test_finds_nothing_in_its_own_or_hosted_aliases(chain: Sequence[str]) -> None:
    assert _cloaked("www.shop.com", *chain) is None


def test_finds_a_listed_tracker() -> None:
    found = _cloaked("metrics.shop.com", "shop.com.tracker.example")
    assert found is not None
    assert (found.target, found.suffix) == ("shop.com.tracker.example", "tracker.example")
    assert found.is_tracker
    assert found.evidence == {
        "is_tracker": 1,
        "hop": 1,
        "hops": 1,
        "hosted": 0,
        "target_labels": 4,
        "target_octets": 24,
    }


def test_finds_a_tracker_below_a_suffix_of_hosting() -> None:
    found = _cloaked("metrics.shop.com", "shop.t.cdn.example")
    assert found is not None
    assert found.is_tracker


def test_a_tracker_of_the_label_of_the_name_is_one_still() -> None:
    """Whoever is called tracker.com as well as tracker.example has his aliases, all the same."""
    found = _cloaked("www.tracker.com", "x.tracker.example")
    assert found is not None
    assert found.is_tracker


def test_a_trackers_own_names_are_no_cloaking() -> None:
    assert _cloaked("www.tracker.example", "x.tracker.example") is None


def test_finds_a_domain_that_nobody_knows_behind_a_known_one() -> None:
    found = _cloaked("www.shop.com", "shop.cdn.example", "origin.other.net", "o.third.net")
    assert found is not None
    assert (found.target, found.is_tracker) == ("origin.other.net", False)
    assert (found.hop, found.hops, found.hosted) == (2, 3, 1)


def test_a_tracker_goes_before_an_unknown_domain_that_stands_first() -> None:
    found = _cloaked("www.shop.com", "x.other.net", "y.tracker.example", "z.tracker.example")
    assert found is not None
    assert (found.target, found.hop) == ("y.tracker.example", 2)


def test_a_target_without_a_registrable_domain_stands_for_itself() -> None:
    found = _cloaked("com", "localhost", "net")
    assert found is not None
    assert found.suffix == "localhost"


def test_reads_suffixes_and_leaves_comments() -> None:
    known = read_known(["# words", "", "CDN.example.  # of somebody"], ["tracker.example"])
    assert known == Known(frozenset({parse("cdn.example")}), frozenset({parse("tracker.example")}))


def test_refuses_a_line_that_is_no_name() -> None:
    with pytest.raises(MalformedNameError):
        read_known(["*.cdn.example"], [])


def test_the_shipped_lists_repeat_nothing() -> None:
    known = read_known(_shipped("hosting"), _shipped("trackers"))
    installed = _installed()
    assert not known.hosting & known.trackers
    assert not [name for name in known.hosting if installed.is_shared(name)]
    assert not [a for a in known.hosting for b in known.hosting if is_below(a, b)]


@pytest.mark.parametrize(
    ("name", "chain"),
    [
        ("www.debian.org", ["www-mirror.debian.net"]),
        ("packages.vendor.example", ["debian.map.fastlydns.net"]),
        ("registry.example.org", ["example.org.edgekey.net", "e1.dscx.akamaiedge.net"]),
        ("assets.example.org", ["d111111abcdef8.cloudfront.net"]),
        ("bucket.example.org", ["s3-r-w.eu-west-1.amazonaws.com"]),
        ("docs.example.org", ["example.github.io"]),
        ("docs.example.org", ["readthedocs.io"]),
        ("login.microsoftonline.com", ["login.mso.msidentity.com", "x.trafficmanager.net"]),
        ("shop.example.org", ["shops.myshopify.com"]),
        ("status.example.org", ["abc.stspg-customer.com"]),
        ("en.wikipedia.org", ["dyna.wikimedia.org"]),
        ("downloads.example.org", ["example.azureedge.net", "x.azureedge.net"]),
    ],
)
def test_ordinary_aliases_are_no_cloaking(name: str, chain: list[str]) -> None:
    known = read_known(_shipped("hosting"), _shipped("trackers"))
    assert cloaked(parse(name), [parse(target) for target in chain], _installed(), known) is None


_LABEL = st.sampled_from(["a", "b", "shop", "cdn", "tracker", "t", "pages"])
_NAME = st.builds(
    lambda labels, top: DomainName(".".join([*labels, top])),
    st.lists(_LABEL, max_size=3),
    st.sampled_from(["com", "net", "co.uk", "example", "lan"]),
)


@given(_NAME, st.lists(_NAME, max_size=6))
def test_what_is_found_is_in_the_chain_and_not_the_names_own(
    name: DomainName, chain: list[DomainName]
) -> None:
    found = cloaked(name, chain, SUFFIXES, KNOWN)
    if found is None:
        assert not [one for one in chain if is_below(one, DomainName("tracker.example"))] or (
            SUFFIXES.registrable(name) == "tracker.example"
        )
        return
    assert chain[found.hop - 1] == found.target
    assert 0 <= found.hosted < found.hop <= found.hops == len(chain)
    assert found.suffix != SUFFIXES.registrable(name)
