"""Lists in force: which one decides, on which line, and what shields from it."""

from collections.abc import Sequence
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules import rtype
from rules.address import Address, parse_address
from rules.decision import LocalRecord, Refuse
from rules.denylist import DenyTable, MalformedTableError
from rules.listed import Listed, Lists
from rules.name import DomainName, is_below, parse
from rules.ruleset import ListSource
from tests.rules.lists.reading import compiled, source, table

SOA = "@ SOA a. b. 1 2 3 4 5\n"
ME = "me"


def found(lists: DenyTable, name: str, app: str = ME) -> tuple[str, str, Refuse | None] | None:
    """Return id, trigger and wording of what denies a name."""
    listed = lists.find(app, parse(name))
    return None if listed is None else (listed.id, listed.trigger, listed.refuse)


def at(lists: DenyTable, address: str, name: str | None = None, app: str = ME) -> str | None:
    listed = lists.find_address(app, parse_address(address), None if name is None else parse(name))
    return None if listed is None else f"{listed.id} {listed.trigger}"


def served(lists: DenyTable, server: str, name: str | None = None) -> str | None:
    listed = lists.find_server(ME, parse(server), None if name is None else parse(name))
    return None if listed is None else f"{listed.id} {listed.trigger}"


def test_the_table_is_what_deciding_asks() -> None:
    lists: Lists = table((source(), "a.example\n"))
    assert lists.find(ME, parse("a.example")) == Listed("bad.txt", 1, "a.example")


def test_a_plain_domain_covers_what_is_below_and_a_hosts_line_does_not() -> None:
    plain = table((source(), "# c\na.example\n"))
    assert found(plain, "x.y.a.example") == ("bad.txt:2", "a.example", None)
    assert found(plain, "a.example") == ("bad.txt:2", "a.example", None)
    hosts = table((source(), "0.0.0.0 a.example\n"))
    assert found(hosts, "a.example") == ("bad.txt:1", "a.example", None)
    for name in ("x.a.example", "example", "ba.example", "a.example.org"):
        assert found(hosts, name) is None
    for name in ("xa.example", "example", "a.example.org", "."):
        assert plain.find(ME, DomainName(name)) is None


def test_an_exemption_of_an_adblock_list_wins_wherever_it_stands() -> None:
    lists = table((source(), "||a.example^\n||b.ok.a.example^\n@@||ok.a.example^\n"))
    assert found(lists, "x.a.example") == ("bad.txt:1", "a.example", None)
    for name in ("ok.a.example", "b.ok.a.example", "x.b.ok.a.example"):
        assert found(lists, name) is None


def test_what_passes_one_list_is_asked_of_the_next() -> None:
    """Passthru shields from later triggers of the same list only."""
    one = source("one"), "||a.example^\n@@||ok.a.example^\n"
    two = source("two", refuse=Refuse.SINKHOLE), "b.example\nok.a.example\n"
    lists = table(one, two)
    assert found(lists, "ok.a.example") == ("two:2", "ok.a.example", Refuse.SINKHOLE)
    assert found(lists, "x.a.example") == ("one:1", "a.example", None)


def test_in_a_policy_zone_the_name_itself_wins_over_wildcards_and_the_nearest_of_these() -> None:
    zone = (
        SOA + "*.example CNAME .\n*.a.example CNAME rpz-passthru.\nx.a.example CNAME rpz-drop.\n"
        "*.c.a.example CNAME *.\n"
    )
    lists = table((source(), zone))
    assert found(lists, "b.example") == ("bad.txt:2", "*.example", Refuse.NXDOMAIN)
    assert found(lists, "y.a.example") is None
    assert found(lists, "x.a.example") == ("bad.txt:4", "x.a.example", Refuse.DROP)
    assert found(lists, "y.x.a.example") is None
    assert found(lists, "d.c.a.example") == ("bad.txt:5", "*.c.a.example", Refuse.NODATA)
    assert found(lists, "c.a.example") is None
    assert found(lists, "a.example") == ("bad.txt:2", "*.example", Refuse.NXDOMAIN)
    assert found(lists, "example") is None


