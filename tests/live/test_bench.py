"""The benches run and count; what the figures are is for a person to read."""

import sys
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct

from tests.internet import Internet, need
from tests.live.appliance import ROOT

pytestmark = pytest.mark.live


class Row(Struct, forbid_unknown_fields=True):
    """A row of `scripts/bench --json` (reference.md, "Formats")."""

    bench: str
    peer: str
    ours: float
    theirs: float
    ratio: float
    unit: str


def measured(internet: Internet, folder: Path, *planes: str) -> list[Row]:
    rows = folder / "rows.json"
    bench = [sys.executable, "-m", "scripts.benches", *planes, "--rounds=1", "--seconds=0.5"]
    ended = internet.agent.run(
        [need("unshare"), "--net", "--mount", *bench, "--json", str(rows)],
        env={"PYTHONPATH": str(ROOT)},
        wait_s=60,
    )
    assert ended.returncode == 0, ended.stderr
    return msgspec.json.decode(rows.read_bytes(), type=list[Row])


def test_holds_attestations_against_their_bars(internet: Internet, tmp_path: Path) -> None:
    planes = ("attest", "attest-tpm")
    found = measured(internet, tmp_path, *planes)
    assert tuple(row.bench for row in found) == planes
    for row in found:
        assert row.ours > 0
        assert row.ratio == pytest.approx(row.theirs / row.ours)


@pytest.mark.parametrize("plane", ["udp-hit", "udp-refused", "forward", "connect", "bulk"])
def test_measures_us_beside_peers(internet: Internet, tmp_path: Path, plane: str) -> None:
    found = measured(internet, tmp_path, plane)
    peers = {"unbound", "dnsmasq"} if plane.startswith("udp") else {"squid", "tinyproxy"}
    assert peers <= {row.peer for row in found}
    for row in found:
        assert row.bench == plane
        assert row.ours > 0
        assert row.ratio == pytest.approx(row.ours / row.theirs)
