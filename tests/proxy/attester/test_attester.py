"""The attester: what it signs, what it refuses to sign, and what it brings home."""

import contextlib
import hashlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.attested.binding import Binding, Kind, message
from proxy.attester.attester import Attested, Attester, Capability, Wanted, _type_of
from proxy.attester.errors import RefusedError, RelayError, UnreachableError
from proxy.attester.evidence import Launched, TpmQuote, b64url, unb64url
from proxy.attester.place import proxy_place
from tests.proxy.attester.test_evidence import NAME, PaperTpm
from tests.proxy.attester.verifier import Verifier, is_signed, serving

WANTED = Wanted("https://projects.example", "read:documents")


def test_evidence_is_for_our_key_and_the_nonce(attester: Attester, verifier: Verifier) -> None:
    found = attester.attest()
    assert [found.token] == verifier.tokens
    assert (found.level, found.binding) == ("software", verifier.binding().value)
    assert verifier.calls == ["/attest/nonce", "/attest"]


def test_what_the_agent_says_of_itself_is_sent(attester: Attester, verifier: Verifier) -> None:
    attester.attest()
    sent = verifier.contents[1]
    assert (sent["agent_hash"], sent["version"]) == ("sha256:1", "1.2")


def test_nothing_is_signed_for_another_key(attester: Attester, verifier: Verifier) -> None:
    """Relay: somebody who stands between has the appliance's nonce for his own connection."""
    his = Binding(Kind.KEY, hashlib.sha256(b"his key").hexdigest())
    nonce = bytes(range(32))
    told = {"nonce": b64url(nonce), "message": b64url(message(nonce, his)), "binding": his.value}
    verifier.changes["/attest/nonce"] = told
    with pytest.raises(RelayError, match="nothing was signed"):
        attester.attest()
    assert verifier.calls == ["/attest/nonce"]


def test_what_is_signed_without_being_told_is_for_our_own_key(
    attester: Attester, verifier: Verifier
) -> None:
    """Relay: an answer that leaves the message out gets nothing but one for our key."""
    verifier.changes["/attest/nonce"] = {"message": "", "binding": "00" * 32}
    assert attester.attest().binding == verifier.binding().value


def test_octets_of_somebodys_choice_are_not_signed(attester: Attester, verifier: Verifier) -> None:
    chosen = {"message": b64url(b"pay him"), "nonce": b64url(bytes(32))}
    verifier.changes["/attest/nonce"] = chosen
    with pytest.raises(RelayError):
        attester.attest()


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_nonce_of_another_length_is_refused(
    attester: Attester, verifier: Verifier, size: int
) -> None:
    verifier.changes["/attest/nonce"] = {"nonce": b64url(bytes(size)), "message": ""}
    with pytest.raises(UnreachableError, match="nonce is none"):
        attester.attest()


def test_a_renewed_certificate_is_used_at_the_next_attestation(
    attester: Attester, verifier: Verifier
) -> None:
    first, stamp = attester.attest(), attester.stamp()
    verifier.issue()
    assert attester.stamp() != stamp
    assert attester.attest().binding == verifier.binding().value != first.binding


def test_an_unknown_tpm_enrols_by_itself(verifier: Verifier) -> None:
    tpm = Attester(verifier.place, verifier.own, TpmQuote(PaperTpm, (0, 7)))
    assert tpm.attest().level == "tpm"
    assert verifier.attesters == {NAME}
    verifier.calls.clear()
    tpm.attest()
    assert verifier.calls == ["/attest/nonce", "/attest"]


def test_a_tpm_that_is_refused_for_another_reason_does_not_enrol(verifier: Verifier) -> None:
    verifier.answers["/attest"] = (403, {"detail": "PCR 7 is another", "how": "ask the admin"})
    tpm = Attester(verifier.place, verifier.own, TpmQuote(PaperTpm, (0, 7)))
    with pytest.raises(RefusedError, match="PCR 7"):
        tpm.attest()
    assert verifier.calls == ["/attest/nonce", "/attest"]


def test_a_software_key_never_enrols(attester: Attester, verifier: Verifier) -> None:
    verifier.answers["/attest"] = (403, {"detail": "no", "how": "POST /attest/enrol first"})
    with pytest.raises(RefusedError):
        attester.attest()
    assert "/attest/enrol" not in verifier.calls


