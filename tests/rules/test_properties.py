"""What holds of every decision, whatever the rules and the fact."""

from ipaddress import IPv4Address, IPv6Address
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from rules.decide import decide
from rules.decision import Reason, UpgradeTls, Verdict
from rules.facts import (
    Attestation,
    Connect,
    Endpoint,
    Evidence,
    Facts,
    Level,
    Principal,
    Question,
    Request,
)
from rules.name import parse
from rules.path import readings
from rules.rtype import AAAA, TXT, A
from rules.ruleset import AllowRule, DenyRule, Requirements
from tests.rules.written import ME, allow, deny, index

ALLOW, DENY = Verdict.ALLOW, Verdict.DENY
MTLS = Requirements(mtls=True)
ATTESTED = Requirements(attested=Level.SOFTWARE, max_age_s=300)
STRONG = Requirements(attested=Level.TPM, max_age_s=60)
PROVEN = Principal("me", (Evidence.CERTIFICATE,))
ATTESTED_ENTRIES = st.builds(Attestation, st.sampled_from(Level), st.sampled_from([60, 300, 600]))

HOSTS = st.sampled_from(["a.org", "b.a.org", "*.a.org", "**.a.org", "**.org", "c.net"])
DENIED_HOSTS = st.one_of(HOSTS, st.just("*"))
PORTS = st.sets(st.sampled_from([80, 443]), min_size=1)
TYPES = st.sets(st.sampled_from([A, AAAA, TXT]), min_size=1)
BLOCKS = st.sampled_from(["10.0.0.0/8", "0.0.0.0/0", "8.8.8.8/32", "::/0"])
METHODS = st.one_of(st.none(), st.sets(st.sampled_from(["GET", "PUT"]), min_size=1))
PATHS = st.one_of(
    st.none(), st.lists(st.sampled_from(["/x", "/*", "/**", "/x/**", "/**/y"]), min_size=1)
)
REQUIRE = st.sampled_from([None, MTLS, ATTESTED, STRONG])
UPGRADES = st.sampled_from([None, UpgradeTls()])
ALLOWS = st.builds(
    allow,
    HOSTS,
    ports=PORTS,
    types=TYPES,
    addresses=st.lists(BLOCKS, max_size=1),
    methods=METHODS,
    paths=PATHS,
    tls=st.booleans(),
    accept_ech=st.booleans(),
    require=REQUIRE,
    from_pack=st.booleans(),
    upgrade=UPGRADES,
)
LITERALS = st.builds(allow, addresses=st.lists(BLOCKS, min_size=1), ports=PORTS, methods=METHODS)
DENIES = st.builds(
    deny,
    DENIED_HOSTS,
    ports=st.one_of(st.none(), PORTS),
    types=st.one_of(st.none(), TYPES),
    addresses=st.one_of(st.none(), st.lists(BLOCKS, min_size=1)),
    methods=METHODS,
    paths=PATHS,
)
RULES = st.lists(st.one_of(ALLOWS, LITERALS, DENIES), max_size=6).map(
    lambda rules: [replace(rule, id=f"r{n}") for n, rule in enumerate(rules)]
)
WHO = st.one_of(
    st.sampled_from([ME, PROVEN, Principal("unknown"), Principal("unknown", (Evidence.TOKEN,))]),
    st.lists(ATTESTED_ENTRIES, max_size=2).map(
        lambda entries: Principal("me", PROVEN.evidence, tuple(entries))
    ),
)
NAMES = st.sampled_from(
    ["a.org", "b.a.org", "c.b.a.org", "evila.org", "org", "c.net", "x.test"]
).map(parse)
ADDRESSES = st.one_of(
    st.sampled_from(["8.8.8.8", "10.1.1.1", "127.0.0.1"]).map(IPv4Address),
    st.sampled_from(["2606::1", "::ffff:10.1.1.1", "::1"]).map(IPv6Address),
    st.ip_addresses(),
)
PORT = st.sampled_from([22, 80, 443])
PATH = st.sampled_from(["/", "/x", "/x/y", "/z%2Fy", "//x", "not a path", ""])
FACTS: st.SearchStrategy[Facts] = st.one_of(
    st.builds(
        Question, WHO, NAMES, st.sampled_from([A, AAAA, TXT, 65535]), st.one_of(st.none(), NAMES)
    ),
    st.builds(Connect, WHO, st.one_of(NAMES, ADDRESSES), PORT),
    st.builds(Endpoint, WHO, st.one_of(st.none(), NAMES), ADDRESSES, st.one_of(st.none(), PORT)),
    st.builds(
        Request, WHO, st.sampled_from(["GET", "PUT", ""]), st.one_of(NAMES, ADDRESSES), PORT, PATH
    ),
)


@given(RULES, FACTS)
@settings(max_examples=150)
def test_decides_every_fact_under_any_rules(rules: list[AllowRule | DenyRule], fact: Facts) -> None:
    decision = decide(index(*rules), fact)
    assert decision.verdict in {ALLOW, DENY}
    assert decision.verdict is DENY or decision.reason in {Reason.RULE, Reason.LOCAL}
    assert decision.rule is None or decision.rule in {rule.id for rule in rules}


@given(RULES, FACTS, st.randoms(use_true_random=False))
@settings(max_examples=100)
def test_no_rule_order_changes_a_decision(
    rules: list[AllowRule | DenyRule], fact: Facts, chance: Random
) -> None:
    shuffled = rules.copy()
    chance.shuffle(shuffled)
    assert decide(index(*shuffled), fact) == decide(index(*rules), fact)


