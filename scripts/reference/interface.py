"""docs/openapi.json: the API of agents as the appliance composes it, without one that runs."""

from typing import Any

from proxy.config import Locations, read_config
from proxy.identities import Identities
from proxy.metrics import Metrics
from proxy.proof import Ground, Proof
from proxy.workload.events import Clock
from rules.ruleset import Ruleset

_PLACES = Locations("$CONFIG", "$STATE", "$RUNTIME")


class _Unused:
    """Stands for what only answers need: the issuer and the audit."""

    evidence: Any = None


def openapi() -> str:
    """Return the document that `GET /openapi.json` answers; no file is opened for it."""
    settings, _ = read_config(None, _PLACES)
    metrics, unused, clock = Metrics(), _Unused(), Clock(lambda: 0.0, bytes)
    absent: Any = unused
    ground = Ground(
        settings=settings,
        identities=Identities(settings, metrics, clock),
        workload=absent,
        audit=absent,
        metrics=metrics,
        ruleset=lambda: Ruleset(generation=0, apps={}),
        clock=clock,
        monotonic=lambda: 0.0,
    )
    return Proof(ground).api.openapi().decode()
