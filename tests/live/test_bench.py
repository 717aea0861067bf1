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


@pytest.mark.parametrize("plane", ["udp-hit", "udp-refused", "forward", "connect", "bulk"])
def test_measures_us_beside_peers(internet: Internet, tmp_path: Path, plane: str) -> None:
    rows = tmp_path / "rows.json"
    bench = [sys.executable, "-m", "scripts.benches", plane, "--rounds=1", "--seconds=0.5"]
    ended = internet.agent.run(
        [need("unshare"), "--net", "--mount", *bench, "--json", str(rows)],
        env={"PYTHONPATH": str(ROOT)},
        wait_s=60,
    )
    assert ended.returncode == 0, ended.stderr
    found = msgspec.json.decode(rows.read_bytes(), type=list[Row])
    peers = {"unbound", "dnsmasq"} if plane.startswith("udp") else {"squid", "tinyproxy"}
    assert peers <= {row.peer for row in found}
    for row in found:
        assert row.bench == plane
        assert row.ours > 0
        assert row.ratio == pytest.approx(row.ours / row.theirs)
