"""Samples of what is printed of leaks: tunnels, lists and secrets, of the types of the commands."""

import msgspec

from proxy.control.lists import ListView
from proxy.control.secrets import SecretView
from proxy.detection.shown import TunnelView
from scripts.reference.samples import fenced

_TIME = "2026-11-22T01:45:40.059179Z"
_RULES = "$CONFIG/rules"
_EVIDENCE = {
    "names": 16.0,
    "queries": 16.0,
    "nxdomain_share": 0.0,
    "other_types_share": 0.0,
    "never_connected_share": 1.0,
    "label_octets_mean": 30.0,
    "label_bits_per_octet": 3.58,
    "hex_share": 1.0,
    "base32_share": 0.0,
    "base64_share": 0.0,
}


def tunnels() -> str:
    """Return what `tunnels list --json` prints of a suffix that is held."""
    made = TunnelView(
        app="coder",
        suffix="example.net",
        state="held",
        tier="ordinary",
        octets={"2m": 496, "1h": 496, "24h": 496},
        answers={"2m": 0, "1h": 0, "24h": 0},
        choice={"2m": 0, "1h": 0, "24h": 0},
        names=16,
        queries=16,
        since=_TIME,
        id="01a200ee31db7a3c897d0c0b7ed48390",
        rule="tunnel:names:2m",
        reached=528,
        limit=512,
        evidence=_EVIDENCE,
        samples=("43fe09bfc24f27d5785b71052d3fa1.example.net",),
    )
    return _shown([made])


def lists() -> str:
    """Return what `lists --json` prints of a list that is in force."""
    made = ListView(
        place=f"{_RULES}/coder.yaml:8",
        file="exfil.txt",
        path=f"{_RULES}/exfil.txt",
        format="hosts",
        names=81233,
        skipped={"cannot be read": 2},
        excepts=1,
        apps=None,
        refuse="sinkhole",
        loaded=_TIME,
    )
    return _shown([made])


def secrets() -> str:
    """Return what `secrets list --json` prints."""
    made = SecretView(name="github-token", kind="secret", at=_TIME, by_uid=1000)
    trap = SecretView(name="ci-trap", kind="canary", at=_TIME, by_uid=1000)
    return _shown([made, trap])


def _shown(value: object) -> str:
    return fenced(msgspec.json.encode(value).decode())