def test_a_policy_zone_may_deny_every_name() -> None:
    lists = table((source(), SOA + "* CNAME .\nok.example CNAME rpz-passthru.\n"))
    assert found(lists, "a.b.example") == ("bad.txt:2", "*", Refuse.NXDOMAIN)
    assert found(lists, "ok.example") is None
    assert lists.find(ME, DomainName(".")) is None


def test_the_first_list_decides_and_the_lists_own_wording_beats_its_actions() -> None:
    one = source("one", refuse=Refuse.REFUSED), SOA + "a.example CNAME .\nb.example A 192.0.2.1\n"
    lists = table(one, (source("two"), "a.example\n"))
    assert found(lists, "a.example") == ("one:2", "a.example", Refuse.REFUSED)
    listed = lists.find(ME, parse("b.example"))
    assert listed is not None
    assert (listed.id, listed.refuse, listed.local) == ("one:3", Refuse.REFUSED, ())


def test_except_cures_a_false_positive_with_what_is_below() -> None:
    one = source("one", excepts=frozenset({parse("ok.a.example")})), "a.example\n"
    lists = table(one, (source("two"), "||z.ok.a.example^\n"))
    assert found(lists, "x.a.example") == ("one:1", "a.example", None)
    assert found(lists, "ok.a.example") is None
    assert found(lists, "y.ok.a.example") is None
    assert found(lists, "z.ok.a.example") == ("two:1", "z.ok.a.example", None)


def test_a_list_covers_the_apps_that_it_names() -> None:
    one = source("one", apps=frozenset({"me", "you"})), "a.example\n"
    lists = table(one)
    assert (lists.covers_all, lists.covers("me"), lists.covers("he")) == (False, True, False)
    assert found(lists, "a.example", "you") is not None
    assert found(lists, "a.example", "he") is None
    lists = table(one, (source("two"), "b.example\n"))
    assert (lists.covers_all, lists.covers("he")) == (True, True)
    assert found(lists, "a.example", "he") is None
    assert found(lists, "b.example", "he") is not None


def test_local_data_of_all_lines_of_a_name_is_the_answer() -> None:
    zone = SOA + "a.example 30 A 192.0.2.1\na.example A 192.0.2.2\n*.a.example CNAME *.garden.\n"
    lists = table((source(format="rpz"), zone))
    assert lists.find(ME, parse("a.example")) == Listed(
        "bad.txt",
        2,
        "a.example",
        Refuse.NODATA,
        (
            LocalRecord(rtype.A, 30, b"\xc0\x00\x02\x01"),
            LocalRecord(rtype.A, 60, b"\xc0\x00\x02\x02"),
        ),
    )
    wild = lists.find(ME, parse("x.a.example"))
    assert wild is not None
    (record,) = wild.local
    assert record.rdata == b"\x01x\x01a\x07example\x06garden\x00"
    long = lists.find(ME, parse("y." * 121 + "a.example"))
    assert long is not None
    assert (long.local, long.refuse) == ((), Refuse.NODATA)


def test_records_are_handed_out_only_of_a_list_that_is_said_to_be_a_policy_zone() -> None:
    """A list of others' making may not lead names into private networks unasked."""
    lists = table((source(), SOA + "a.example A 10.0.0.1\n"))
    listed = lists.find(ME, parse("a.example"))
    assert listed is not None
    assert (listed.local, listed.refuse, listed.line) == ((), Refuse.NODATA, 2)


def test_addresses_are_denied_by_the_longest_prefix_and_whatever_carries_them() -> None:
    zone = SOA + (
        "24.0.2.0.192.rpz-ip CNAME .\n32.1.2.0.192.rpz-ip CNAME rpz-passthru.\n"
        "32.zz.db8.2001.rpz-ip CNAME rpz-drop.\n"
    )
    lists = table((source("one"), zone), (source("two"), "192.0.2.0/30\n"))
    assert at(lists, "192.0.2.9") == "one:2 192.0.2.0/24"
    assert at(lists, "192.0.2.1") == "two:1 192.0.2.0/30"
    assert at(lists, "192.0.3.1") is None
    assert at(lists, "2001:db8::5") == "one:4 2001:db8::/32"
    assert at(lists, "2001:db9::5") is None
    for carrier in ("::ffff:192.0.2.9", "64:ff9b::192.0.2.9", "2002:c000:209::1"):
        assert at(lists, carrier) == "one:2 192.0.2.0/24"


