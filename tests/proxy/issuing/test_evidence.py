"""Evidence verified at the issuer: whatever comes, there is an answer, and the issuer lives."""

import asyncio
import datetime as dt
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from certs.errors import EvidenceError, KeystoreError
from proxy.channel import Challenge, Challenged, SignClaims, SignedClaims, Verified, Verify
from proxy.config_attestation import AttestationSettings
from proxy.issuing import evidence
from proxy.issuing.evidence import Answered, Asked, Docket, Roots, challenged, failed, verified
from tests.proxy.issuing.desk import ID, Clock, Desk, settings
from tests.proxy.issuing.evidence import endorsed, quoted, software
from tests.swtpm import Vendor

NOW = dt.datetime.now(dt.UTC)


def claims(ttl_s: int = 300) -> bytes:
    return json.dumps({"exp": int(time.time()) + ttl_s}).encode()


def test_a_software_key_that_signed_is_named_by_its_digest() -> None:
    found = verified(software(7))
    assert (found.call, found.problem, len(found.key_sha256)) == (7, "", 64)
    with pytest.raises(EvidenceError, match="not by this key"):
        verified(software(message=b"another"))


def test_a_quote_says_what_its_tpm_is_like() -> None:
    asked = quoted(8)
    found = verified(asked)
    assert (found.call, found.problem, found.is_safe) == (8, "", True)
    assert min(found.clock_ms, found.reset_count, found.firmware) > 0
    assert found.name.startswith("000b")  # TPM_ALG_SHA256
    assert found.pcrs == asked.pcrs
    with pytest.raises(EvidenceError):
        verified(quoted(pcrs={**asked.pcrs, "16": "00" * 32}))


def test_no_other_kind_of_evidence_is_verified() -> None:
    with pytest.raises(EvidenceError, match="software or tpm"):
        verified(software(kind="launched"))


def test_an_ek_of_a_known_vendor_is_challenged() -> None:
    vendor, other = Vendor(), Vendor("another")
    asked = Challenge(9, endorsed(vendor), quoted().key, b"s" * 32)
    found = challenged(asked, [vendor.root], NOW)
    assert (found.call, found.problem) == (9, "")
    assert found.credential
    assert found.seed
    assert found.name.startswith("000b")  # TPM_ALG_SHA256
    assert len(found.ek_sha256) == 64
    with pytest.raises(EvidenceError):
        challenged(asked, [other.root], NOW)
    with pytest.raises(EvidenceError, match=r"attestation\.ek_roots"):
        challenged(asked, Roots(()).read(), NOW)


def test_roots_are_read_again_when_a_file_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, first, second = tmp_path / "roots.pem", Vendor(), Vendor("another")
    roots = Roots([str(path)])
    for octets, said in ((None, "No such file"), (b"none", "no certificate in PEM")):
        if octets is not None:
            path.write_bytes(octets)
        for _ in range(2):
            with pytest.raises(KeystoreError, match="the log says why"):
                roots.read()
        assert caplog.text.count(said) == 1  # an agent fills no log
    path.write_bytes(first.root_pem)
    assert roots.read() == (first.root,)
    assert roots.read() is roots.read()
    path.write_bytes(b"# makers of TPMs\n" + first.root_pem + second.root_pem)
    assert roots.read() == (first.root, second.root)


def test_a_file_of_roots_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(evidence, "MOST_ROOTS_OCTETS", 100)
    path = tmp_path / "roots.pem"
    path.write_bytes(Vendor().root_pem)
    with pytest.raises(KeystoreError):
        Roots([str(path)]).read()
    assert "more than 100 octets" in caplog.text


def test_what_fails_says_so_in_the_answer_to_what_was_asked() -> None:
    asked: tuple[Asked, ...] = (
        software(1), Challenge(2, (), b"", b""), SignClaims(3, b"", "at+jwt"),
    )  # fmt: skip
    found = [failed(each, "no") for each in asked]
    assert found == [
        Verified(1, problem="no"), Challenged(2, problem="no"), SignedClaims(3, problem="no"),
    ]  # fmt: skip


