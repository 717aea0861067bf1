"""An attester that never quoted says so."""

from proxy.attested.attester import Attester


def test_before_its_first_quote_nothing_was_counted() -> None:
    made = Attester("000b", "coder", "", "ee", b"", 1.0)
    assert (made.reset_count, made.restart_count, made.clock_ms) == (-1, -1, -1)
    assert made.used_at == 0.0
