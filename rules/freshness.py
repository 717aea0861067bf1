"""How old an attestation may be: the ages that rules name, and which of them one still meets.

A principal says of its attestation no more than that, so that it changes only when a rule could
tell the difference.
"""

from collections.abc import Sequence
from itertools import chain

from rules.facts import Attestation, Level
from rules.ruleset import App, Ruleset

_SKEW_S = 1.0  # a clock that is slewed goes back by less; one that is set back proves nothing


def thresholds(ruleset: Ruleset) -> dict[str, tuple[int, ...]]:
    """Return for each app every `max_age` that its rules name, in seconds, ascending.

    Of rules from files this takes no time to speak of, however many they are.
    """
    return {
        name: ages_of(app) if app.max_ages_s is None else app.max_ages_s
        for name, app in ruleset.apps.items()
    }


def ages_of(app: App) -> tuple[int, ...]:
    """Return every `max_age` that the rules and capabilities of an app name, ascending."""
    requirements = chain(
        (app.require,),
        (rule.require for rule in app.allows),
        (capability.require for capability in app.capabilities),
    )
    return tuple(sorted({one.max_age_s for one in requirements if one.max_age_s is not None}))


def within(age_s: float, ages_s: Sequence[int]) -> int | None:
    """Return the least of the ascending `ages_s` that an age meets; None where it meets none."""
    if age_s < -_SKEW_S:
        return None
    return next((each for each in ages_s if age_s <= each), None)


def just_made(level: Level | None, ages_s: Sequence[int]) -> tuple[Attestation, ...]:
    """Return what a principal says of an attestation of this moment; `level` None: there is none.

    No rule that names no age can tell it from none.
    """
    return (Attestation(level, ages_s[0]),) if level is not None and ages_s else ()
