"""How often a peer may be refused."""

from proxy.issuing.tries import Tries
from proxy.limits import Limits


class Wall:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def tries(wall: Wall, **limits: int) -> Tries:
    bounds = {"enroll_refusals": 2, "enroll_peers": 3, **limits}
    return Tries(Limits(enroll_refusals_s=10.0, **bounds), wall)


def test_some_at_once_and_then_one_each_few_seconds() -> None:
    wall = Wall()
    found = tries(wall)
    assert [found.refused("a") for _ in range(4)] == [0, 0, None, None]
    wall.now += 10.0
    assert found.refused("a") == 2  # passed over meanwhile
    assert found.refused("a") is None


def test_peers_are_counted_apart() -> None:
    found = tries(Wall())
    assert [found.refused(peer) for peer in ("a", "a", "a", "b")] == [0, 0, None, 0]


def test_a_clock_that_was_set_back_gives_nothing() -> None:
    wall = Wall()
    found = tries(wall)
    for _ in range(3):
        found.refused("a")
    wall.now -= 500.0
    assert found.refused("a") is None


def test_peers_are_bounded_and_the_quietest_is_forgotten() -> None:
    found = tries(Wall())
    for peer in ("a", "b", "c", "a", "d"):
        found.refused(peer)
    assert len(found) == 3
    assert found.refused("a") is None  # it was not the quietest
