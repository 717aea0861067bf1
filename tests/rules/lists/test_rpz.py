"""Policy zones: owners are triggers, data is the action (draft-vixie-dnsop-dns-rpz-00)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules import rtype
from rules.address import parse_network
from rules.decision import LocalRecord
from rules.lists.layout import Deed, Scope, key_of_network
from rules.lists.rpz import read_rpz
from rules.lists.trigger import Tally
from tests.rules.lists.reading import Outcome

HEAD = "$TTL 60\n@ SOA localhost. root.localhost. 1 2 3 4 5\n@ NS localhost.\n"
EXACT, BELOW = Scope.EXACT, Scope.BELOW


def test_each_action_of_a_name() -> None:
    found = Outcome(
        read_rpz,
        HEAD
        + "nx.example CNAME .\n"
        + "*.nx.example CNAME .\n"
        + "empty.example CNAME *.\n"
        + "ok.example CNAME RPZ-passthru.\n"
        + "old.example CNAME old.example.\n"
        + "drop.example CNAME rpz-drop.\n"
        + "* CNAME .\n",
    )
    assert found.read == [
        (4, "nx.example", EXACT, Deed.NXDOMAIN),
        (5, "nx.example", BELOW, Deed.NXDOMAIN),
        (6, "empty.example", EXACT, Deed.NODATA),
        (7, "ok.example", EXACT, Deed.PASSTHRU),
        (8, "old.example", EXACT, Deed.PASSTHRU),
        (9, "drop.example", EXACT, Deed.DROP),
        (10, ".", BELOW, Deed.NXDOMAIN),
    ]
    assert found.skipped == {}


def test_owners_may_be_absolute_and_below_the_zone_of_the_soa() -> None:
    zone = "rpz.example. SOA a. b. 1 2 3 4 5\nbad.example.rpz.example. CNAME .\nx CNAME .\n"
    assert [key for _, key, _, _ in Outcome(read_rpz, zone).read] == ["bad.example", "x"]


def test_local_data_is_kept_with_type_and_time_to_live() -> None:
    found = Outcome(
        read_rpz,
        HEAD
        + "a.example 30 A 192.0.2.1\n  AAAA 2001:db8::1\n  TXT why\nb.example CNAME *.garden.\n",
    )
    assert {deed for _, _, _, deed in found.read} == {Deed.LOCAL}
    assert [each.record for each in found.triggers] == [
        LocalRecord(rtype.A, 30, b"\xc0\x00\x02\x01"),
        LocalRecord(rtype.AAAA, 60, b" \x01\r\xb8" + bytes(11) + b"\x01"),
        LocalRecord(rtype.TXT, 60, b"\x03why"),
        LocalRecord(rtype.CNAME, 60, b"\x01*\x06garden\x00"),
    ]


def test_a_type_that_is_not_read_leaves_the_name_denied_and_empty() -> None:
    found = Outcome(read_rpz, HEAD + "a.example MX 10 mail.\n")
    assert found.read == [(4, "a.example", EXACT, Deed.LOCAL)]
    assert found.triggers[0].record is None
    assert found.skipped == {"RECORD": 1}


@pytest.mark.parametrize(
    ("owner", "network"),
    [
        ("32.1.2.0.192", "192.0.2.1/32"),
        ("24.0.2.0.192", "192.0.2.0/24"),
        ("128.1.zz.db8.2001", "2001:db8::1/128"),
        ("32.zz.db8.2001", "2001:db8::/32"),
        ("128.1.zz", "::1/128"),
        ("0.zz", "::/0"),
        ("128.8.7.6.5.4.3.2.1", "1:2:3:4:5:6:7:8/128"),
    ],
)
def test_addresses_stand_reversed(owner: str, network: str) -> None:
    (trigger,) = Outcome(read_rpz, f"{HEAD}{owner}.rpz-ip CNAME .\n").triggers
    assert trigger.key == key_of_network(parse_network(network))
    assert (trigger.scope, trigger.deed) == (EXACT, Deed.NXDOMAIN)


def test_name_servers_are_names_with_a_mark() -> None:
    text = HEAD + "ns.bad.example.rpz-nsdname CNAME .\n*.bad.example.rpz-nsdname CNAME *.\n"
    assert Outcome(read_rpz, text).read == [
        (4, "@ns.bad.example", EXACT, Deed.NXDOMAIN),
        (5, "@bad.example", BELOW, Deed.NODATA),
    ]


def test_what_is_not_seen_here_or_not_done_is_counted() -> None:
    found = Outcome(
        read_rpz,
        HEAD + "32.1.2.0.192.rpz-nsip CNAME .\n32.1.2.0.192.rpz-client-ip CNAME .\n"
        "a.example CNAME rpz-tcp-only.\nb.example NS a.\nc.example RRSIG x\n",
    )
    assert (found.read, found.skipped) == ([], {"INVISIBLE": 2, "ACTION": 1})


@pytest.mark.parametrize(
    ("record", "place"),
    [
        ("@ CNAME .", "4:1"),
        ("a.example.other. CNAME .", "4:1"),
        ("a..example CNAME .", "4:1"),
        ("a.*.example CNAME .", "4:1"),
        ("33.1.2.0.192.rpz-ip CNAME .", "4:1"),
        ("24.1.2.0.192.rpz-ip CNAME .", "4:1"),
        ("rpz-ip CNAME .", "4:1"),
        ("24.zz.1.zz.rpz-ip CNAME .", "4:1"),
        ("a.example A 192.0.2.300", "4:1"),
        ("a.example CNAME a. b.", "4:1"),
        ("a.example CNAME rpz-passthru", "4:1"),
    ],
)
def test_what_is_no_trigger_or_no_data_is_said_at_its_place(record: str, place: str) -> None:
    found = Outcome(read_rpz, f"{HEAD}{record}\nok.example CNAME .\n")
    assert [key for _, key, _, _ in found.read] == ["ok.example"]
    (warning,) = found.warnings
    assert warning.startswith(f"lists/bad.txt:{place} ")


WORDS = st.sampled_from(
    [*'a *.@()"\n', "24.0.2.0.192", ".rpz-ip", ".zz", ".rpz-nsdname", " CNAME ", " A ", "rpz-drop."]
)


@given(st.lists(WORDS, max_size=30).map("".join) | st.text())
def test_any_text_is_read_or_counted(text: str) -> None:
    tally = Tally("a")
    lines = text.splitlines(keepends=True)
    for trigger in read_rpz(enumerate(lines, 1), tally):
        assert trigger.key
        assert 1 <= trigger.line <= len(lines)
