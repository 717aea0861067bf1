"""A verifier that answers, and an attester that knows it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from certs.attester_key import ensure_attester_key
from proxy.attester.attester import Attester, Claimed
from proxy.attester.evidence import Software
from tests.proxy.attester.verifier import Verifier, serving


@pytest.fixture
def verifier(tmp_path: Path) -> Iterator[Verifier]:
    with serving(Verifier(tmp_path)) as found:
        yield found


@pytest.fixture
def attester(verifier: Verifier) -> Attester:
    key = ensure_attester_key(verifier.folder / "attester.key")
    return Attester(verifier.place, verifier.own, Software(key), Claimed("sha256:1", "1.2"))
