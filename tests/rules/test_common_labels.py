"""Labels that are worth one octet in the sum over all suffixes."""

import re

from rules.common_labels import COMMON_LABELS


def test_one_of_them_is_no_more_than_an_octet() -> None:
    assert len(COMMON_LABELS) <= 255


def test_all_are_labels_in_the_canonical_form() -> None:
    assert all(re.fullmatch(r"[a-z0-9_][a-z0-9_-]{0,62}", label) for label in COMMON_LABELS)
    assert {"www", "api", "cdn", "mail", "ns1", "_dmarc", "_domainkey"} <= COMMON_LABELS
