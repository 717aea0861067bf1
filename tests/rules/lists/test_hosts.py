"""hosts files deny the names that they send to this host, as they are."""

from rules.lists.hosts import read_hosts
from rules.lists.layout import Deed, Scope
from tests.rules.lists.reading import Outcome

EXACT, DENY = Scope.EXACT, Deed.DENY


def test_names_after_an_address_of_this_host_are_denied() -> None:
    found = Outcome(
        read_hosts,
        """\
        # a list
        0.0.0.0 one.example.com
        127.0.0.1\ttwo.example.com # why
        ::1 three.example.com
        :: four.example.com\x20
          127.0.0.53   Five.Example.COM. six.example.com

        0.0.0.0 bücher.example
        """,
    )
    assert found.read == [
        (2, "one.example.com", EXACT, DENY),
        (3, "two.example.com", EXACT, DENY),
        (4, "three.example.com", EXACT, DENY),
        (5, "four.example.com", EXACT, DENY),
        (6, "five.example.com", EXACT, DENY),
        (6, "six.example.com", EXACT, DENY),
        (8, "xn--bcher-kva.example", EXACT, DENY),
    ]
    assert found.skipped == {}


def test_names_of_the_host_itself_are_no_entries() -> None:
    text = (
        "127.0.0.1 localhost\n127.0.0.1 localhost.localdomain\nff02::1 ip6-allnodes\n"
        "0.0.0.0 0.0.0.0\nfe80::1%lo0 localhost\n::1 ip6-loopback LOCALHOST bad.example\n"
    )
    found = Outcome(read_hosts, text)
    assert found.read == [(6, "bad.example", EXACT, DENY)]
    assert found.skipped == {"LOCAL_NAME": 5, "MAPPING": 2}


def test_a_line_with_an_address_elsewhere_maps_and_does_not_deny() -> None:
    found = Outcome(read_hosts, "192.0.2.1 www.example.com\n")
    assert (found.read, found.skipped) == ([], {"MAPPING": 1})


def test_what_cannot_be_read_is_said_at_its_place_and_the_rest_is_read() -> None:
    found = Outcome(
        read_hosts,
        "bad.example\n0.0.0.0\n0.0.0.0 a..b c.example\n0.0.0.0 10.0.0.1\n"
        f"0.0.0.0 {'a.' * 130}example\n",
    )
    assert found.read == [(3, "c.example", EXACT, DENY)]
    assert [warning.split(": ")[0] for warning in found.warnings] == [
        "lists/bad.txt:1:1 'bad.example' is no address before names",
        "lists/bad.txt:2:1 '0.0.0.0' is no address before names",
        "lists/bad.txt:3:9 'a..b' is not a domain name",
        "lists/bad.txt:4:9 '10.0.0.1' is an address, not a name",
        f"lists/bad.txt:5:9 '{('a.' * 130)[:255]}' is not a domain name",
    ]
    assert found.skipped == {"MALFORMED": 5}
