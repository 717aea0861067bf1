"""What an app may not reach because it was found to leak there, until an admin lets go of it.

Filled by the tunnel detector (`proxy.detection`), asked by every decision (`proxy.authorize`).
"""

from msgspec import Struct

from rules.decision import Decision, Reason, Verdict
from rules.name import DomainName, ancestors


class Hold(Struct, frozen=True):
    """Why a suffix is held: the audit line's id, and since when (Unix time, seconds)."""

    id: str
    at: float


class Held:
    """The suffixes that are held, by app; changed by `hold` and `let_go` alone."""

    def __init__(self) -> None:
        self._apps: dict[str, dict[DomainName, Hold]] = {}

    def __bool__(self) -> bool:
        """Return whether anything is held at all."""
        return bool(self._apps)

    def hold(self, app: str, suffix: DomainName, hold: Hold) -> None:
        """Refuse `app` the suffix and every name below it from now on."""
        self._apps.setdefault(app, {})[suffix] = hold

    def let_go(self, app: str, suffix: DomainName) -> bool:
        """Return whether it was held; it is not any more."""
        held = self._apps.get(app, {})
        was_held = held.pop(suffix, None) is not None
        if was_held and not held:
            del self._apps[app]
        return was_held

    def of(self, app: str) -> dict[DomainName, Hold]:
        """Return what is held of `app`."""
        return dict(self._apps.get(app, {}))

    def refusal(self, app: str, name: DomainName | None) -> Decision | None:
        """Return why `app` may not have `name`; None: it is not held, or no name at all."""
        held = self._apps.get(app)
        if held is None or name is None:
            return None
        suffix = next((each for each in (name, *ancestors(name)) if each in held), None)
        if suffix is None:
            return None
        return Decision(Verdict.DENY, Reason.TUNNEL_DETECTED, f"held:{suffix}")
