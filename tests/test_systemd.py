"""The units of docs/examples: systemd takes them, and says how much they leave open."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from proxy.doctor.host import files_needed
from proxy.limits import Limits
from proxy.locations import SYSTEM
from tests.internet import PATH, need
from tests.live.appliance import ROOT

UNITS = ROOT / "docs" / "examples" / "systemd"
SYSTEM_UNIT, USER_UNIT = UNITS / "sallyport.service", UNITS / "user" / "sallyport.service"
EXPOSURE = {SYSTEM_UNIT: 1.9, USER_UNIT: 6.4}  # of 10; docs/deployment.md says what is left


def analyze(*arguments: str | Path, folder: Path) -> "subprocess.CompletedProcess[str]":
    env = {
        "PATH": os.environ.get("PATH", PATH),
        "XDG_RUNTIME_DIR": str(folder),
        "HOME": str(folder),
    }
    return subprocess.run(
        [need("systemd-analyze"), *arguments],
        capture_output=True, text=True, check=False, timeout=60, env=env,
    )  # fmt: skip


def installed(unit: Path, folder: Path) -> Path:
    """Return a copy whose program exists on every host."""
    text = re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text())
    copied = folder / unit.name
    copied.write_text(text)
    return copied


def value(unit: Path, key: str) -> list[str]:
    return re.findall(rf"(?m)^{key}=(.*)$", unit.read_text())


@pytest.mark.parametrize("unit", [SYSTEM_UNIT, USER_UNIT], ids=["system", "user"])
def test_systemd_finds_nothing_wrong_with_the_unit(unit: Path, tmp_path: Path) -> None:
    mode = ["--user"] if unit == USER_UNIT else []
    ended = analyze(*mode, "verify", installed(unit, tmp_path), folder=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("unit", [SYSTEM_UNIT, USER_UNIT], ids=["system", "user"])
def test_the_exposure_stays_where_it_is(unit: Path, tmp_path: Path, report: list[str]) -> None:
    ended = analyze(
        "security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE[unit] * 10:.0f}",
        installed(unit, tmp_path), folder=tmp_path,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (found,) = re.findall(r"Overall exposure level for \S+: ([0-9.]+)", ended.stdout)
    report.append(f"systemd-analyze security: {unit.relative_to(UNITS)} {found}")
    assert float(found) <= EXPOSURE[unit], "docs/deployment.md names the figure"


def test_the_folders_are_those_of_system() -> None:
    """/etc/sallyport stays root's (systemd.exec(5)); the others are given to the user."""
    for key, path in (
        ("ConfigurationDirectory", SYSTEM.config),
        ("StateDirectory", SYSTEM.state),
        ("RuntimeDirectory", SYSTEM.runtime),
    ):
        (name,) = value(SYSTEM_UNIT, key)
        assert Path(path).name == name
    assert value(SYSTEM_UNIT, "StateDirectoryMode") == ["0700"]
    assert value(SYSTEM_UNIT, "User") == ["sallyport"]
    assert value(SYSTEM_UNIT, "ExecStart") == ["/usr/lib/sallyport/bin/sallyport up --system"]


def test_no_capability_but_that_of_low_ports() -> None:
    assert value(SYSTEM_UNIT, "CapabilityBoundingSet") == ["CAP_NET_BIND_SERVICE"]
    assert value(SYSTEM_UNIT, "AmbientCapabilities") == ["CAP_NET_BIND_SERVICE"]


def test_evidence_and_the_manager_have_their_address_families() -> None:
    for unit in (SYSTEM_UNIT, USER_UNIT):
        assert value(unit, "RestrictAddressFamilies") == ["AF_INET AF_INET6 AF_NETLINK AF_UNIX"]


def test_enough_files_may_be_open() -> None:
    """`doctor` would find less."""
    for unit in (SYSTEM_UNIT, USER_UNIT):
        assert int(value(unit, "LimitNOFILE")[0]) >= files_needed(Limits())


def test_broken_rules_are_not_tried_again() -> None:
    """Exit code 3 needs a person."""
    assert value(SYSTEM_UNIT, "RestartPreventExitStatus") == ["3"]
    assert value(SYSTEM_UNIT, "Restart") == ["on-failure"]
