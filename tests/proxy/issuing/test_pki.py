"""Revocation status and bundles, with openssl and curl as those who ask."""

import base64
import datetime as dt
import shutil
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import jwt
import msgspec
import pytest

from certs.bundle import parse_bundle
from certs.domain import load_domain, rotate
from certs.svid import IssuedSvid
from proxy.limits import Limits
from tests.proxy.issuing.office import CODER, TRUST_DOMAIN, Office, Served, run, served

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(
        not (shutil.which("curl") and shutil.which("openssl")), reason="needs curl and openssl"
    ),
]


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(Office(tmp_path / "state", Limits())) as found:
        yield found


class Reader:
    """Somebody who verifies certificates: files of a leaf, its issuer and the roots."""

    def __init__(self, folder: Path, stand: Served, issued: IssuedSvid) -> None:
        folder.mkdir(exist_ok=True)
        self.stand = stand
        self.leaf, self.issuer, self.roots = (
            folder / name for name in ("leaf.pem", "issuer.pem", "roots.pem")
        )
        leaf, issuer = (ssl.DER_cert_to_PEM_cert(each) for each in issued.chain)
        self.leaf.write_text(leaf)
        self.issuer.write_text(issuer)
        self.roots.write_text(stand.office.domain.anchors_pem)

    async def ocsp(self, *options: str) -> str:
        """Ask with openssl, which verifies the signature of the answer."""
        asked = options or ("-cert", str(self.leaf))
        code, out, err = await run(
            "openssl", "ocsp", "-issuer", str(self.issuer), *asked, "-CAfile", str(self.roots),
            "-url", f"{self.stand.plain}/ocsp",
        )  # fmt: skip
        assert code == 0, err
        assert b"Response verify OK" in err, err
        assert b"WARNING" not in err, err  # of a nonce that is missing
        return out.decode()


@pytest.fixture
def reader(tmp_path: Path, stand: Served) -> Reader:
    return Reader(tmp_path / "reader", stand, stand.office.workload(CODER, "coder"))


def serial_of(stand: Served) -> int:
    return next(reversed(stand.office.issued))


async def test_openssl_learns_good_then_revoked_with_the_reason(
    stand: Served, reader: Reader
) -> None:
    assert ": good" in await reader.ocsp()
    stand.office.revoke(serial_of(stand), "keyCompromise")
    told = await reader.ocsp()
    assert ": revoked" in told
    assert "Reason: keyCompromise" in told


async def test_a_serial_that_we_never_issued_is_unknown(reader: Reader) -> None:
    assert "0x1234: unknown" in await reader.ocsp("-serial", "0x1234")


async def test_a_certificate_of_the_intermediate_before_is_answered_by_that_one(
    tmp_path: Path, stand: Served, reader: Reader
) -> None:
    office = stand.office
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=60)
    made = rotate(office.folder, soon, None, "intermediate")
    office.domain = load_domain(office.folder, None)
    office.ahead_s = made.signs_from + 1 - office.wall()
    later = Reader(tmp_path / "later", stand, office.workload(CODER, "coder"))
    office.ahead_s = 0.0
    assert later.issuer.read_text() != reader.issuer.read_text()
    assert ": good" in await reader.ocsp()
    assert ": good" in await later.ocsp()
    lists = (await fetched(stand, "/crl.pem"))[2]
    assert lists.count(b"BEGIN X509 CRL") == 2


async def test_a_get_request_is_answered(stand: Served, reader: Reader, tmp_path: Path) -> None:
    asked = tmp_path / "asked.der"
    code, _, err = await run(
        "openssl", "ocsp", "-issuer", str(reader.issuer), "-cert", str(reader.leaf),
        "-reqout", str(asked), "-no_nonce",
    )  # fmt: skip
    assert code == 0, err
    text = quote(base64.b64encode(asked.read_bytes()).decode(), safe="")
    _, head, content = await fetched(stand, f"/ocsp/{text}")
    assert b"application/ocsp-response" in head
    answer = tmp_path / "answer.der"
    answer.write_bytes(content)
    code, out, err = await run(
        "openssl", "ocsp", "-respin", str(answer), "-issuer", str(reader.issuer),
        "-cert", str(reader.leaf), "-CAfile", str(reader.roots),
    )  # fmt: skip
    assert code == 0, err
    assert b": good" in out


async def fetched(stand: Served, path: str, *options: str) -> tuple[int, bytes, bytes]:
    """Return status, head and content that curl gets."""
    code, out, err = await run(
        "curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "10", "--include",
        *options, f"{stand.plain}{path}",
    )  # fmt: skip
    assert code == 0, err
    head, _, content = out.partition(b"\r\n\r\n")
    return int(head.split()[1]), head, content


