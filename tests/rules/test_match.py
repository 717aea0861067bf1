"""The index finds the rules of a name, an address and a path without searching."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.decision import UpgradeTls
from rules.match import (
    ADDRESS_TYPES,
    HostTable,
    Level,
    finish,
    index_app,
    index_rules,
    index_steps,
    is_selective,
    names_host,
)
from rules.name import ROOT, parse
from rules.rtype import TXT
from rules.ruleset import AllowRule, App, DenyRule, Ruleset
from tests.rules.written import allow, app, deny, index, pattern

LABEL = st.sampled_from(["a", "b", "evil", "xn--bcher-kva", "_dns"])
NAME = st.lists(LABEL, min_size=1, max_size=4).map(".".join)
PATTERN = st.one_of(NAME, NAME.map("*.{}".format), NAME.map("**.{}".format), st.just("*"))


def ids[R: AllowRule | DenyRule](levels: tuple[Level[R], ...]) -> list[list[str]]:
    return [[rule.id for rule in level.origins] for level in levels]


def table(*hosts: str) -> HostTable[AllowRule]:
    return index_app(app(*(allow(host, id=host) for host in hosts))).allows


def test_keeps_the_generation_and_every_app() -> None:
    index = index_rules(Ruleset(7, {"a": App("a"), "b": App("b")}))
    assert index.generation == 7
    assert set(index.apps) == {"a", "b"}
    assert index.apps["a"].app == App("a")


def test_yields_exact_before_child_before_below_and_longer_before_shorter() -> None:
    hosts = ["**.org", "*.b.org", "a.b.org", "**.b.org", "a.org", "*.org", "**.a.b.org"]
    expected = [["a.b.org"], ["*.b.org"], ["**.b.org"], ["**.org"]]
    assert ids(table(*hosts).levels("a.b.org")) == expected
    assert ids(table(*reversed(hosts)).levels("a.b.org")) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("example.com", []),
        ("a.example.com", [["*.example.com"], ["**.example.com"]]),
        ("b.a.example.com", [["**.example.com"]]),
        ("evilexample.com", []),
        ("a.evilexample.com", []),
        ("com", []),
        (".", []),
    ],
)
def test_compares_whole_labels_and_leaves_the_apex_out(
    name: str, expected: list[list[str]]
) -> None:
    """Closes "suffix without label boundary"."""
    assert ids(table("*.example.com", "**.example.com").levels(name)) == expected


def test_every_is_the_last_of_all_levels_of_a_deny() -> None:
    denies = index_app(app(deny("*", id="every"), deny("a.org", id="exact"))).denies
    assert ids(denies.levels("a.org")) == [["exact"], ["every"]]
    assert ids(denies.levels("org")) == [["every"]]
    assert ids(denies.above("org")) == [["every"]]


def test_a_deny_names_its_hosts_and_a_literal_where_it_names_all() -> None:
    literal = ip_address("8.8.8.8")
    assert names_host(deny(), parse("a.org"))
    assert names_host(deny(), literal)
    assert names_host(deny("*.org"), parse("a.org"))
    assert not names_host(deny("*.org"), parse("a.net"))
    assert not names_host(deny("*.org"), literal)
    assert names_host(deny("*"), literal)
    assert names_host(deny("*"), None)


def test_a_deny_without_host_is_of_every_host() -> None:
    denies = index_app(app(deny(id="ports", ports=[25]))).denies
    assert ids(denies.every) == [["ports"]]
    assert denies.every[0].questions == ()


def test_finds_what_covers_all_below_a_name() -> None:
    assert ids(table("**.b.org", "*.b.org", "b.org").above("b.org")) == [["**.b.org"]]
    assert ids(table("**.b.org").above("a.b.org")) == [["**.b.org"]]
    assert table("**.b.org").above("org") == ()
    assert table("a.b.org").above("b.org") == ()


@given(st.lists(PATTERN, max_size=8, unique=True), NAME)
def test_finds_exactly_the_patterns_that_match(hosts: list[str], name: str) -> None:
    denies = index_app(app(*(deny(host, id=host) for host in hosts))).denies
    found = [one for level in ids(denies.levels(name)) for one in level]
    assert sorted(found) == sorted(h for h in hosts if pattern(h).matches(parse(name)))


def test_rules_of_one_pattern_share_a_level_in_the_order_of_their_ids() -> None:
    rules = [allow("a.org", id=id_, ports=[port]) for id_, port in (("b", 1), ("a", 2), ("c", 3))]
    assert ids(index_app(app(*rules)).allows.levels("a.org")) == [["a", "b", "c"]]


def test_rules_that_differ_in_id_and_paths_only_stand_once() -> None:
    rules = [allow("a.org", id=f"r{n}", paths=[f"/{n}"]) for n in range(100)]
    (level,) = index_app(app(*rules)).allows.levels("a.org")
    assert ids((level,)) == [["r0"]]
    assert level.paths is not None
    assert [rule.id for leaf in level.paths.find("/42") for rule in leaf.rules] == ["r42"]


def test_denies_that_differ_in_text_only_stand_once() -> None:
    rules = [deny("a.org", id="b", text="one"), deny("a.org", id="a", text="other")]
    assert ids(index_app(app(*rules)).denies.levels("a.org")) == [["a"]]


def test_denies_of_one_network_with_other_hosts_both_stand() -> None:
    rules = [deny(host, id=host, addresses=["10.0.0.0/8"]) for host in ("a.org", "b.org")]
    networks = index_app(app(*rules)).networks
    assert ids(networks.levels(ip_address("10.1.2.3"))) == [["a.org", "b.org"]]


def test_an_apps_own_allow_stands_before_a_packs_of_the_same_pattern() -> None:
    rules = [allow("a.org", id="a-pack", from_pack=True), allow("a.org", id="own")]
    assert ids(index_app(app(*rules)).allows.levels("a.org")) == [["own"], ["a-pack"]]
    assert ids(index_app(app(rules[0])).allows.levels("a.org")) == [["a-pack"]]


def test_hosts_with_the_same_rules_share_one_level() -> None:
    hosts = [f"h{n}.org" for n in range(50)]
    rules = [allow(*hosts, id="a", ports=[80]), allow(*hosts, *hosts, id="b", paths=["/x"])]
    allows = index_app(app(*rules)).allows
    assert ids(allows.levels("h1.org")) == [["a", "b"]]
    assert allows.levels("h1.org")[0].paths is allows.levels("h49.org")[0].paths
    assert allows.levels("h1.org")[0].selective


def test_one_host_listed_twice_in_a_rule_is_one() -> None:
    assert ids(table("a.org", "a.org").levels("a.org")) == [["a.org"]]
    assert ids(index_app(app(allow("a.org", "a.org"))).allows.levels("a.org")) == [["allow"]]


def test_an_allow_without_address_types_is_of_questions_only() -> None:
    (level,) = index_app(app(allow("a.org", types=[TXT], paths=["/x"]))).allows.levels("a.org")
    assert level.origins == ()
    assert [rule.id for rule in level.questions] == ["allow"]
    assert not level.selective
    assert level.paths is None


@pytest.mark.parametrize(
    ("rule", "of_questions", "of_origins"),
    [
        (deny("a.org"), True, True),
        (deny("a.org", types=[TXT]), True, False),
        (deny("a.org", ports=[80]), False, True),
        (deny("a.org", methods=["POST"]), False, True),
        (deny("a.org", paths=["/x"]), False, True),
    ],
)
def test_a_deny_is_of_what_its_keys_speak_of(
    rule: DenyRule, of_questions: bool, of_origins: bool
) -> None:
    for rules in ((rule,), (rule, deny("a.org", id="other", ports=[25]))):
        (level,) = index_app(app(*rules)).denies.levels("a.org")
        assert (rule in level.questions) is of_questions
        assert (rule in level.origins) is of_origins


def test_a_deny_that_can_match_nothing_is_left_out() -> None:
    index = index_app(app(deny("a.org", types=[TXT], ports=[53])))
    assert index.denies.levels("a.org") == ()


def test_networks_are_found_longest_prefix_first_and_by_version() -> None:
    blocks = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "::/0", "0.0.0.0/0", "2001:db8::/32"]
    rules = [allow(id=block, addresses=[block], types=()) for block in blocks]
    literals = index_app(app(*rules)).literals
    found = ids(literals.levels(ip_address("10.1.2.3")))
    assert found == [["10.1.2.3/32"], ["10.1.0.0/16"], ["10.0.0.0/8"], ["0.0.0.0/0"]]
    assert ids(literals.levels(ip_address("2001:db8::1"))) == [["2001:db8::/32"], ["::/0"]]
    assert literals.levels(ip_address("10.1.2.3"))[0].questions == ()


def test_a_rule_about_many_networks_and_one_listed_twice_is_found_once() -> None:
    rule = allow(addresses=["192.0.2.1/32", "192.0.2.2/32", "192.0.2.2/32"])
    literals = index_app(app(rule)).literals
    assert ids(literals.levels(ip_address("192.0.2.2"))) == [["allow"]]
    assert literals.levels(ip_address("192.0.2.3")) == ()


def test_names_above_allowed_ones_are_known() -> None:
    index = index_app(app(allow("a.b.example.com", "*.x.net", "**.y.z.net", "org")))
    expected = {"b.example.com", "example.com", "com", "x.net", "net", "y.z.net", "z.net", ROOT}
    assert set(index.ancestors) == expected
    assert all(name in index.ancestors for name in expected)
    assert "a.b.example.com" not in index.ancestors
    assert set(index_app(app(deny("a.org"))).ancestors) == set()


MANY = [f"h{number}.example{number % 7}.org" for number in range(5000)]
"""More than are kept in one part of a table."""


def test_a_long_list_is_found_name_by_name() -> None:
    allows = table(*MANY, "*.wild.org")
    assert [ids(allows.levels(name)) for name in (MANY[0], MANY[-1], "no.org")] == [
        [[MANY[0]]], [[MANY[-1]]], [],
    ]  # fmt: skip
    assert ids(allows.levels("a.wild.org")) == [["*.wild.org"]]
    index = index_app(app(allow(*MANY)))
    assert set(index.ancestors) == {ROOT, "org", *(f"example{n}.org" for n in range(7))}


def test_an_index_is_laid_out_in_steps_that_come_to_the_same() -> None:
    networks = [f"10.{n >> 8}.{n & 255}.0/24" for n in range(300)]
    rules = [allow(*MANY, id="list"), *(allow(name, id=name) for name in MANY[:600])]
    rules += [allow(id="net", addresses=networks)]
    of = app(*rules, deny("b.org"))
    steps = list(index_steps(of))
    assert len(steps) > len(MANY) // 256
    index = finish(index_steps(of))
    assert ids(index.allows.levels(MANY[1])) == [[MANY[1]]]
    assert ids(index.literals.levels(ip_address("10.0.9.1"))) == [["net"]]


def test_says_whether_any_rule_judges_requests() -> None:
    assert not index_app(app(allow("a.org"), deny("b.org"))).selective
    assert index_app(app(allow("a.org", methods=["GET"]))).selective
    assert index_app(app(deny("a.org", paths=["/x"]))).selective
    assert is_selective(allow("a.org", paths=["/x"]))


def test_address_types_are_a_and_aaaa() -> None:
    assert sorted(ADDRESS_TYPES) == [1, 28]


def test_says_whether_any_allow_upgrades() -> None:
    assert not index_app(app(allow("a.org"), deny("b.org"))).upgrading
    assert index_app(app(allow("a.org"), allow("b.org", upgrade=UpgradeTls()))).upgrading
    assert ids(table("a.org").levels("a.org")) == [["a.org"]]


def test_rules_that_differ_in_their_upgrade_are_two() -> None:
    rules = [allow("a.org", id="a"), allow("a.org", id="b", upgrade=UpgradeTls())]
    assert ids(index_app(app(*rules)).allows.levels("a.org")) == [["a", "b"]]


def test_a_name_is_known_that_a_pattern_is_itself() -> None:
    allows = index(allow("a.example.com", "*.example.org")).apps["me"].allows
    assert allows.has_name("a.example.com")
    for name in ("example.com", "b.a.example.com", "a.example.org", "example.org"):
        assert not allows.has_name(name)
