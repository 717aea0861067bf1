"""Write the tables of the manual that follow from the code, between their marks, and openapi.json.

    <!-- generated: NAME -->  ...  <!-- end -->

`--check` changes nothing and ends with 1 when a file is not what the code says.

    python scripts/make_reference.py [--check]
"""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # run by path
    sys.path.insert(0, str(ROOT))

from scripts.reference import interface, leak_samples, proof_samples, samples, tables  # noqa: E402 - the path has to be there first

BLOCK = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
BLOCKS: dict[str, Callable[[], str]] = {
    "limits": tables.limits,
    "leaks": tables.leaks,
    "metrics": tables.metrics,
    "reasons": tables.reasons,
    "configuration": tables.configuration,
    "rule-keys": tables.rule_keys,
    "record-types": tables.record_types,
    "packs": tables.packs,
    "sample-ready": samples.ready,
    "sample-check": samples.check,
    "sample-explain": samples.explain,
    "sample-why": samples.why,
    "sample-demo": samples.demo,
    "sample-audit": samples.audit,
    "sample-problem": samples.problem,
    "sample-index": samples.index,
    "sample-readyz": samples.readyz,
    "sample-status": samples.status,
    "sample-token": samples.token,
    "sample-authority": samples.authority,
    "sample-attest": proof_samples.attest,
    "sample-exchange": proof_samples.exchange,
    "sample-agents": proof_samples.agents,
    "sample-capabilities": proof_samples.capabilities,
    "sample-attesters": proof_samples.attesters,
    "sample-tunnels": leak_samples.tunnels,
    "sample-lists": leak_samples.lists,
    "sample-secrets": leak_samples.secrets,
}
FILES: dict[str, Callable[[], str]] = {"openapi.json": interface.openapi}


def pages() -> list[Path]:
    """Return every page of the manual, and those beside it."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def written_anew(text: str) -> str:
    """Return a page with every block made from the code of today."""
    return BLOCK.sub(lambda found: f"{found[1]}{BLOCKS[found[2]]()}\n{found[3]}", text)


def files() -> Iterator[tuple[Path, str]]:
    """Yield what the code writes: the file, and its text of today."""
    for page in pages():
        yield page, written_anew(page.read_text(encoding="utf-8"))
    for name, made in FILES.items():
        yield ROOT / "docs" / name, made()


def main(argv: list[str]) -> int:
    """Write the files, or with --check say which are stale."""
    stale = []
    for file, wanted in files():
        if file.exists() and file.read_text(encoding="utf-8") == wanted:
            continue
        stale.append(str(file.relative_to(ROOT)))
        if "--check" not in argv:
            file.write_text(wanted, encoding="utf-8")
    for name in stale:
        print(("stale: " if "--check" in argv else "written: ") + name)
    return 1 if stale and "--check" in argv else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
