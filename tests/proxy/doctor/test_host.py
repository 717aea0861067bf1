"""The host: each fault is put there, and the finding says what it is."""

import datetime as dt
import os
import resource
from pathlib import Path

import pytest

from proxy.doctor.host import (
    address_families,
    clock,
    descriptors,
    files_needed,
    has_ipv6,
    kernel,
    newest_line_s,
    peers,
    read_release,
)
from proxy.limits import Limits
from tests.authority import PrivateAuthority
from tests.proxy.patients import only, patient_in

HOUR_S = 3600.0


def errors_of_the_clock(folder: Path, now: float) -> list[str]:
    found = clock(patient_in(folder, now=now))
    return [each.message for each in found if each.severity == "error"]


def test_a_clock_that_is_right_has_no_error(tmp_path: Path) -> None:
    now = dt.datetime.now(dt.UTC).timestamp()
    assert errors_of_the_clock(tmp_path, now) == []


def test_a_clock_before_our_installation_is_wrong(tmp_path: Path) -> None:
    (message,) = errors_of_the_clock(tmp_path, 0.0)
    assert message.endswith("h before this version was installed")


def test_a_clock_before_the_newest_audit_line_is_wrong(tmp_path: Path) -> None:
    now = dt.datetime.now(dt.UTC)
    state = tmp_path / "state"
    state.mkdir()
    later = (now + dt.timedelta(hours=5)).isoformat(timespec="microseconds").replace("+00:00", "Z")
    (state / "audit.jsonl").write_text(f'{{"time": "{later}", "id": "x"}}\n{{"time": "20')
    assert errors_of_the_clock(tmp_path, now.timestamp()) == [
        "the clock is 5.0 h before the newest audit line"
    ]
    assert errors_of_the_clock(tmp_path, now.timestamp() + 5 * HOUR_S) == []


def test_a_clock_before_the_local_ca_is_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "ca"
    folder.mkdir(parents=True)
    PrivateAuthority(tmp_path).certificate.rename(folder / "root.pem")
    now = dt.datetime.now(dt.UTC).timestamp() - 72 * HOUR_S
    assert [each for each in errors_of_the_clock(tmp_path, now) if "local CA was made" in each]
    (folder / "root.pem").write_text("not a certificate")
    assert not [each for each in errors_of_the_clock(tmp_path, now) if "local CA" in each]


def test_an_audit_file_without_a_time_tells_nothing(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    assert newest_line_s(file) is None
    file.write_text('{"time": 7}\nnothing\n')
    assert newest_line_s(file) is None
    file.write_text('{"time": "2026-01-02T03:04:05.000006Z"}\n')
    assert newest_line_s(file) == dt.datetime(2026, 1, 2, 3, 4, 5, 6, dt.UTC).timestamp()


def test_the_kernel_says_that_a_connection_of_ours_is_ours(tmp_path: Path) -> None:
    assert list(peers(patient_in(tmp_path))) == []


def test_this_kernel_is_recent_enough(tmp_path: Path) -> None:
    release = read_release(os.uname().release)
    assert release is not None
    assert [each.severity for each in kernel(patient_in(tmp_path))] == (
        ["warning"] if release < (5, 9) else []
    )


def test_an_old_kernel_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = os.uname_result(("Linux", "host", "5.4.0-190-generic", "#1", "x86_64"))
    monkeypatch.setattr(os, "uname", lambda: names)
    finding = only(kernel(patient_in(tmp_path)))
    assert finding.severity == "warning"
    assert finding.message.startswith("Linux 5.4.0-190-generic: before 5.9")


@pytest.mark.parametrize(
    ("text", "release"),
    [("6.1.0-9-amd64", (6, 1)), ("5.10", (5, 10)), ("6", None), ("v6.1", None), ("", None)],
)
def test_releases_are_read(text: str, release: tuple[int, int] | None) -> None:
    assert read_release(text) == release


def test_few_open_files_are_told_of_the_process_that_runs(tmp_path: Path) -> None:
    process = tmp_path / "proc" / "7"
    process.mkdir(parents=True)
    (process / "limits").write_text(
        "Limit                     Soft Limit           Hard Limit           Units\n"
        "Max open files            1024                 1024                 files\n"
    )
    finding = only(descriptors(patient_in(tmp_path, pid=7, proc=tmp_path / "proc")))
    needed = files_needed(Limits())
    assert finding.message == f"1024 files may be open; a full proxy listener needs {needed}"
    assert f"LimitNOFILE={needed}" in finding.cure


def test_without_a_process_our_own_hard_limit_counts(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = files_needed(Limits())
    for pid in (None, 7):  # 7: of another user, so that it cannot be read
        found = list(descriptors(patient_in(tmp_path, pid=pid, proc=tmp_path / "proc")))
        assert bool(found) == (hard < needed)
    small = patient_in(tmp_path, "limits: {proxy_connections: 4, dns_tcp_connections: 4}\n")
    assert files_needed(small.settings.limits) < soft
    assert list(descriptors(small)) == []


def test_listeners_of_ipv4_need_no_ipv6(tmp_path: Path) -> None:
    text = 'listen: {do53: ["127.0.0.1:0"], dot: [], doh: [], proxy: []}\n'
    assert list(address_families(patient_in(tmp_path, text))) == []


def test_ipv6_of_this_host_is_used(tmp_path: Path) -> None:
    found = list(address_families(patient_in(tmp_path, 'listen: {do53: ["[::1]:0"]}\n')))
    assert bool(found) == (not has_ipv6())
