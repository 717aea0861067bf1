"""A result holds no token."""

from hashlib import sha256

from tests.proxy.attested.making import result


def test_a_result_knows_its_token_by_its_digest_alone() -> None:
    made = result("the token")
    assert made.token_sha256 == sha256(b"the token").hexdigest()
    assert (made.thumbprint != "", made.measured) == (True, "")
