"""How closely a look-up is watched that an app's rules allow."""

from collections.abc import Sequence

from rules.decision import Watch
from rules.match import AppIndex
from rules.name import DomainName
from rules.ruleset import AllowRule


def watched(app: AppIndex, name: DomainName, rules: Sequence[AllowRule]) -> tuple[Watch]:
    """Return the obligation of a look-up of `name` that `rules` decide: the strictest of theirs.

    What says nothing of it is watched as the app says.
    """
    own = {app.app.detect if rule.detect is None else rule.detect for rule in rules}
    return (Watch(max(own, default=app.app.detect), app.allows.has_name(name)),)
