"""What is sent fits, or is refused before anybody reads it."""

from typing import Any

import msgspec
import pytest

from proxy.verifier.contents import (
    ActivationSent,
    Attested,
    EnrolmentSent,
    EvidenceSent,
    NonceWanted,
    level_name,
)
from rules.facts import Level

NONCE = "A" * 43


def read(kind: type, content: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(content), type=kind)


@pytest.mark.parametrize("index", [*map(str, range(24))])
def test_each_pcr_of_a_pc_has_its_index(index: str) -> None:
    sent = read(EvidenceSent, {"nonce": NONCE, "evidence": "tpm", "pcr": {index: "aa" * 32}})
    assert sent.pcr == {index: "aa" * 32}


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (NonceWanted, {"more": 1}),
        (EvidenceSent, {"nonce": NONCE}),
        (EvidenceSent, {"nonce": NONCE + "A", "evidence": "tpm"}),
        (EvidenceSent, {"nonce": NONCE, "evidence": "tpm", "alg": "none"}),
        (EvidenceSent, {"nonce": NONCE, "evidence": "tpm", "quote": "A" * 2049}),
        (EvidenceSent, {"nonce": NONCE, "evidence": "tpm", "attester": "000b"}),
        *(
            (EvidenceSent, {"nonce": NONCE, "evidence": "tpm", "pcr": {index: "aa" * 32}})
            for index in ("24", "-1", "01", "1 ", "30", "")
        ),
        (EvidenceSent, {"nonce": NONCE, "evidence": "tpm", "pcr": {"0": "AA" * 32}}),
        (EvidenceSent, {"nonce": NONCE, "evidence": "tpm", "pcr": {"0": "aa" * 31}}),
        (EnrolmentSent, {"certificates": ["AA"] * 9, "ak": "AA"}),
        (EnrolmentSent, {"certificates": [], "ak": "AA"}),
        (ActivationSent, {"handle": "../x", "secret": "AA"}),
    ],
)
def test_what_does_not_fit_is_refused(kind: type, content: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        read(kind, content)


@pytest.mark.parametrize(
    ("kind", "member", "value"),
    [
        (EvidenceSent, "nonce", NONCE),
        (EvidenceSent, "key", "AA"),
        (EvidenceSent, "attester", "0" * 68),
        (EvidenceSent, "pcr", {"0": "aa" * 32}),
        (EnrolmentSent, "ak", "AA"),
        (ActivationSent, "handle", "a" * 32),
    ],
)
def test_a_line_feed_at_the_end_is_one_character_too_many(
    kind: type, member: str, value: Any
) -> None:
    """In a pattern `$` alone lets it through."""
    known: dict[type, dict[str, Any]] = {
        EvidenceSent: {"nonce": NONCE, "evidence": "tpm"},
        EnrolmentSent: {"certificates": ["AA"], "ak": "AA"},
        ActivationSent: {"handle": "a" * 32, "secret": "AA"},
    }
    assert read(kind, {**known[kind], member: value})
    fed = (
        [value + "\n"] if isinstance(value, str) else [{"0\n": "aa" * 32}, {"0": "aa" * 32 + "\n"}]
    )
    for each in fed:
        with pytest.raises(msgspec.ValidationError):
            read(kind, {**known[kind], member: each})


def test_a_result_is_no_access_token() -> None:
    said = msgspec.json.decode(msgspec.json.encode(Attested("t", 1, 1, "tpm", "i", "b", 0)))
    assert "N_A" in said.values()  # RFC 8693, section 2.2.1
    assert [level_name(each) for each in Level] == ["software", "launched", "tpm"]
