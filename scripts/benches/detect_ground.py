"""A detector as the product has it: the installed suffix list and the shipped tiers."""

from importlib import resources

from proxy.reload.files import public_suffixes
from rules.detector import Detector
from rules.suffix import PublicSuffixes
from rules.tiers import Tiers, read_tiers


def tiers() -> Tiers:
    """Return the second tier as it is shipped."""
    folder = resources.files("rules") / "tiers"
    return read_tiers(
        {
            file.name.removesuffix(".txt"): file.read_text(encoding="utf-8")
            for file in folder.iterdir()
            if file.name.endswith(".txt")
        }
    )


class Ground:
    """What every detector of a run shares."""

    def __init__(self) -> None:
        self.suffixes: PublicSuffixes = public_suffixes()
        self._tiers = tiers()

    def detector(self) -> Detector:
        """Return one that knows nothing yet."""
        return Detector(self.suffixes, self._tiers)
