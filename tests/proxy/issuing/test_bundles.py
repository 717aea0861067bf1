import asyncio
import datetime as dt
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from certs.bundle import MOST_KEYS
from certs.domain import init_domain, load_domain, rotate
from certs.errors import SpiffeError
from certs.trust_domain import TrustDomain
from proxy.channel import Trust
from proxy.issuing.bundles import MOST_PEM_OCTETS, Bundles

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
    assert bundles.trust == Trust({"partner.example": ""})


def long_root() -> bytes:
    """A root of 2 KiB and more, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.1.1"), bytes(2048))
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW, NOW + dt.timedelta(1))
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate = made.add_extension(odd, critical=False).sign(key, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM)


def test_bundles_that_are_too_large_together_are_refused_by_name(tmp_path: Path) -> None:
    """threats.md, "Parser": a bundle of 64 long roots ended the issuer, again and again."""
    ours, theirs = domain(tmp_path, "desk.example"), domain(tmp_path, "partner.example")
    bundles, told = Bundles(), list[Trust]()
    bundles.own(ours)
    bundles.other("partner.example", theirs.jwks())
    bundles.tell(told.append)
    root = long_root()
    with pytest.raises(SpiffeError, match=r"partner\.example all bundles have more"):
        bundles.other("partner.example", root * MOST_KEYS)
    assert bundles.anchors["partner.example"] == theirs.anchors
    assert bundles.others["partner.example"].anchors == theirs.anchors
    half = MOST_PEM_OCTETS // len(root) // 2
    bundles.other("one.example", root * half)
    with pytest.raises(SpiffeError, match=r"two\.example"):
        bundles.other("two.example", root * (half + 1))
    bundles.other("one.example", root)  # what is replaced needs no room
    bundles.other("two.example", root * (half + 1))
    assert list(told[-1].bundles)[1:] == ["partner.example", "one.example", "two.example"]


def test_what_was_not_had_yet_is_left_out_and_what_was_taken_back_is_empty(tmp_path: Path) -> None:
    """The appliance believes the one before further, unless its roots were taken back."""
    ours, theirs = domain(tmp_path, "desk.example"), domain(tmp_path, "partner.example")
    bundles = Bundles()
    bundles.own(ours)
    bundles.failed("partner.example", "it cannot be had")
    assert bundles.trust.bundles == {"desk.example": ours.anchors_pem}
    bundles.other("partner.example", theirs.jwks())
    bundles.other("partner.example", b'{"keys": [], "spiffe_sequence": 99}')
    assert bundles.trust.bundles == {"desk.example": ours.anchors_pem, "partner.example": ""}


def test_a_problem_of_no_bundle_is_told_until_it_has_passed() -> None:
    bundles, told = Bundles(), list[Trust]()
    bundles.tell(told.append)
    assert bundles.note("our keys", "they cannot be read")
    assert not bundles.note("our keys", "they cannot be read")
    bundles.failed("partner.example", "it cannot be had")
    assert bundles.trust.problem == "they cannot be read; it cannot be had"
    assert bundles.note("our keys", "")
    assert not bundles.note("our keys", "")
    assert told[-1] == Trust({}, "it cannot be had")


def test_a_problem_is_no_new_bundle_for_those_who_follow_them() -> None:
    """Its text tells an age: every stream would be sent the same again each minute."""
    bundles, told = Bundles(), list[Trust]()
    bundles.tell(told.append)
    stirred = asyncio.Event()
    with bundles.watched_by(stirred):
        version = bundles.version
        bundles.failed("partner.example", "the one from 1 min ago is believed further")
        bundles.failed("partner.example", "the one from 2 min ago is believed further")
    assert (bundles.version, stirred.is_set(), len(told)) == (version, False, 3)