async def test_the_loop_has_its_turn_between_two_questions() -> None:
    """So workloads get their SVIDs, whatever attesters send."""
    seen: list[str] = []

    def answer(asked: Asked) -> Answered:
        seen.append(f"question {asked.call}")
        return failed(asked, "")

    docket = Docket(answer, lambda _: None)
    for call in (1, 2, 3):
        docket.take(SignClaims(call, b"", ""))
    for turn in (1, 2, 3):
        seen.append(f"turn {turn}")
        await asyncio.sleep(0)
    assert seen == ["turn 1", "question 1", "turn 2", "question 2", "turn 3", "question 3"]
    docket.take(SignClaims(4, b"", ""))
    await asyncio.sleep(0)
    assert seen[-1] == "question 4"


async def test_a_bug_is_logged_and_answered_and_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sent: list[Answered] = []

    def answer(asked: Asked) -> Answered:
        if asked.call == 1:
            raise ZeroDivisionError
        if asked.call == 2:
            raise EvidenceError("it proves nothing")
        return SignedClaims(asked.call, "token")

    docket = Docket(answer, sent.append)
    for call in (1, 2, 3):
        docket.take(SignClaims(call, b"", ""))
    for _ in range(3):
        await asyncio.sleep(0)
    assert sent == [
        SignedClaims(1, problem="a bug of ours; please report it", unanswered=True),
        SignedClaims(2, problem="it proves nothing"),
        SignedClaims(3, "token"),
    ]
    assert "ZeroDivisionError" in caplog.text


async def test_an_answer_that_does_not_fit_the_channel_is_told() -> None:
    sent: list[Answered] = []

    def send(answer: Answered) -> None:
        if isinstance(answer, SignedClaims) and answer.token:
            raise ValueError
        sent.append(answer)

    docket = Docket(lambda asked: SignedClaims(asked.call, "long"), send)
    docket.take(SignClaims(1, b"", ""))
    docket.take(SignClaims(2, b"", ""))
    for _ in range(2):
        await asyncio.sleep(0)
    assert [(each.call, "ask for less" in each.problem) for each in sent] == [(1, True), (2, True)]
    assert all(each.unanswered for each in sent)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Desk(settings(tmp_path / "state")) as running:
        yield running.ready()


def asked_of(desk: Desk, asked: Asked) -> Answered:
    kind = type(failed(asked, ""))
    desk.send(asked)
    return desk.wait(kind, lambda each: each.call == asked.call)


def test_a_real_issuer_answers_every_question_and_still_issues(desk: Desk) -> None:
    assert asked_of(desk, software(1)).problem == ""
    assert asked_of(desk, quoted(2)).problem == ""
    signed = asked_of(desk, SignClaims(3, claims(), "eat+jwt"))
    assert isinstance(signed, SignedClaims)
    assert signed.token.count(".") == 2
    assert "typ is to be" in asked_of(desk, SignClaims(4, claims(), "JWT")).problem
    assert "ek_roots" in asked_of(desk, Challenge(5, (b"",), b"", b"s" * 32)).problem
    found = asked_of(desk, Verify(6, "tpm", b"", b"", b""))
    assert (bool(found.problem), found.unanswered) == (True, False)
    assert desk.sign(ID).problem == ""


def test_a_real_issuer_takes_up_the_roots_of_vendors(tmp_path: Path) -> None:
    vendor, path = Vendor(), tmp_path / "roots.pem"
    made = settings(tmp_path / "state")
    attestation = AttestationSettings(ek_roots=(str(path),))
    with Desk(structs.replace(made, attestation=attestation), Clock()) as desk:
        desk.ready()
        asked = Challenge(1, endorsed(vendor), quoted().key, b"s" * 32)
        found = asked_of(desk, asked)
        assert "cannot be read here" in found.problem
        assert found.unanswered  # it says nothing of the EK
        path.write_bytes(vendor.root_pem)
        asked = Challenge(2, asked.certificates, asked.ak, asked.secret)
        assert asked_of(desk, asked).problem == ""


def test_while_spire_issues_nothing_is_attested(tmp_path: Path) -> None:
    asked = settings(tmp_path / "state", workload_api=str(tmp_path / "spire.sock"))
    with Desk(asked, Clock()) as desk:
        desk.ready()
        for each in (software(1), SignClaims(2, claims(), "at+jwt")):
            found = asked_of(desk, each)
            assert ("identity.workload_api" in found.problem, found.unanswered) == (True, True)