def test_evidence_that_nobody_appraises_is_not_brought(verifier: Verifier) -> None:
    """What is refused voids what stands: so it is not tried."""
    verifier.changes["/attest/nonce"] = {"evidence": ["software"]}
    tpm = Attester(verifier.place, verifier.own, TpmQuote(PaperTpm, (0,)))
    with pytest.raises(RefusedError, match="only software"):
        tpm.attest()
    assert verifier.calls == ["/attest/nonce"]


def test_in_a_lease_nothing_is_signed_and_no_certificate_shown(tmp_path: Path) -> None:
    with serving(Verifier(tmp_path), plain=True) as verifier:
        verifier.changes["/attest/nonce"] = {"evidence": ["launched"]}
        place = proxy_place(f"http://127.0.0.1:{verifier.port}", is_plain=True)
        leased = Attester(place, None, Launched())
        assert leased.attest().level == "launched"
        assert leased.stamp() == ()
        assert verifier.contents[1].keys() == {"nonce", "evidence"}


@pytest.mark.parametrize("token", ["", "a b", "a\nb", "\x1b[2J", "a" * 20000, "ä"])
def test_what_is_no_token_goes_nowhere(attester: Attester, verifier: Verifier, token: str) -> None:
    verifier.changes["/attest"] = {"token": token}
    with pytest.raises(UnreachableError, match="no token"):
        attester.attest()


def test_a_capability_is_asked_for_with_our_own_result(
    attester: Attester, verifier: Verifier
) -> None:
    own = attester.attest().token
    found = attester.exchange(WANTED.for_tokens(own, None))
    assert found.scope == "read:documents"
    form = verifier.contents[-1]
    assert form["subject_token"] == own
    assert form["subject_token_type"].endswith(":jwt")
    assert form["audience"] == "https://projects.example"
    assert "actor_token" not in form


def test_a_token_is_passed_on_with_our_own_result_as_the_actor(
    attester: Attester, verifier: Verifier
) -> None:
    own = attester.attest().token
    capability = f"{b64url(b'{"typ":"at+jwt"}')}.claims.signature"
    verifier.tokens.append(capability)
    attester.exchange(WANTED.for_tokens(own, capability))
    form = verifier.contents[-1]
    assert (form["subject_token"], form["actor_token"]) == (capability, own)
    types = [form[f"{each}_token_type"].rpartition(":")[2] for each in ("subject", "actor")]
    assert types == ["access_token", "jwt"]


def test_an_exchange_that_is_refused_says_why(attester: Attester) -> None:
    with pytest.raises(RefusedError, match="unknown subject_token"):
        attester.exchange(WANTED.for_tokens("another.s.token", None))


def test_a_token_is_given_back(attester: Attester, verifier: Verifier) -> None:
    attester.revoke("c.1.s")
    assert verifier.given_back == ["c.1.s"]


def test_a_heartbeat_says_how_we_are_and_hears_how_we_stand(
    attester: Attester, verifier: Verifier
) -> None:
    verifier.changes["/heartbeat"] = {"attested": [{"level": "tpm"}], "next_s": 30.0}
    heard = attester.beat("degraded")
    assert (len(heard.attested), heard.revoked, heard.next_s) == (1, False, 30.0)
    assert verifier.contents[-1] == {"health": "degraded", "version": "1.2"}


def test_no_repr_shows_a_token() -> None:
    shown = repr([Attested("s3cret", 1, "tpm", "id"), Capability("s3cret", 1)])
    assert "s3cret" not in shown + repr(WANTED.for_tokens("s3cret", "s3cret"))


@given(st.text(max_size=100))
def test_any_text_has_a_type(token: str) -> None:
    assert _type_of(token).startswith("urn:ietf:params:oauth:token-type:")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    st.fixed_dictionaries(
        {}, optional={"nonce": st.text(max_size=50), "message": st.text(max_size=50)}
    )
)
def test_any_answer_to_the_first_request_has_nothing_foreign_signed(
    attester: Attester, verifier: Verifier, told: dict[str, str]
) -> None:
    verifier.changes["/attest/nonce"] = told
    verifier.contents.clear()
    with contextlib.suppress(RefusedError, UnreachableError):
        attester.attest()
    for sent in verifier.contents:
        if "signature" in sent:
            assert is_signed(sent, message(unb64url(sent["nonce"]), verifier.binding()))
