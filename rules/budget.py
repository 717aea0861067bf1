"""How many octets may go in two minutes, an hour and a day, and when somebody is told."""

from msgspec import Struct

from rules.window import WINDOWS, Meter


class Limits(Struct, frozen=True):
    """The most of each window, the shortest first; a limit may be reached, not passed."""

    two_minutes: int
    hour: int
    day: int

    def times(self, factor: int) -> "Limits":
        """Return these limits, `factor` times as wide."""
        return Limits(self.two_minutes * factor, self.hour * factor, self.day * factor)


class Passed(Struct, frozen=True):
    """The limit that a further amount would pass: its window, what it would come to, the limit."""

    window: str
    amount: int
    limit: int


def passed(of: Meter, amount: int, limits: Limits) -> Passed | None:
    """Return the first limit that `amount` more would pass; the meter stands at its own tick."""
    if of[1] + amount > limits.two_minutes:
        return Passed(WINDOWS[0], of[1] + amount, limits.two_minutes)
    if of[2] + amount > limits.hour:
        return Passed(WINDOWS[1], of[2] + amount, limits.hour)
    if of[3] + amount > limits.day:
        return Passed(WINDOWS[2], of[3] + amount, limits.day)
    return None


def is_calm(of: Meter, limits: Limits) -> bool:
    """Return whether every window is below half of its limit: an alert may be given again."""
    return 2 * of[1] < limits.two_minutes and 2 * of[2] < limits.hour and 2 * of[3] < limits.day
