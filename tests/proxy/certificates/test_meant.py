"""What an admin writes is one thing, or a question back; never the wrong thing."""

import pytest

from proxy.certificates.meant import meant
from proxy.certificates.revoked import Kind
from proxy.errors import ConfigError

APPS = {"coder", "cafe", "7"}


@pytest.mark.parametrize(
    ("what", "kind", "value"),
    [
        ("spiffe://example.org/coder", Kind.SPIFFE_ID, "spiffe://example.org/coder"),
        ("coder", Kind.APP, "coder"),
        ("coder.12", "token", "coder.12"),
        ("00ab:CD:ef".replace("00ab", "ab"), Kind.SERIAL, "abcdef"),
        ("00:01:Fe", Kind.SERIAL, "1fe"),
        ("0x0F", Kind.SERIAL, "f"),
        ("DEADBEEF", Kind.SERIAL, "deadbeef"),
        ("f" * 40, Kind.SERIAL, "f" * 40),
    ],
)
def test_it_is_told_by_its_shape(what: str, kind: str, value: str) -> None:
    assert meant(what, None, APPS) == (kind, value)


@pytest.mark.parametrize("what", ["cafe", "7"])
def test_an_app_that_may_be_a_serial_is_asked_about(what: str) -> None:
    with pytest.raises(ConfigError, match="--kind app or --kind serial"):
        meant(what, None, APPS)
    assert meant(what, "app", APPS) == (Kind.APP, what)
    assert meant(what, "serial", APPS) == (Kind.SERIAL, what)


@pytest.mark.parametrize(
    "what",
    [
        *("codr", "", "f" * 41, "CODER", "coder.x", "ab:c:de", "g0"),
        *("spiffe://", "spiffe://Example.org/a", "spiffe://example.org", "spiffe://a/%41"),
        *("https://example.org/a", "co der", "coder\n", "ab:cd\n", "coder.1\n"),
    ],
)
def test_what_is_none_of_them_is_refused(what: str) -> None:
    with pytest.raises(ConfigError):
        meant(what, None, APPS)


def test_an_app_that_no_rule_speaks_of_has_to_be_named_as_one() -> None:
    with pytest.raises(ConfigError, match="--kind app"):
        meant("gone", None, APPS)
    assert meant("gone", "app", APPS) == (Kind.APP, "gone")


@pytest.mark.parametrize(
    ("what", "kind", "words"),
    [
        ("coder", "serial", "40 hexadecimal digits"),
        ("no app", "app", "lower-case letters"),
        ("coder", "token", r"NAME\.NUMBER"),
        ("coder", "spiffe-id", "no SPIFFE ID"),
        ("spiffe://example.org", "spiffe-id", "trust domain"),
        ("coder", "person", "one of spiffe-id, serial, app, token"),
    ],
)
def test_it_has_to_be_of_the_kind_that_was_said(what: str, kind: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        meant(what, kind, APPS)
