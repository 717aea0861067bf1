"""A secret is found in the names that an app asks for, however it is cut into pieces."""

import base64
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.canaries.known import KnownSecrets
from proxy.leak import Leak
from proxy.limits import Limits
from rules.fingerprint import fingerprint
from rules.name import DomainName, parse
from rules.secret_scan import SecretTable
from tests.rules.test_secret_scan import ENCODINGS, key_of

KEY = bytes(range(32))
SECRET = b"sk-ant-api03-" + key_of(1)
TABLE = SecretTable(KEY, {"mine": fingerprint(SECRET, KEY), "other": fingerprint(key_of(2), KEY)})


class Counts:
    """What was counted."""

    def __init__(self) -> None:
        self.leaks: list[tuple[str, str]] = []
        self.bounds: list[str] = []

    def leak(self, how: str, names: str) -> None:
        self.leaks.append((how, names))


def known(counts: Counts | None = None, apps: int = 1024) -> KnownSecrets:
    counts = counts or Counts()
    made = KnownSecrets(Limits(apps_remembered=apps), counts.bounds.append, counts.leak)
    made.use(TABLE)
    return made


def asked(secrets: KnownSecrets, names: list[str], app: str = "coder") -> Leak | None:
    """Ask for every name; return the first leak."""
    leaks = (secrets.found(app, parse(name)) for name in names)
    return next((leak for leak in leaks if leak is not None), None)


def hex_pieces(size: int) -> list[str]:
    text = SECRET.hex()
    return [text[at : at + size] for at in range(0, len(text), size)]


def test_without_secrets_nothing_is_looked_for() -> None:
    secrets = KnownSecrets(Limits())
    assert not secrets
    assert secrets.found("coder", DomainName(f"{SECRET.hex()[:60]}.evil.example")) is None


@pytest.mark.parametrize(
    ("name", "how"),
    [
        (f"{key_of(1).decode()}.evil.example", "plain"),
        (f"{key_of(1).decode()[:19]}.{key_of(1).decode()[19:]}.evil.example", "plain"),
        (f"{key_of(1).decode()[::-1]}.evil.example", "plain-reversed"),
        (f"x.{SECRET.hex()[20:70]}.evil.example", "hex"),
        (f"{base64.b32encode(SECRET).decode()[30:80]}.evil.example", "base32"),
    ],
)
def test_a_name_that_holds_a_secret_is_a_leak_each_time(name: str, how: str) -> None:
    """threats.md, "The resolver as a channel": names may carry what an app has read."""
    counts = Counts()
    secrets = known(counts)
    assert secrets
    for _ in range(2):
        assert secrets.found("coder", parse(name)) == Leak("mine", how)
    assert counts.leaks == [(how, "one")] * 2


@settings(max_examples=80, deadline=None)
@given(data=st.data(), way=st.sampled_from(sorted(ENCODINGS)), is_reversed=st.booleans())
def test_every_cut_into_pieces_is_found_in_order(
    data: st.DataObject, way: str, *, is_reversed: bool
) -> None:
    """threats.md, "The resolver as a channel": a secret that is split over queries."""
    text = ENCODINGS[way](SECRET).decode().rstrip("=")
    text = "".join(each for each in text[:: -1 if is_reversed else 1] if each.isalnum())
    cuts = data.draw(st.sets(st.integers(1, len(text) - 1)))
    edges = [0, *sorted(cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(edges)]
    pieces = [each for piece in pieces for each in (piece[:60], piece[60:]) if each]
    shape = data.draw(st.sampled_from(("{piece}.{n}.evil.example", "{n}.{piece}.evil.example")))
    names = [shape.format(piece=each, n=f"n{at}") for at, each in enumerate(pieces)]
    leak = asked(known(), names)
    assert leak is not None
    assert leak.secret == "mine"  # noqa: S105 - its name


@pytest.mark.parametrize(
    "shape",
    [
        *("{piece}.evil.example", "{piece}.t.evil.co.uk", "{piece}.a.b.c.evil.example"),
        *("{a}.{b}.t.evil.example", "{n}.{piece}.x.evil.example", "id-{n}.{piece}.evil.example"),
        "{piece}.evil{n}.example",
    ],
)
def test_pieces_are_found_in_the_shapes_that_tools_make(shape: str) -> None:
    counts = Counts()
    names = [
        shape.format(piece=each, a=each[:4], b=each[4:], n=at)
        for at, each in enumerate(hex_pieces(9))
        if len(each) == 9
    ]
    leak = asked(known(counts), names)
    assert leak == Leak("mine", "hex, over several names")
    assert counts.leaks == [("hex", "several")]


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("shape", ["{piece}.n{n}.evil.example", "n{n}.{piece}.t.evil.example"])
def test_the_smallest_pieces_are_found(shape: str, size: int) -> None:
    for text in (SECRET.hex(), base64.b32encode(SECRET).decode().rstrip("=")):
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        names = [shape.format(piece=each, n=at) for at, each in enumerate(pieces)]
        assert asked(known(), names) is not None


def test_names_of_other_zones_between_the_pieces_do_not_hide_them() -> None:
    names = []
    for at, each in enumerate(hex_pieces(7)):
        names += [f"{each}.evil.example", f"www.shop{at % 5}.example", "packages.vendor.example"]
    assert asked(known(), names) is not None


def test_a_name_that_was_just_asked_for_adds_nothing() -> None:
    names = [name for each in hex_pieces(7) for name in [f"{each}.evil.example"] * 3]
    assert asked(known(), names) is not None
    twice = ["ab.x.evil.example", "cd.x.evil.example"]
    secrets = known()
    assert asked(secrets, twice * 40) is None


def test_the_piece_that_completes_a_secret_is_refused_again_and_again() -> None:
    secrets = known()
    for each in hex_pieces(9):
        name = parse(f"{each}.evil.example")
        if secrets.found("coder", name) is not None:
            assert secrets.found("coder", name) is not None
            return
    pytest.fail("nothing was found")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 9])
