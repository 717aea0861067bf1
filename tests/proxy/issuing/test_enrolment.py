"""From a proof and a request to a certificate, with the issuer's real errors."""

import base64
import contextlib
from pathlib import Path
from typing import override

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs.csr import CSR_OCTETS, Csr, read_request
from certs.device import make_request
from certs.errors import IssueError
from certs.svid import IssuedSvid
from proxy.errors import ProxyError
from proxy.issuing.authority import BY_CERTIFICATE, BY_TOKEN
from proxy.issuing.enrolment import Enrolment, RefusedError, Try, read, read_base64
from proxy.issuing.refusing import BusyError, DeniedError
from proxy.limits import Limits
from proxy.tokens.known import JoinError
from proxy.wire.credential import Credential
from rules.decision import Reason
from tests.proxy.issuing.office import CODER, Office


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path / "state", Limits())


@pytest.fixture
def csr(tmp_path: Path) -> Csr:
    return read_request(make_request(tmp_path / "device"))


def enrolment(office: Office) -> Enrolment:
    return Enrolment(office, office.tokens, office.settings.limits)


def trying() -> Try:
    return Try(BY_TOKEN, "192.0.2.1")


class Refusing(Office):
    """An office whose issuer refuses with `error`."""

    error: Exception = IssueError("")

    @override
    async def sign_request(self, csr: Csr, spiffe_id: str, app: str, how: str) -> IssuedSvid:
        raise self.error

    @override
    async def named(self, app: str) -> tuple[str, ...]:
        if isinstance(self.error, ProxyError):
            raise self.error
        return await super().named(app)


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (DeniedError("the app was revoked", "revoked"), 403, Reason.REVOKED),
        (BusyError("too many"), 503, Reason.CAPACITY),
        (IssueError("the clock"), 503, Reason.INTERNAL_ERROR),
        (ProxyError("the appliance does not answer"), 503, Reason.CAPACITY),
    ],
)
async def test_what_keeps_the_issuer_from_signing_is_told(
    tmp_path: Path, csr: Csr, error: Exception, status: int, reason: Reason
) -> None:
    office = Refusing(tmp_path / "state", Limits())
    office.error = error
    shown = Credential("basic", "coder", await office.join("coder"))
    with pytest.raises(RefusedError, match=str(error)) as caught:
        await enrolment(office).by_token(shown, csr, trying())
    assert (caught.value.status, caught.value.reason) == (status, reason)
    assert not office.told("enrolled")


async def test_tokens_that_cannot_be_read_are_nobodys_fault(office: Office, csr: Csr) -> None:
    shown = Credential("basic", "coder", await office.join("coder"))
    (office.ca.parent.parent / "sallyport.sqlite").write_bytes(b"x" * 4096)
    with pytest.raises(RefusedError) as caught:
        await enrolment(office).by_token(shown, csr, trying())
    assert (caught.value.status, caught.value.reason) == (503, Reason.INTERNAL_ERROR)


async def test_an_app_that_is_no_name_is_never_asked_for(office: Office, csr: Csr) -> None:
    office.apps["../a"] = (CODER,)
    with pytest.raises(RefusedError, match="has no SPIFFE ID"):
        await enrolment(office).choose("../a", csr)


def test_a_refusal_is_told_with_its_text_and_no_foreign_app(office: Office) -> None:
    found = enrolment(office)
    with pytest.raises(RefusedError), found.told(BY_TOKEN, "192.0.2.1", "a\x1b[2Jb"):
        raise RefusedError(403, "no")
    with pytest.raises(RefusedError) as caught, found.told(BY_TOKEN, "192.0.2.1", "coder"):
        raise JoinError("used")
    assert caught.value.status == 401
    first, second = office.told("refused")
    assert (first.app, first.target, first.detail["text"]) == ("", "", "no")
    assert (second.app, second.detail["peer"]) == ("coder", "192.0.2.1")


async def test_a_certificate_of_another_office_is_none_of_ours(
    tmp_path: Path, office: Office, csr: Csr
) -> None:
    other = Office(tmp_path / "other", Limits())
    chain = (*other.workload(CODER, "coder").chain, *other.domain.anchors)
    attempt = Try(BY_CERTIFICATE, "192.0.2.1")
    with pytest.raises(RefusedError, match="not issued here"):
        await enrolment(office).by_certificate(chain, csr, attempt)
    with pytest.raises(RefusedError, match="chain"):
        await enrolment(office).by_certificate(chain[:1], csr, attempt)


async def test_an_anchor_that_was_withdrawn_vouches_for_nobody(
    tmp_path: Path, office: Office, csr: Csr
) -> None:
    """OpenSSL cannot forget an authority: the chain is looked at once more."""
    issued = await office.sign_request(csr, CODER, "coder", BY_TOKEN)
    chain = (*issued.chain, *office.domain.anchors)
    attempt = Try(BY_CERTIFICATE, "192.0.2.1")
    renewed = await enrolment(office).by_certificate(chain, csr, attempt)
    assert renewed.spiffe_id == CODER
    office.domain = Office(tmp_path / "other", Limits()).domain
    with pytest.raises(RefusedError, match="not issued here"):
        await enrolment(office).by_certificate(chain, csr, attempt)


@pytest.mark.parametrize("octets", [b"AAAA\r\n AAAA\t\n", b"AAAAAAAA"])
def test_base64_may_stand_in_lines(octets: bytes) -> None:
    assert read_base64(octets) == bytes(6)


def test_what_is_too_long_is_no_request() -> None:
    with pytest.raises(RefusedError) as caught:
        read_base64(base64.b64encode(bytes(CSR_OCTETS + 1)))
    assert caught.value.status == 413


@given(st.binary(max_size=400))
def test_any_octets_are_refused_with_a_status(octets: bytes) -> None:
    with pytest.raises(RefusedError) as caught:
        read(read_base64(octets))
    assert caught.value.status in {400, 413}
    with contextlib.suppress(RefusedError):
        assert read_base64(base64.encodebytes(octets)) == octets
