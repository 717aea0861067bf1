"""`detect` of an app or of an allow: how closely its look-ups are watched."""

from typing import Final

from msgspec import UNSET, UnsetType

from rules import document
from rules.node import MappingNode, Report, at
from rules.watch import Detect, Mode

AS_SHIPPED: Final = Detect()

_MODES = {
    "off": Mode.OFF,
    "observe": Mode.OBSERVE,
    "alert": Mode.ALERT,
    "block": Mode.BLOCK,
}


def read_detect(
    entry: document.Detect | UnsetType,
    node: MappingNode,
    report: Report,
    above: Detect = AS_SHIPPED,
) -> Detect | None:
    """Return what `detect` of `node` says; None where it is not there.

    A key that it leaves out is as `above` has it.
    """
    if entry is UNSET:
        return None
    said = at(node, "detect")
    if isinstance(said, MappingNode) and not (said.entries or said.flawed):
        report.error(said, "`detect` says nothing", "write {mode: observe}, or take the key out")
    return Detect(
        mode=_mode(entry.mode, above.mode),
        flux=_mode(entry.flux, above.flux),
        cloaking=_mode(entry.cloaking, above.cloaking),
    )


def _mode(word: document.Mode | UnsetType, above: Mode) -> Mode:
    return above if word is UNSET else _MODES[word]