@pytest.mark.parametrize("octets", [b"", b"0\x00", b"no request", bytes(5000)])
async def test_what_is_no_ocsp_request_is_answered_malformed_request(
    stand: Served, tmp_path: Path, octets: bytes
) -> None:
    file = tmp_path / "asked"
    file.write_bytes(octets)
    kind = ("--header", "Content-Type: application/ocsp-request")
    status, _, content = await fetched(stand, "/ocsp", *kind, "--data-binary", f"@{file}")
    # RFC 6960, section 4.2.1: OCSPResponse ::= SEQUENCE { responseStatus ENUMERATED 1 }
    assert (status, content) == (200, bytes.fromhex("30030a0101"))


async def test_openssl_verifies_by_the_crl(stand: Served, reader: Reader, tmp_path: Path) -> None:
    async def verify() -> tuple[int, bytes]:
        crl = tmp_path / "crl.pem"
        crl.write_bytes((await fetched(stand, "/crl.pem"))[2])
        code, out, err = await run(
            "openssl", "verify", "-crl_check", "-CRLfile", str(crl), "-CAfile",
            str(reader.roots), "-untrusted", str(reader.issuer), str(reader.leaf),
        )  # fmt: skip
        return code, out + err

    assert (await verify())[0] == 0
    stand.office.revoke(serial_of(stand), "cessationOfOperation")
    stand.office.ahead_s = 1.0  # a list is signed once a second at most
    code, text = await verify()
    assert code != 0
    assert b"certificate revoked" in text


async def test_the_number_of_a_crl_grows(stand: Served) -> None:
    async def number() -> int:
        der = (await fetched(stand, "/crl"))[2]
        code, out, err = await run(
            "openssl", "crl", "-inform", "DER", "-noout", "-crlnumber", input_=der
        )
        assert code == 0, err
        return int(out.decode().strip().partition("=")[2], 16)

    first = await number()
    stand.office.ahead_s = 2.0
    assert await number() > first


async def test_the_bundle_is_that_of_spiffe_and_of_pem(stand: Served) -> None:
    _, head, content = await fetched(stand, "/bundle")
    assert b"application/json" in head
    bundle = parse_bundle(content, TRUST_DOMAIN)
    assert bundle.anchors == stand.office.domain.anchors
    assert msgspec.json.decode(content)["spiffe_refresh_hint"] == 300
    _, _, pem = await fetched(stand, "/bundle.pem")
    assert parse_bundle(pem, TRUST_DOMAIN).anchors == bundle.anchors


async def test_the_keys_of_tokens_verify_what_the_trust_domain_signs(stand: Served) -> None:
    """Over HTTPS alone: nothing but TLS vouches for a key that verifies the tokens of others."""
    assert (await fetched(stand, "/jwks.json"))[0] == 404
    code, out, err = await run(
        "curl", "--silent", "--show-error", "--noproxy", "*", "--include", "--cacert",
        str(stand.office.ca), f"https://localhost:{stand.enroll}/jwks.json",
    )  # fmt: skip
    assert code == 0, err
    head, _, content = out.partition(b"\r\n\r\n")
    assert b"application/jwk-set+json" in head
    now = dt.datetime.now(dt.UTC)
    claims = {"iss": TRUST_DOMAIN, "exp": int(now.timestamp()) + 60}
    token = stand.office.domain.sign_claims(msgspec.json.encode(claims), "at+jwt", now)
    keys = {each.key_id: each for each in jwt.PyJWKSet.from_json(content.decode()).keys}
    key = keys[jwt.get_unverified_header(token)["kid"]]
    assert key.public_key_use == "sig"
    assert jwt.decode(token, key, algorithms=["ES256"], options={"verify_aud": False}) == claims


@pytest.mark.parametrize(
    ("field", "status"),
    [
        ("Host: rebound.example", 421),
        ("Host: 127.0.0.1:1", 421),
        ("Origin: https://a.example", 403),
        ("Sec-Fetch-Site: cross-site", 403),
        ("Sec-Fetch-Site: none", 200),
    ],
)
async def test_web_pages_and_other_hosts_are_refused(
    stand: Served, field: str, status: int
) -> None:
    assert (await fetched(stand, "/bundle", "--header", field))[0] == status


async def test_other_methods_and_paths_are_refused(stand: Served) -> None:
    status, head, _ = await fetched(stand, "/bundle", "--request", "DELETE")
    assert status == 405
    assert b"Allow: GET,HEAD" in head
    assert (await fetched(stand, "/.well-known/est/cacerts"))[0] == 404
