"""What is signed: of fixed length, and never the same for two bindings."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from proxy.attested.binding import Binding, Kind, message, of_key
from proxy.certificates.svid import Svid

DIGESTS = st.binary(min_size=32, max_size=32)
BINDINGS = st.builds(lambda digest: Binding(Kind.KEY, digest.hex()), DIGESTS) | st.builds(
    Binding, st.just(Kind.LEASE), st.text(max_size=20)
)


def test_a_key_is_bound_by_its_digest_and_a_lease_by_that_of_its_id() -> None:
    svid = Svid("spiffe://a/b", "1", 0, 1, "99" * 32, "aa" * 32)
    assert of_key(svid) == Binding(Kind.KEY, "aa" * 32)
    assert of_key(svid).digest == bytes.fromhex("aa" * 32)
    assert Binding(Kind.LEASE, "box").digest == hashlib.sha256(b"box").digest()


@given(DIGESTS, BINDINGS, DIGESTS, DIGESTS, BINDINGS, DIGESTS)
def test_two_messages_are_the_same_where_all_of_them_is(
    nonce: bytes, binding: Binding, measured: bytes, other: bytes, elsewhere: Binding, zeros: bytes
) -> None:
    """threats.md, "Identity": relay, a valid quote over another TLS key."""
    first, second = message(nonce, binding, measured), message(other, elsewhere, zeros)
    is_same = (nonce, binding, measured) == (other, elsewhere, zeros)
    assert len(first) == len(second) == 121
    assert (first == second) == is_same


def test_a_lease_called_like_a_key_is_another_binding() -> None:
    key = Binding(Kind.KEY, hashlib.sha256(b"box").hexdigest())
    assert message(bytes(32), key) != message(bytes(32), Binding(Kind.LEASE, "box"))
