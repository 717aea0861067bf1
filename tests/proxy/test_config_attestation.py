"""`attestation:` of sallyport.yaml: what is taken, and what is told of each mistake."""

import pytest

from proxy.config import Locations, Settings, read_config
from proxy.config_attestation import TTL_S, AttestationSettings
from rules.errors import Problem
from rules.text import SourceText

WHERE = Locations("/c", "/s", "/r")


def read(text: str) -> tuple[Settings, list[Problem]]:
    return read_config(SourceText("f", f"attestation:\n{text}"), WHERE)


def test_without_a_word_a_result_counts_for_five_minutes_and_no_tpm_is_believed() -> None:
    assert read_config(None, WHERE)[0].attestation == AttestationSettings(TTL_S, ())


def test_reads_every_key() -> None:
    settings, found = read("  ttl: 2m\n  ek_roots: [/etc/tpm/a.pem, b.pem]\n")
    assert found == []
    assert settings.attestation == AttestationSettings(120, ("/etc/tpm/a.pem", "b.pem"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("  ttl: 29s", "29 s is no life of an attestation result"),
        ("  ttl: 61m", "no life of an attestation result"),
        ("  ttl: soon", "attestation.ttl"),
        ("  ek_roots: []", "it names no file"),
        ("  ek_root: a.pem", "ek_roots"),
    ],
)
def test_a_mistake_is_told_where_it_stands_with_its_cure(text: str, said: str) -> None:
    (problem,) = read(text)[1]
    assert said in problem.render()
    assert problem.render().startswith("f:2:")
    assert problem.cure
