import datetime as dt
from pathlib import Path

import msgspec
import pytest

from certs.domain import init_domain, load_domain, rotate
from certs.errors import SpiffeError
from certs.trust_domain import TrustDomain
from proxy.channel import Trust
from proxy.issuing.bundles import Bundles

NOW = dt.datetime.now(dt.UTC)


def domain(folder: Path, name: str) -> TrustDomain:
    if not (folder / name).exists():
        init_domain(folder / name, name, NOW, None)
    return load_domain(folder / name, None)


def test_ours_and_others_are_given_in_each_form(tmp_path: Path) -> None:
    ours, theirs = domain(tmp_path, "desk.example"), domain(tmp_path, "partner.example")
    bundles = Bundles()
    bundles.own(ours)
    bundles.other("partner.example", theirs.jwks())
    assert bundles.own_name == "desk.example"
    assert bundles.anchors == {"desk.example": ours.anchors, "partner.example": theirs.anchors}
    assert bundles.pem == {
        "desk.example": ours.anchors_pem,
        "partner.example": theirs.anchors_pem,
    }
    for name, each in (("desk.example", ours), ("partner.example", theirs)):
        keys = msgspec.json.decode(bundles.jwt_documents[name])["keys"]
        assert keys == msgspec.json.decode(each.jwt_jwks())["keys"]
    assert list(bundles.others) == ["partner.example"]


def test_a_bundle_of_pem_has_no_jwt_keys(tmp_path: Path) -> None:
    theirs = domain(tmp_path, "partner.example")
    bundles = Bundles()
    bundles.other("partner.example", theirs.jwks())
    assert "partner.example" in bundles.jwt_documents
    bundles.other("partner.example", theirs.anchors_pem.encode())
    assert bundles.anchors == {"partner.example": theirs.anchors}
    assert bundles.jwt_documents == {}


def test_whoever_is_told_is_told_at_once_and_of_each_change(tmp_path: Path) -> None:
    ours, theirs = domain(tmp_path, "desk.example"), domain(tmp_path, "partner.example")
    bundles, told = Bundles(), list[Trust]()
    bundles.own(ours)
    bundles.tell(told.append)
    assert told == [Trust({"desk.example": ours.anchors_pem})]
    bundles.other("partner.example", theirs.jwks())
    assert set(told[-1].bundles) == {"desk.example", "partner.example"}
    version = bundles.version
    bundles.other("partner.example", theirs.jwks())  # the same again is no news
    assert (bundles.version, len(told)) == (version, 2)


def test_an_older_bundle_than_the_one_we_have_is_not_taken(tmp_path: Path) -> None:
    """Trust Domain and Bundle, section 4.1.3: a replay brings no withdrawn key back."""
    old = domain(tmp_path, "partner.example").jwks()
    rotate(tmp_path / "partner.example", NOW, None, "jwt")
    new = domain(tmp_path, "partner.example").jwks()
    bundles = Bundles()
    bundles.other("partner.example", new)
    version = bundles.version
    bundles.other("partner.example", old)
    assert bundles.version == version
    assert len(msgspec.json.decode(bundles.jwt_documents["partner.example"])["keys"]) == 2


def test_a_problem_is_told_until_it_has_passed_and_the_bundle_stays(tmp_path: Path) -> None:
    theirs = domain(tmp_path, "partner.example")
    bundles, told = Bundles(), list[Trust]()
    bundles.tell(told.append)
    bundles.other("partner.example", theirs.jwks())
    bundles.failed("partner.example", "it cannot be had")
    bundles.failed("partner.example", "it cannot be had")
    assert [each.problem for each in told] == ["", "", "it cannot be had"]
    assert set(told[-1].bundles) == {"partner.example"}
    bundles.other("partner.example", theirs.jwks())
    assert told[-1].problem == ""
    with pytest.raises(SpiffeError):
        bundles.other("partner.example", b"{}")


def test_a_bundle_may_lose_its_roots(tmp_path: Path) -> None:
    theirs = domain(tmp_path, "partner.example")
    bundles = Bundles()
    bundles.other("partner.example", theirs.jwks())
    nothing = {"keys": [], "spiffe_sequence": theirs.sequence + 1}
    bundles.other("partner.example", msgspec.json.encode(nothing))
    assert bundles.anchors == {}
    assert bundles.jwt_documents == {}
    assert bundles.trust == Trust({})