@given(RULES, DENIES, FACTS)
@settings(max_examples=100)
def test_a_further_deny_never_allows_anything(
    rules: list[AllowRule | DenyRule], more: DenyRule, fact: Facts
) -> None:
    if decide(index(*rules), fact).verdict is DENY:
        assert decide(index(*rules, replace(more, id="r99")), fact).verdict is DENY


@given(RULES, FACTS, ATTESTED_ENTRIES)
@settings(max_examples=100)
def test_a_further_proof_never_takes_anything_away(
    rules: list[AllowRule | DenyRule], fact: Facts, more: Attestation
) -> None:
    who = fact.principal
    proven = replace(who, attested=(*who.attested, more))
    if decide(index(*rules), fact).verdict is ALLOW:
        assert decide(index(*rules), replace(fact, principal=proven)).verdict is ALLOW


@given(RULES, FACTS)
def test_a_deny_of_everything_leaves_only_local_answers(
    rules: list[AllowRule | DenyRule], fact: Facts
) -> None:
    decision = decide(index(*rules, deny("*", id="all")), fact)
    assert decision.verdict is DENY or decision.reason is Reason.LOCAL or fact.principal.app != "me"


def said_plainly(rules: list[AllowRule | DenyRule], fact: Request) -> str | None:
    """Return the rule that decides a Request to a name, by trying every rule in turn."""
    name = str(fact.host)
    fitting = [rule for rule in rules if fits(rule, fact)]
    denies = [rule for rule in fitting if isinstance(rule, DenyRule)]
    if denies:
        return "denied"
    ranked = sorted(
        (
            (specificity(rule, name, fact.path), rule)
            for rule in fitting
            if isinstance(rule, AllowRule)
        ),
        key=lambda pair: pair[0],
        reverse=True,
    )
    return min((rule.id for rank, rule in ranked if rank == ranked[0][0]), default=None)


def fits(rule: AllowRule | DenyRule, fact: Request) -> bool:
    if isinstance(rule, AllowRule):
        is_here = any(one.matches(parse(str(fact.host))) for one in rule.patterns)
        is_here = is_here and not rule.types.isdisjoint({A, AAAA})
        paths: tuple[str, ...] = (fact.path,)
    else:
        is_here = rule.patterns is None or any(
            one.matches(parse(str(fact.host))) for one in rule.patterns
        )
        is_here = is_here and rule.types is None and rule.addresses is None
        paths = readings(fact.path)
    return (
        is_here
        and (rule.ports is None or fact.port in rule.ports)
        and (rule.methods is None or fact.method in rule.methods)
        and (rule.paths is None or any(g.matches(path) for g in rule.paths for path in paths))
    )


def specificity(rule: AllowRule, name: str, path: str) -> tuple[object, ...]:
    kind, length = max(
        (one.kind, len(one.base)) for one in rule.patterns if one.matches(parse(name))
    )
    globs = [glob.rank for glob in rule.paths or () if glob.matches(path)]
    return kind, length, not rule.from_pack, max(globs, default=(0, 0, 0)), rule.methods is not None


REQUESTS = st.builds(
    Request,
    st.just(ME),
    st.sampled_from(["GET", "PUT"]),
    st.sampled_from(["a.org", "b.a.org", "c.b.a.org", "c.net"]).map(parse),
    st.sampled_from([80, 443]),
    st.sampled_from(["/", "/x", "/x/y", "/z/y", "/x%2Fy", "//x"]),
)


@given(RULES, REQUESTS)
@settings(max_examples=150)
def test_a_request_is_decided_as_trying_every_rule_in_turn_would(
    rules: list[AllowRule | DenyRule], fact: Request
) -> None:
    decision = decide(index(*rules), fact)
    expected = said_plainly(rules, fact)
    if expected == "denied":
        assert (decision.verdict, decision.reason) == (DENY, Reason.RULE)
    elif decision.verdict is DENY and decision.rule is None:
        assert expected is None
    else:
        assert decision.rule == expected


REQUESTS = st.builds(
    Request, WHO, st.sampled_from(["GET", "PUT"]), st.one_of(NAMES, ADDRESSES), st.just(80), PATH
)


@given(RULES, REQUESTS)
@settings(max_examples=300)
def test_no_request_is_upgraded_that_its_connect_did_not_tell_of(
    rules: list[AllowRule | DenyRule], fact: Request
) -> None:
    """Else the tunnel of a CONNECT to port 80 would be dialled, and go on, in plain."""
    asked = index(*rules)
    request = decide(asked, fact)
    connect = decide(asked, Connect(fact.principal, fact.host, fact.port))
    if connect.verdict is ALLOW and UpgradeTls() in request.obligations:
        assert UpgradeTls() in connect.obligations


@given(RULES, FACTS)
@settings(max_examples=150)
def test_an_upgrade_changes_how_a_request_goes_on_and_never_whether(
    rules: list[AllowRule | DenyRule], fact: Facts
) -> None:
    if isinstance(fact, Endpoint):
        return  # it is asked with the port that is dialled
    plain = [replace(rule, upgrade=None) if isinstance(rule, AllowRule) else rule for rule in rules]
    with_upgrades, without = decide(index(*rules), fact), decide(index(*plain), fact)
    kept = tuple(each for each in with_upgrades.obligations if not isinstance(each, UpgradeTls))
    assert replace(with_upgrades, obligations=kept) == without
