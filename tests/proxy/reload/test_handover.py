"""Rules that were handed over are the rules that were read, and nothing else is taken."""

import io
import os
import pickle

import pytest

from proxy.reload.handover import (
    ForeignValueError,
    Heading,
    Networks,
    Opening,
    Patterns,
    Piece,
    Request,
    Rules,
    app_pieces,
    digest_of,
    read_apps,
    read_pieces,
    write_piece,
    write_pieces,
)
from rules.decision import FileCertificate, SvidCertificate, UpgradeTls
from rules.errors import Place, Problem
from rules.facts import Level
from rules.match import finish
from rules.ruleset import (
    App,
    Capability,
    IdentityLine,
    Launched,
    ReferenceValues,
    Requirements,
)
from tests.rules.written import allow, app, deny

MANY = [f"h{number}.example.org" for number in range(1000)]
NETWORKS = [f"10.{number // 256}.{number % 256}.0/24" for number in range(500)]
APPS = [
    App("empty", identity=(IdentityLine("f:1", uid=7),), require=Requirements(attested=Level.TPM)),
    app(
        allow("a.org", id="a", paths=["/x/**"], methods=["GET"], addresses=["10.0.0.0/8"]),
        allow(id="literal", addresses=["2001:db8::/32"], ports=[22]),
        deny("b.org", id="b", text="no"),
        deny(id="every", ports=[25]),
    ),
    app(allow("a.org"), allow(*MANY, id="list"), allow("z.org"), deny(*MANY), deny("y.org")),
    app(*(allow(host, id=host) for host in MANY), deny(*MANY)),
    app(allow(*MANY, id="only")),
    app(
        allow("a.org", id="a", addresses=NETWORKS),
        deny(id="b", addresses=NETWORKS),
        allow(*MANY, id="c", addresses=NETWORKS[:2]),
        deny("c.org", id="d"),
    ),
    app(*(allow(*MANY[:100], id=host) for host in MANY[:100])),
    App(
        "attested",
        require=Requirements(attested=Level.TPM, max_age_s=60),
        reference_values=ReferenceValues(
            {7: frozenset({"a" * 64})}, frozenset({"b" * 64}), frozenset(), (Launched("c" * 64),)
        ),
        capabilities=(
            Capability("f:1", "https://api.example/", frozenset({"read"}), 60, frozenset({"me"})),
        ),
        introspects=frozenset({"https://api.example/", "urn:x:y"}),
        max_ages_s=(60, 300),
    ),
    app(
        allow("a.org", id="a", ports=[80], upgrade=UpgradeTls()),
        allow("b.org", id="b", ports=[80], upgrade=UpgradeTls(SvidCertificate("spiffe://a/b"))),
        allow(*MANY, id="c", upgrade=UpgradeTls(FileCertificate("/a.pem", "/a.key"))),
    ),
]


def handed_over(*apps: App) -> list[App]:
    file = io.BytesIO()
    for each in apps:
        write_pieces(file, app_pieces(each))
    file.seek(0)
    return [finish(steps) for steps in read_apps(read_pieces(file))]


@pytest.mark.parametrize("number", range(len(APPS)))
def test_an_app_comes_out_as_it_went_in(number: int) -> None:
    is_same = handed_over(APPS[number]) == [APPS[number]]  # a long list makes a long message
    assert is_same


def test_apps_come_out_in_their_order_and_apart() -> None:
    is_same = handed_over(*APPS) == APPS
    assert is_same
    assert handed_over() == []


def test_a_long_list_comes_in_many_pieces() -> None:
    assert len(app_pieces(APPS[3])) > len(MANY) // 128
    longest = [max(map(len, app_pieces(each))) for each in APPS]
    assert max(longest) < 16384  # each is read while every query waits


def test_a_heading_comes_out_as_it_went_in() -> None:
    problem = Problem(Place("a.yaml", 1, 2), "wrong", "mend it")
    heading = Heading("ab", (problem,), (), ("a.yaml",), ("note",), True, (("me", "cd"),))
    file = io.BytesIO()
    write_piece(file, heading)
    file.seek(0)
    assert list(read_pieces(file)) == [heading]
    assert Request(("rules",)).apps == {}


def test_equal_apps_have_equal_digests_and_others_others() -> None:
    one, other = app(allow("a.org"), deny("b.org")), app(allow("a.org"), deny("c.org"))
    assert digest_of(app_pieces(one)) == digest_of(app_pieces(app(allow("a.org"), deny("b.org"))))
    assert digest_of(app_pieces(one)) != digest_of(app_pieces(other))


@pytest.mark.parametrize("value", [os.system, io.BytesIO, "text".join, Exception("x")])
def test_a_value_that_is_no_part_of_rules_is_not_made(value: object) -> None:
    octets = pickle.dumps(value)
    file = io.BytesIO()
    write_pieces(file, [octets])
    file.seek(0)
    with pytest.raises(ForeignValueError):
        list(read_pieces(file))


@pytest.mark.parametrize("left", [1, 3, 4, 20])
def test_what_is_cut_short_is_an_error(left: int) -> None:
    file = io.BytesIO()
    write_piece(file, Heading("ab"))
    with pytest.raises(EOFError):
        list(read_pieces(io.BytesIO(file.getvalue()[:left])))


@pytest.mark.parametrize(
    "pieces",
    [
        (Rules(()),),
        (Patterns(()),),
        (Heading(),),
        (Opening(App("a")), Heading()),
        (Opening(App("a")), Patterns(allow("a.org").patterns)),
        (Opening(App("a")), Networks(allow(addresses=["10.0.0.0/8"]).addresses)),
    ],
)
def test_pieces_out_of_order_are_an_error(pieces: tuple[Piece, ...]) -> None:
    with pytest.raises(ForeignValueError):
        list(map(finish, read_apps(iter(pieces))))