def test_what_lets_a_name_pass_shields_it_from_the_addresses_of_that_list() -> None:
    zone = SOA + "ok.example CNAME rpz-passthru.\n32.1.2.0.192.rpz-ip CNAME .\n"
    excepts = frozenset({parse("fine.example")})
    lists = table((source("one", excepts=excepts), zone))
    assert at(lists, "192.0.2.1", "bad.example") == at(lists, "192.0.2.1") == "one:3 192.0.2.1/32"
    assert at(lists, "192.0.2.1", "ok.example") is None
    assert at(lists, "192.0.2.1", "www.fine.example") is None
    lists = table((source("one", excepts=excepts), zone), (source("two"), "192.0.2.1\n"))
    assert at(lists, "192.0.2.1", "ok.example") == "two:1 192.0.2.1/32"


def test_an_address_answers_with_local_data_but_never_for_a_name_that_nobody_asked() -> None:
    zone = SOA + "32.1.2.0.192.rpz-ip CNAME *.garden.\n32.1.2.0.192.rpz-ip TXT x\n"
    lists = table((source(format="rpz"), zone))
    address = parse_address("192.0.2.1")
    listed = lists.find_address(ME, address)
    assert listed is not None
    assert [record.rtype for record in listed.local] == [rtype.TXT]
    listed = lists.find_address(ME, address, parse("a.example"))
    assert listed is not None
    assert [record.rtype for record in listed.local] == [rtype.CNAME, rtype.TXT]


def test_name_servers_are_denied_as_names_are() -> None:
    zone = SOA + (
        "ns.bad.example.rpz-nsdname CNAME .\n*.worse.example.rpz-nsdname CNAME .\n"
        "ok.example CNAME rpz-passthru.\n"
    )
    lists = table((source(excepts=frozenset({parse("ns2.worse.example")})), zone))
    assert served(lists, "ns.bad.example") == "bad.txt:2 ns.bad.example"
    assert served(lists, "ns.worse.example", "a.example") == "bad.txt:3 *.worse.example"
    for server in ("x.ns.bad.example", "bad.example", "worse.example", "ns2.worse.example"):
        assert served(lists, server) is None
    assert served(lists, "ns.bad.example", "ok.example") is None
    assert found(lists, "ns.bad.example") is None
    lists = table((source(), "ns.bad.example\n"))
    assert served(lists, "ns.bad.example") is None


def test_octets_that_are_no_table_of_these_lists_are_refused() -> None:
    one = source()
    octets = b"".join(compiled((one, "a.example\n")).pieces)
    assert DenyTable(memoryview(octets), (one,)).find(ME, parse("a.example")) is not None
    for broken, sources in ((b"", (one,)), (octets, ()), (octets[:-8], (one,))):
        with pytest.raises(MalformedTableError):
            DenyTable(memoryview(broken), sources)


LABELS = st.sampled_from(["a", "b", "c"])
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join).map(lambda name: parse(f"{name}.x"))
ACTIONS = st.sampled_from([".", "*.", "rpz-passthru.", "rpz-drop."])
PREFIXES = st.sampled_from(["10.0.0.0/8", "10.0.0.0/31", "10.0.0.1/32", "2001:db8::/32"])
RPZ_IP = {
    "10.0.0.0/8": "8.0.0.0.10",
    "10.0.0.0/31": "31.0.0.0.10",
    "10.0.0.1/32": "32.1.0.0.10",
    "2001:db8::/32": "32.zz.db8.2001",
}
ADDRESSES = st.sampled_from(["10.0.0.0", "10.0.0.1", "10.9.9.9", "11.0.0.1", "2001:db8::1"])
REFUSE = {".": Refuse.NXDOMAIN, "*.": Refuse.NODATA, "rpz-drop.": Refuse.DROP}

