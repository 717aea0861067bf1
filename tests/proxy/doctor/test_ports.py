"""Ports and instances: real sockets, locks and processes."""

import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

from proxy.doctor.ports import appliance_of, instances, ports, running_pid
from tests.proxy.patients import only, patient_in, settings_in


def taken(kind: socket.SocketKind) -> socket.socket:
    bound = socket.socket(socket.AF_INET, kind)
    bound.bind(("127.0.0.1", 0))
    if kind == socket.SOCK_STREAM:
        bound.listen()
    return bound


def listening_at(bound: socket.socket, kind: str) -> str:
    lists = dict.fromkeys(("do53", "dot", "doh", "proxy", "metrics"), "[]")
    lists[kind] = f'["127.0.0.1:{bound.getsockname()[1]}"]'
    return "listen: {" + ", ".join(f"{key}: {value}" for key, value in lists.items()) + "}\n"


def test_a_port_that_is_taken_names_the_process(tmp_path: Path) -> None:
    with taken(socket.SOCK_STREAM) as bound:
        finding = only(ports(patient_in(tmp_path, listening_at(bound, "proxy"))))
    assert finding.severity == "error"
    assert "Address already in use" in finding.message
    assert f"end pid {os.getpid()} (" in finding.message


def test_do53_needs_its_port_on_udp_as_well(tmp_path: Path) -> None:
    with taken(socket.SOCK_DGRAM) as bound:
        text = listening_at(bound, "do53")
        assert "cannot bind UDP" in only(ports(patient_in(tmp_path, text))).message
        assert list(ports(patient_in(tmp_path, listening_at(bound, "dot")))) == []


def test_ports_that_are_free_are_fine_and_stay_free(tmp_path: Path) -> None:
    with taken(socket.SOCK_STREAM) as bound:
        text = listening_at(bound, "proxy")
    assert list(ports(patient_in(tmp_path, text))) == []
    assert list(ports(patient_in(tmp_path, text))) == []
    assert list(ports(patient_in(tmp_path, 'listen: {do53: ["127.0.0.1:0"], dot: [], doh: [],'
                                           " proxy: [], metrics: []}\n"))) == []  # fmt: skip


def test_the_running_appliance_holds_its_ports(tmp_path: Path) -> None:
    with taken(socket.SOCK_STREAM) as bound:
        text = listening_at(bound, "proxy")
        assert list(ports(patient_in(tmp_path, text, pid=os.getpid()))) == []
        assert "end pid" in only(ports(patient_in(tmp_path, text, pid=1))).message


def test_a_listener_that_the_running_appliance_lacks_is_told(tmp_path: Path) -> None:
    with taken(socket.SOCK_STREAM) as bound:
        text = listening_at(bound, "proxy")
    finding = only(ports(patient_in(tmp_path, text, pid=7)))
    assert "is configured, and the appliance (pid 7) is not there" in finding.message


def test_an_address_of_nobody_is_told(tmp_path: Path) -> None:
    text = 'listen: {do53: [], dot: [], doh: [], metrics: [], proxy: ["192.0.2.1:3128"]}\n'
    assert "no interface of this host" in only(ports(patient_in(tmp_path, text))).message


def test_the_process_that_holds_the_audit_is_the_appliance(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    assert running_pid(settings) is None
    (tmp_path / "state").mkdir()
    with (tmp_path / "state" / "audit.reserve").open("wb") as file:
        assert running_pid(settings) is None
        fcntl.flock(file, fcntl.LOCK_EX)
        assert running_pid(settings) == os.getpid()
        assert running_pid(settings, tmp_path) is None, "without /proc nothing is known"
    assert running_pid(settings) is None


def test_a_state_that_is_closed_to_us_is_that_of_its_owners_appliance(tmp_path: Path) -> None:
    """Root may look everywhere, so that what others are left with is asked for directly."""
    for number, owner in (("7", 64054), ("8", 64055)):
        process = tmp_path / "proc" / number
        process.mkdir(parents=True)
        (process / "cmdline").write_bytes(b"python\0-P\0-m\0proxy.appliance\x003\0")
        os.chown(process, owner, -1)
    assert appliance_of(tmp_path, tmp_path / "proc") is None
    os.chown(tmp_path, 64055, -1)
    assert appliance_of(tmp_path, tmp_path / "proc") == 8
    assert appliance_of(tmp_path / "none", tmp_path / "proc") is None


def test_another_appliance_is_told(tmp_path: Path) -> None:
    """Played by a program that is started as the appliance is and holds the lock as it does."""
    package = tmp_path / "proxy"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "appliance.py").write_text(
        "held = open('audit.reserve', 'w')\nprint(flush=True)\ninput()\n"
    )
    argv = [sys.executable, "-P", "-m", "proxy.appliance", "3"]
    env = {"PYTHONPATH": str(tmp_path)}
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, cwd=tmp_path, env=env) as process:
        assert process.stdout is not None
        process.stdout.readline()
        message = f"pid {process.pid} is another appliance, with its audit in {tmp_path}"
        found = [each.message for each in instances(patient_in(tmp_path))]
        itself = [each.message for each in instances(patient_in(tmp_path, pid=process.pid))]
        process.communicate(b"\n")
    assert message in found
    assert message not in itself
    assert message not in [each.message for each in instances(patient_in(tmp_path))]


def test_an_appliance_of_another_network_is_nobodys_rival(tmp_path: Path) -> None:
    for number, network in (("7", "net:[2]"), ("self", "net:[1]")):
        process = tmp_path / "proc" / number
        (process / "ns").mkdir(parents=True)
        (process / "ns" / "net").symlink_to(network)
        (process / "cmdline").write_bytes(b"python\0-P\0-m\0proxy.appliance\x003\0")
    patient = patient_in(tmp_path, proc=tmp_path / "proc")
    assert list(instances(patient)) == []


def test_what_may_not_be_looked_into_is_told_all_the_same(tmp_path: Path) -> None:
    process = tmp_path / "proc" / "7"
    process.mkdir(parents=True)
    (process / "cmdline").write_bytes(b"python\0-P\0-m\0proxy.appliance\x003\0")
    patient = patient_in(tmp_path, proc=tmp_path / "proc")
    assert only(instances(patient)).message == "pid 7 is another appliance"


def test_what_only_looks_like_one_is_none(tmp_path: Path) -> None:
    for number, words in enumerate((b"", b"vim\0proxy.appliance", b"grep\0-m\0proxy.appliance"), 1):
        process = tmp_path / "proc" / str(number)
        process.mkdir(parents=True)
        (process / "cmdline").write_bytes(words)
    (tmp_path / "proc" / "9").mkdir()
    assert list(instances(patient_in(tmp_path, proc=tmp_path / "proc"))) == []
