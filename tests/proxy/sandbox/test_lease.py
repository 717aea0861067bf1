"""What a lease's listeners are called."""

from proxy.sandbox.lease import Lease, Measured, is_lent
from rules.identity import read_listener


def test_the_listeners_of_a_lease_are_called_like_no_others() -> None:
    """A rule's `listener:` never means one: what is bound there is of another namespace."""
    one, other = Lease("a", "coder"), Lease("b", "coder", Measured("0" * 64))
    names = {lease.listener(kind) for lease in (one, other) for kind in ("do53", "proxy")}
    assert len(names) == 4
    assert all(map(is_lent, names))
    assert not any(map(is_lent, map(read_listener, ("127.0.0.1:53", "[::1]:53"))))
