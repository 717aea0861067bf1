"""Whether anything can meet an `attested` that is required; `check` warns where nothing can."""

from collections.abc import Iterable

from rules.facts import Level
from rules.node import MappingNode, Report
from rules.ruleset import App, Requirements

type Demand = tuple[Requirements, MappingNode, Report]
"""What is required, and where: the node that has the key `require`, or a capability."""

_PLACES = ("require", "audience")  # a capability requires one without a word


def warn_unmeetable(app: App, demands: Iterable[Demand]) -> None:
    """Warn at each `require` of `app` whose attestation cannot be had."""
    lacks = {level: lacking(app, level) for level in Level}
    warned: MappingNode | None = None
    for require, node, report in demands:
        found = None if require.attested is None else lacks[require.attested]
        if found is not None and node is not warned:  # of a pack's many rules one node is the place
            keys = [key for key in _PLACES if key in node.entries]
            report.warn(node.key(keys[0]) if keys else node, *found)
            warned = node


def lacking(app: App, level: Level) -> tuple[str, str] | None:
    """Return what lacks and the cure; None where an attestation of `level` can be had."""
    leased = any(line.lease is not None for line in app.identity)
    if not leased and all(line.spiffe is None for line in app.identity):
        return (
            f"`attested` has nothing to be bound to: {app.name} has no identity line with `spiffe`",
            'add {spiffe: "spiffe://..."} to `identity`; what it guards is refused until then',
        )
    values = app.reference_values
    if level is Level.SOFTWARE or values.pcrs:  # a TPM's quote is of every level
        return None
    if level is Level.TPM:
        return (
            f"level tpm is never reached: {app.name} has no `reference_values.pcrs`",
            'add reference_values: {pcrs: {7: "VALUE"}}; `tpm2_pcrread sha256` shows them',
        )
    if not leased:
        return (
            f"level launched is never reached: {app.name} has no identity line with `lease`",
            f"add {{lease: {app.name}}} to `identity`, or ask for level software",
        )
    if not values.launched:
        return (
            f"level launched is never reached: {app.name} has no `reference_values.launched`",
            'add reference_values: {launched: [{file: "DIGEST"}]}',
        )
    return None
