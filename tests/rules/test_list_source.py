"""An entry of `lists` says which file denies, how it is read, and whom it covers."""

import pytest

from rules.decision import Refuse
from rules.ruleset import ListSource
from rules.syntax import load
from rules.text import SourceText
from tests.rules.files import SUFFIXES, errors_of, load_files


def source(entry: str, file: str = "/etc/rules.d/a.yaml") -> ListSource:
    text = f"apps: {{me: {{}}}}\nlists:\n  - {entry}\n"
    (found,) = load([SourceText(file, text)], SUFFIXES, 1, {}).ruleset.lists
    return found


def test_an_entry_has_the_defaults_of_the_reference() -> None:
    place, shown = "/etc/rules.d/a.yaml:3", "lists/exfil.txt"
    assert source("{file: lists/exfil.txt}") == ListSource(
        place, "/etc/rules.d/lists/exfil.txt", shown, "auto", None, frozenset(), None
    )


def test_an_entry_holds_what_is_written() -> None:
    found = source(
        "{file: /srv/bad.rpz, format: rpz, refuse: sinkhole, "
        "except: [OK.example.com., bücher.example], apps: [me]}"
    )
    assert (found.file, found.shown, found.format) == ("/srv/bad.rpz", "/srv/bad.rpz", "rpz")
    assert found.refuse is Refuse.SINKHOLE
    assert found.excepts == {"ok.example.com", "xn--bcher-kva.example"}
    assert found.apps == frozenset({"me"})


@pytest.mark.parametrize("name", ["auto", "hosts", "plain", "adblock", "rpz"])
def test_each_format_may_be_named(name: str) -> None:
    assert source(f"{{file: a, format: {name}}}").format == name


def test_a_path_is_relative_to_the_rule_file() -> None:
    assert source("{file: a.txt}", "rules/a.yaml").file == "rules/a.txt"
    assert source("{file: ../a.txt}").file == "/etc/rules.d/../a.txt"


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ('{file: ""}', "a.yaml:2:12 '' is no path"),
        ('{file: "a\\0b"}', "a.yaml:2:12 'a\\x00b' is no path"),
        ("{file: a, format: dnsmasq}", "a.yaml:2:23 `format` wants one of adblock, auto, hosts"),
        ("{file: a, except: [b.c, 10.0.0.1]}", "a.yaml:2:29 '10.0.0.1' is an address, not a name"),
        ("{file: a, except: [https://b.c/]}", "a.yaml:2:24 'https://b.c/' is not a domain name"),
        ("{file: a, exept: [b.c]}", "a.yaml:2:15 'exept' is no key of an item of `lists`"),
    ],
)
def test_what_is_wrong_is_said_at_its_place(entry: str, problem: str) -> None:
    (found,) = errors_of(f"lists:\n  - {entry}\n")
    assert found.startswith(problem)


def test_a_list_that_is_wrong_is_no_source_and_the_others_are_read() -> None:
    assert len(errors_of("lists: [{file: ''}, {file: a}, {file: 5}]")) == 2
    assert [each.shown for each in load_files("lists: [{file: b}, {file: a}]").ruleset.lists] == [
        "b",
        "a",
    ]
