"""What the issuer is asked to sign: types that are told apart from each other and from SVIDs."""

import datetime as dt
from pathlib import Path

import pytest

from certs.domain import ensure_domain, load_domain
from certs.errors import IssueError
from proxy.agent_api.issuing import ACCESS, RESULT

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def test_the_types_are_two_and_no_jwt_svid_has_them() -> None:
    """RFC 8725, section 3.11; JWT-SVID, section 2.3 allows JWT and JOSE alone."""
    assert len({ACCESS, RESULT, "JWT", "JOSE"}) == 4


def test_the_trust_domain_signs_these_types_and_no_other(tmp_path: Path) -> None:
    ensure_domain(tmp_path / "identity", "desk.example", NOW, None)
    domain = load_domain(tmp_path / "identity", None)
    claims = b'{"iss": "desk.example", "exp": %d}' % (NOW.timestamp() + 60)
    tokens = {domain.sign_claims(claims, each, NOW).partition(".")[0] for each in (ACCESS, RESULT)}
    assert len(tokens) == 2
    with pytest.raises(IssueError):
        domain.sign_claims(claims, "JWT", NOW)
