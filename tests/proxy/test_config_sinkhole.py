"""`sinkhole:` of sallyport.yaml: what is taken, and what is told of each mistake."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from proxy.config import Locations, read_config
from proxy.config_sinkhole import SinkholeSettings, read_sinkhole
from rules.address import Address
from rules.text import SourceText

TAKEN: set[Address] = {IPv4Address("127.0.0.1"), IPv4Address("127.0.0.7"), IPv6Address("fd00::7")}


def read(
    v4: str | None = None, v6: str | None = None
) -> tuple[SinkholeSettings, list[tuple[str, str, str]]]:
    told: list[tuple[str, str, str]] = []
    found = read_sinkhole(v4, v6, TAKEN, lambda *problem: told.append(problem))
    return found, told


def test_without_a_word_there_is_none() -> None:
    settings, told = read()
    assert (settings, settings.addresses, told) == (SinkholeSettings(), (), [])


def test_reads_a_pair() -> None:
    settings, told = read("127.53.53.53", "fd53::53")
    assert told == []
    assert settings.addresses == (IPv4Address("127.53.53.53"), IPv6Address("fd53::53"))


@pytest.mark.parametrize(("v4", "v6"), [("127.53.53.53", None), (None, "fd53::53")])
def test_one_family_is_enough(v4: str | None, v6: str | None) -> None:
    settings, told = read(v4, v6)
    assert (len(settings.addresses), told) == (1, [])


@pytest.mark.parametrize(
    ("v4", "said"),
    [
        ("127.0.0.1", "every other server"),
        ("127.0.0.7", "that of a listener"),
        ("127.0.0.0", "no host's address"),
        ("127.255.255.255", "no host's address"),
        ("10.0.0.1", "not in 127.0.0.0/8"),
        ("93.184.215.14", "not in 127.0.0.0/8"),
        ("0.0.0.0", "not in 127.0.0.0/8"),
        ("fd53::53", "not in 127.0.0.0/8"),
        ("127.1", "127.1"),
        ("localhost", "localhost"),
    ],
)
def test_an_ipv4_address_that_cannot_be_one_is_told_with_its_cure(v4: str, said: str) -> None:
    settings, ((key, text, cure),) = read(v4)
    assert settings == SinkholeSettings()
    assert key == "sinkhole.v4"
    assert said in text
    assert "127.53.53.53" in cure


@pytest.mark.parametrize(
    ("v6", "said"),
    [
        ("fd00::7", "that of a listener"),
        ("::1", "not in fc00::/7"),
        ("2001:db8::1", "not in fc00::/7"),
        ("fe80::1", "not in fc00::/7"),
        ("::ffff:127.53.53.53", "not in fc00::/7"),
        ("127.53.53.53", "not in fc00::/7"),
        ("fd53::53%lo", "fd53::53%lo"),
    ],
)
def test_an_ipv6_address_that_cannot_be_one_is_told_with_its_cure(v6: str, said: str) -> None:
    settings, ((key, text, cure),) = read(None, v6)
    assert settings == SinkholeSettings()
    assert key == "sinkhole.v6"
    assert said in text
    assert "fd53::53" in cure


def test_both_mistakes_are_told_at_once() -> None:
    _, told = read("10.0.0.1", "::1")
    assert [key for key, *_ in told] == ["sinkhole.v4", "sinkhole.v6"]


def test_a_mistake_is_told_where_it_stands() -> None:
    text = 'listen: {do53: ["127.0.0.7:53"]}\nsinkhole:\n  v4: 127.0.0.7\n  v6: "fd53::53"\n'
    settings, (problem,) = read_config(SourceText("f", text), Locations("/c", "/s", "/r"))
    assert problem.render().startswith("f:3:")
    assert settings.sinkhole.addresses == (IPv6Address("fd53::53"),)
