"""Who a caller is, and which SPIFFE IDs that entitles him to.

An app is entitled to the SPIFFE IDs of its own identity lines within our trust domain, in their
order; the caller is the app that evidence of his process names.  What is revoked, or kept for
admins, is nobody's.  Nothing proves nothing: an unknown caller is entitled to nothing.
"""

import logging
from collections.abc import Callable, Collection
from typing import Protocol

from msgspec import Struct

from proxy.limits import Limits
from proxy.transport.peer import SocketOwner
from proxy.workload.callers import Caller
from rules.decision import Decision
from rules.facts import UNKNOWN_APP, Principal
from rules.ruleset import App, Ruleset

logger = logging.getLogger(__name__)

NO_RULES = Ruleset(0, {})

type IsBarred = Callable[[str, str], bool]
"""Whether an app may not have a SPIFFE ID, whatever the rules say: `is_barred(app, spiffe_id)`."""


class Names(Protocol):
    """What is asked of `proxy.identify.Identifier`."""

    def of_process(self, owner: SocketOwner) -> Principal:
        """Return the app that process evidence names on no listener."""

    def vouched(self, spiffe_id: str) -> Principal | Decision:
        """Return the app of a certificate that somebody else has verified."""


class Entitlement(Struct, frozen=True):
    """What a caller may have: the SPIFFE IDs `ids` of `app`."""

    app: str = ""
    ids: tuple[str, ...] = ()


NOTHING = Entitlement()


class Entitlements:
    """Entitles callers and apps by the rules that `use` was given last."""

    def __init__(
        self,
        names: Names,
        trust_domain: str,
        is_barred: IsBarred,
        limits: Limits,
        hit_bound: Callable[[str], None],
    ) -> None:
        """`hit_bound` is called with the name of a limit each time that it is met."""
        self._names = names
        self._prefix = f"spiffe://{trust_domain}/"
        self._is_barred = is_barred
        self._limits = limits
        self._hit_bound = hit_bound
        self.use(NO_RULES)

    def use(self, ruleset: Ruleset) -> None:
        """Entitle by `ruleset` from now on; `names` has taken it before."""
        self._ruleset = ruleset
        lines = [line for app in ruleset.apps.values() for line in app.identity]
        lines = [line for line in lines if line.is_process and line.token is None]
        self._asks_program = any(line.exe_sha256 is not None for line in lines)
        self._asks_cgroup = any(line.cgroup is not None for line in lines)

    def of_app(self, name: str) -> Entitlement:
        """Return what `name` is entitled to; nothing where there is no such app."""
        app = self._ruleset.apps.get(name)
        if app is None or name == UNKNOWN_APP:
            return NOTHING
        ids = tuple(each for each in self._ids(app) if not self._is_barred(name, each))
        if len(ids) > self._limits.workload_ids:
            self._hit_bound("workload_ids")
        return Entitlement(name, ids[: self._limits.workload_ids])

    def of_caller(self, caller: Caller, ours: Collection[int]) -> Entitlement:
        """Return what `caller` is entitled to now.  Never raises: who cannot be told is nobody.

        Nothing, where he has ended, is one of our own processes (their ids are `ours`), or is no
        longer what he was when he called: he connects again then.
        """
        try:
            # 0 is who has no number in our PID namespace, and an issuer that does not run.
            if caller.pid and caller.pid in ours:
                return NOTHING
            if not caller.is_alive or not self.is_same(caller):
                return NOTHING
            owner = caller.owner(self._limits, asks_program=self._asks_program)
            return self.of_app(self._names.of_process(owner).app)
        except Exception:
            logger.exception("who process %d is cannot be told", caller.pid)
            return NOTHING

    def is_same(self, caller: Caller) -> bool:
        """Return whether `caller` is what he was when he called, in what the rules ask for."""
        if not self._asks_cgroup and not self._asks_program:
            return True
        then, now = caller.mark, caller.look()
        if self._asks_cgroup and now.cgroup != then.cgroup:
            return False
        return not self._asks_program or now.program == then.program

    def _ids(self, app: App) -> dict[str, None]:
        found = (line.spiffe for line in app.identity)
        return {each: None for each in found if each and each.startswith(self._prefix)}
