"""The unix sockets that we accept on: which are bound, where, and for whom."""

import socket
import stat
from pathlib import Path

import pytest

from proxy.audit import AuditSettings
from proxy.binding import Bound
from proxy.config import Listen, Settings
from proxy.errors import BindError
from proxy.unix_doors import bind_doors


def listening(folder: Path, control: str = "", workload: str = "", ext_authz: str = "") -> Settings:
    control, workload, ext_authz = (
        str(folder / name) if name else "" for name in (control, workload, ext_authz)
    )
    return Settings(
        state=str(folder),
        rules=(),
        audit=AuditSettings(str(folder / "audit.jsonl")),
        listen=Listen(control=control, workload=workload, ext_authz=ext_authz),
    )


def test_nothing_that_is_not_configured_is_bound(tmp_path: Path) -> None:
    doors = bind_doors(listening(tmp_path))
    assert (doors.control, doors.workload, doors.ext_authz) == (None, None, None)


def test_each_is_ours_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    doors = bind_doors(listening(tmp_path, control="c", workload="w", ext_authz="e"))
    for door in (doors.control, doors.workload, doors.ext_authz):
        assert door is not None
        assert stat.S_IMODE(door.path.stat().st_mode) == 0o600
        door.close()


def test_a_second_appliance_is_told_of_the_first(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    doors = bind_doors(listening(tmp_path, control="c"))
    assert doors.control is not None
    with pytest.raises(BindError, match="already running"):
        bind_doors(listening(tmp_path, control="c", workload="w"))
    doors.control.close()


def test_the_issuer_is_handed_its_own_listeners_alone(tmp_path: Path) -> None:
    doors = bind_doors(listening(tmp_path))
    with socket.socket() as sock:
        bound = [Bound(kind, "label", sock) for kind in ("proxy", "enroll", "control_tls", "pki")]
        assert [each.kind for each in doors.sockets(bound).handed] == ["enroll", "pki"]
