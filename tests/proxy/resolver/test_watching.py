"""The seam to the tunnel detector."""

from proxy.resolver.watching import UNWATCHED


async def test_where_nobody_watches_everything_goes() -> None:
    assert await UNWATCHED.admit() is None
    assert UNWATCHED.answered() is None
    UNWATCHED.connected("me", "a.example")