type Zone = list[tuple[str, str]]  # owner and target of each record; a name is as a zone has it


class Naive:
    """Policy zones by their definition: every trigger is looked at, and the best one is taken."""

    def __init__(self, zones: Sequence[tuple[ListSource, Zone]]) -> None:
        self.zones = zones

    def find(self, app: str, name: DomainName) -> tuple[str, Refuse] | None:
        for one, zone in self.zones:
            if self.skips(one, app, name):
                continue
            best = self.best(zone, name)
            if best is not None and zone[best][1] in REFUSE:
                return f"{one.shown}:{best + 2}", REFUSE[zone[best][1]]
        return None

    def find_address(self, app: str, text: str, name: DomainName) -> tuple[str, Refuse] | None:
        for one, zone in self.zones:
            of_name = self.best(zone, name)
            passes = of_name is not None and zone[of_name][1] == "rpz-passthru."
            if passes or self.skips(one, app, name):
                continue
            fitting = [
                (-ip_network(owner).prefixlen, line)
                for line, (owner, _) in enumerate(zone)
                if "/" in owner and ip_address(text) in ip_network(owner)
            ]
            if fitting and zone[min(fitting)[1]][1] in REFUSE:
                line = min(fitting)[1]
                return f"{one.shown}:{line + 2}", REFUSE[zone[line][1]]
        return None

    def skips(self, one: ListSource, app: str, name: DomainName) -> bool:
        excepted = any(each == name or is_below(name, each) for each in one.excepts)
        return excepted or not (one.apps is None or app in one.apps)

    def best(self, zone: Zone, name: DomainName) -> int | None:
        fitting = []
        for line, (owner, _) in enumerate(zone):
            base = parse(owner.removeprefix("*.")) if "/" not in owner else None
            if base is not None and (is_below(name, base) if "*" in owner else name == base):
                fitting.append((-base.count(".") - (owner == name), line))
        return min(fitting)[1] if fitting else None


def written(zone: Zone) -> str:
    return SOA + "".join(
        f"{RPZ_IP[owner]}.rpz-ip CNAME {to}\n" if "/" in owner else f"{owner} CNAME {to}\n"
        for owner, to in zone
    )


OWNERS = NAMES | NAMES.map(lambda name: f"*.{name}") | PREFIXES
ZONES = st.lists(st.tuples(OWNERS, ACTIONS), max_size=8)
SOURCES = st.builds(
    lambda name, excepts, apps: source(name, format="rpz", excepts=excepts, apps=apps),
    st.sampled_from(["one", "two"]),
    st.frozensets(NAMES, max_size=1),
    st.sampled_from([None, None, frozenset({"me"}), frozenset({"you"})]),
)


@given(st.lists(st.tuples(SOURCES, ZONES), max_size=3), NAMES, ADDRESSES)
def test_the_table_says_what_the_definition_says(
    zones: list[tuple[ListSource, Zone]], name: DomainName, text: str
) -> None:
    lists, naive = table(*((one, written(zone)) for one, zone in zones)), Naive(zones)
    address: Address = parse_address(text)
    for app in ("me", "you"):
        said = lists.find(app, name)
        assert (said and (said.id, said.refuse)) == naive.find(app, name)
        said = lists.find_address(app, address, name)
        assert (said and (said.id, said.refuse)) == naive.find_address(app, text, name)


@given(st.sets(NAMES, max_size=12), NAMES)
def test_plain_domains_are_found_at_any_depth(domains: set[DomainName], name: DomainName) -> None:
    ordered = sorted(domains)
    lists = table((source(format="plain"), "".join(f"{each}\n" for each in ordered)))
    covering = [each for each in ordered if name == each or is_below(name, each)]
    said = lists.find(ME, name)
    nearest = max(covering, key=len, default=None)
    assert (said and said.trigger) == nearest
    assert said is None or said.line == ordered.index(DomainName(said.trigger)) + 1