def test_who_goes_on_after_a_refusal_gets_no_further(size: int) -> None:
    """threats.md, "The resolver as a channel": tools send the next piece whatever was answered."""
    secrets, text = known(), key_of(1).hex()
    wanted = [f"{at}.{text[at : at + size]}.evil.example" for at in range(0, len(text), size)]
    got = sum(asked(secrets, [name]) is None for name in wanted)
    assert size * got < 23 + size
    assert all(asked(secrets, [name]) for name in wanted[-3:])


def test_who_was_found_once_may_ask_for_other_names() -> None:
    secrets = known()
    assert asked(secrets, [f"{piece}.evil.example" for piece in hex_pieces(5)])
    ordinary = [f"{name}{at}.github.com" for at in range(40) for name in ("www", "api", "raw")]
    assert asked(secrets, ordinary) is None
    assert asked(secrets, [f"{name}.evil.example" for name in ("www", "mail", "a", "b")]) is None


def test_the_pieces_of_one_app_are_no_others() -> None:
    secrets = known()
    for at, each in enumerate(hex_pieces(9)):
        assert asked(secrets, [f"{each}.evil.example"], f"app{at % 2}") is None


def test_other_secrets_are_looked_for_from_the_next_name_on() -> None:
    secrets = known()
    name = parse(f"{key_of(3).decode()}.evil.example")
    assert secrets.found("coder", name) is None
    secrets.use(SecretTable(KEY, {"new": fingerprint(key_of(3), KEY)}))
    assert secrets.found("coder", name) == Leak("new", "plain")
    secrets.use(SecretTable(KEY, {}))
    assert not secrets
    assert secrets.found("coder", name) is None


def test_the_apps_that_are_remembered_are_bounded_and_it_is_counted() -> None:
    counts = Counts()
    secrets = known(counts, apps=2)
    for app in ("a", "b", "c"):
        assert asked(secrets, ["www.example.com"], app) is None
    assert counts.bounds == ["apps_remembered"]
    assert len(secrets._trails) == 2


def test_names_of_everyday_are_no_leak() -> None:
    random = Random(5)  # noqa: S311 - a test's
    words = ["www", "api", "cdn", "static", "eu-west-1", "s3", "mail", "d1x2y3", "v2", "a1b2c3d4"]
    tops = ("com", "org", "co.uk", "example", "net")
    secrets = known()
    for _ in range(3000):
        labels = random.sample(words, random.randint(0, 4))
        name = ".".join((*labels, f"site{random.randrange(60)}", random.choice(tops)))
        assert secrets.found("coder", parse(name)) is None


@pytest.mark.parametrize("text", ["{}", "https://{}\x00.example/", "no host: '{} '", "{}".upper()])
def test_what_was_sent_is_written_down_without_a_secret(text: str) -> None:
    sent = text.format(SECRET.decode())
    assert known().purged(sent) == "(a registered secret)"
    assert known().purged(text.format(SECRET.hex())) == "(a registered secret)"
    assert known().purged("an innocent text: of any length; é") == (
        "an innocent text: of any length; é"
    )
