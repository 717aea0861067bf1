"""What a person is told when the machine, the files or the other side fail."""

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from proxy.control.client import ControlClient
from tests.internet import Internet, Namespace, need, until
from tests.live.appliance import AGENT, STOP_S, UP, Folders, launched, running

pytestmark = pytest.mark.live

ASK = ("kdig", "@127.0.0.1", "-p", "5300", "+edns")
ROOTS_PRIVILEGE = "-dac_override,-dac_read_search"  # with it no file is unreadable


@pytest.fixture
def configured(internet: Internet, folders: Folders) -> Folders:
    folders.configure(f"resolver: {{upstream_ca: {internet.ca}}}\n")
    folders.rule(AGENT)
    return folders


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of one mebibyte."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = [need("mount"), "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield folder
    finally:
        subprocess.run([need("umount"), "--lazy", str(folder)], check=True)


def control_of(folders: Folders) -> Path:
    return Path(folders.env["XDG_RUNTIME_DIR"], "sallyport", "control.sock")


def problems(internet: Internet) -> dict[str, str]:
    """Return what /readyz says is wrong."""
    said = internet.run(["curl", "-sS", "http://127.0.0.1:9153/readyz"]).stdout
    found: dict[str, str] = msgspec.json.decode(said)["problems"]
    return found


def fill(folder: Path) -> None:
    with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


def test_a_full_disk_refuses_and_says_what_to_do(internet: Internet, configured: Folders) -> None:
    """threats.md: stops everyone through a full disk; log disk full."""
    with small_disk(configured.state), running(internet.agent, configured) as appliance:
        assert "93.184.215.14" in internet.run([*ASK, "example.com"]).stdout
        fill(configured.state)
        names = [f"{'n' * 50}{count}.example.net" for count in range(100)]
        shown = ""

        def refused() -> bool:
            nonlocal shown
            internet.run([*ASK, *names])
            shown = internet.run([*ASK, "www.example.com"]).stdout
            return "audit-unavailable" in shown

        until(refused, "a refusal because the evidence cannot be written")
        assert "SERVFAIL" in shown
        page = internet.run(["curl", "-sSv", "-x", "http://127.0.0.1:3128", "http://example.com/"])
        assert "503 sallyport audit-unavailable" in page.stderr
        assert str(configured.state) in appliance.stderr
        assert "free" in appliance.stderr
        (configured.state / "filler").unlink()
        until(
            lambda: "93.184.215.14" in internet.run([*ASK, "example.com"]).stdout,
            "answers once there is room again",
        )
        code, _ = appliance.stop()
        assert code == 0


def test_a_full_disk_is_told_of_and_tokens_stay(internet: Internet, configured: Folders) -> None:
    """threats.md: a full disk; no space for the line that says so."""
    with small_disk(configured.state), running(internet.agent, configured) as appliance:
        control = ControlClient(control_of(configured))
        secret = control.ask("POST", "/tokens", {"name": "agent"})["secret"]
        until(lambda: bool(appliance.audit()), "a first line")
        fill(configured.state)
        asked = itertools.count()

        def is_told() -> bool:
            internet.run([*ASK, *(f"{'n' * 50}{next(asked)}.example.net" for _ in range(100))])
            return "audit" in problems(internet)

        until(is_told, "/readyz says that the audit file cannot be written")
        assert "No space" in str(control.get("/status")["problems"]["audit"])
        assert [each["state"] for each in control.get("/tokens")] == ["valid"]
        said = [line for line in appliance.audit() if line["reason"] == "audit-unavailable"]
        assert [line["verdict"] for line in said if line["plane"] == "control"] == ["fail"]
        (configured.state / "filler").unlink()
        until(lambda: problems(internet) == {}, "/readyz is well again")
        assert control.ask("POST", "/tokens", {"name": "agent"})["secret"] != secret
        until(
            lambda: any(
                (line["plane"], line["fact"], line["verdict"]) == ("control", None, "allow")
                and line["target"] == str(configured.state / "audit.jsonl")
                for line in appliance.audit()
            ),
            "the line that says that it is well",
        )


def test_rules_that_are_taken_away_stay_in_force(internet: Internet, configured: Folders) -> None:
    """threats.md: files removed under it."""
    with running(internet.agent, configured):
        control = ControlClient(control_of(configured))
        configured.rules.rename(configured.rules.with_name("taken"))
        until(lambda: control.get("/status")["reload"]["outcome"] == "failed", "a failed reload")
        assert str(configured.rules) in control.get("/status")["reload"]["problems"][0]
        assert str(configured.rules) in problems(internet)["rules"]
        assert "93.184.215.14" in internet.run([*ASK, "example.com"]).stdout
        assert "NXDOMAIN" in internet.run([*ASK, "not.listed.example.net"]).stdout
        configured.rules.with_name("taken").rename(configured.rules)
        until(lambda: problems(internet) == {}, "the rules are read again")
        assert "93.184.215.14" in internet.run([*ASK, "example.com"]).stdout


def test_a_state_folder_that_is_taken_away_refuses_until_it_is_back(
    internet: Internet, configured: Folders
) -> None:
    """threats.md: files removed under it: the audit file, the state folder, the tokens."""
    with running(internet.agent, configured) as appliance:
        control = ControlClient(control_of(configured))
        control.ask("POST", "/tokens", {"name": "agent"})
        until(lambda: bool(appliance.audit()), "a first line")
        (configured.state / "audit.jsonl").unlink()
        internet.run([*ASK, "first.example.net"])
        until((configured.state / "audit.jsonl").exists, "a new audit file")
        away = configured.state.with_name("away")
        configured.state.rename(away)
        until(lambda: "tokens" in problems(internet), "the tokens are missed")
        assert control.get("/status")["tokens"]["valid"] == 0

        def is_refused() -> bool:
            return "audit-unavailable" in internet.run([*ASK, "www.example.com"]).stdout

        until(is_refused, "a refusal because the evidence cannot be written")
        configured.state.mkdir(mode=0o777)
        configured.state.chmod(0o777)  # what anybody may write is no place for evidence
        assert is_refused()
        configured.state.rmdir()
        away.rename(configured.state)
        until(lambda: problems(internet) == {}, "well again")
        assert control.get("/status")["tokens"]["valid"] == 1
        assert "93.184.215.14" in internet.run([*ASK, "www.example.com"]).stdout
        assert "Traceback" not in appliance.stderr


def test_a_control_socket_that_is_taken_away_comes_back(
    internet: Internet, configured: Folders
) -> None:
    """threats.md: files removed under it."""
    with running(internet.agent, configured) as appliance:
        path = control_of(configured)
        shutil.rmtree(path.parent)
        until(path.exists, "a new control socket")
        assert ControlClient(path).get("/status")["pid"] == appliance.ready.pid
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert appliance.stop()[0] == 0
        assert not path.exists()


def test_a_state_folder_that_cannot_be_written_is_exit_4(
    internet: Internet, configured: Folders
) -> None:
    configured.state.parent.joinpath("sallyport").write_text("a file where the folder should be")
    with launched(internet.agent, configured) as appliance:
        code, said = appliance.wait()
    assert code == 4, said
    assert str(configured.state) in said


def test_an_unreadable_rule_file_is_exit_3_and_named(
    internet: Internet, configured: Folders
) -> None:
    file = configured.rule(AGENT, "second.yaml")
    file.chmod(0o000)
    unprivileged = ("setpriv", f"--bounding-set={ROOTS_PRIVILEGE}", *UP)
    with launched(internet.agent, configured, unprivileged) as appliance:
        code, said = appliance.wait()
    assert code == 3, said
    assert str(file) in said


@pytest.mark.parametrize("what", ["file", "folder"])
def test_world_writable_rules_are_exit_3_and_the_cure_is_said(
    internet: Internet, configured: Folders, what: str
) -> None:
    target = configured.rules / "rules.yaml" if what == "file" else configured.rules
    target.chmod(target.stat().st_mode | 0o002)
    with launched(internet.agent, configured) as appliance:
        code, said = appliance.wait()
    assert code == 3, said
    assert str(target) in said
    assert "chmod o-w" in said


def test_broken_rules_are_exit_3_with_the_place(internet: Internet, configured: Folders) -> None:
    file = configured.rule("apps:\n  agent:\n    alow: []\n", "broken.yaml")
    with launched(internet.agent, configured) as appliance:
        code, said = appliance.wait()
    assert code == 3, said
    assert f"{file}:3:5" in said
    assert "allow" in said


@pytest.mark.parametrize(("port", "kind"), [(5300, "udp"), (5300, "tcp"), (3128, "tcp")])
def test_a_port_in_use_is_exit_4_and_named(
    internet: Internet, configured: Folders, port: int, kind: str
) -> None:
    stream = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    with internet.agent.entered():
        holder = socket.socket(socket.AF_INET, stream)
    with holder:
        if kind == "tcp":  # connections of earlier tests may linger in TIME_WAIT
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", port))
        if kind == "tcp":
            holder.listen()
        with launched(internet.agent, configured) as appliance:
            code, said = appliance.wait()
    assert code == 4, said
    assert f"127.0.0.1 port {port}" in said
    assert f"end pid {os.getpid()}" in said
    assert appliance.stdout == ""


def test_a_dead_upstream_is_servfail_with_the_reason(
    internet: Internet, configured: Folders
) -> None:
    configured.configure('resolver: {upstreams: ["udp://9.9.9.9:5999"]}\n')
    with running(internet.agent, configured):
        shown = internet.run([*ASK, "+timeout=10", "+retry=0", "example.com"]).stdout
        assert "SERVFAIL" in shown
        assert "EDE: 22" in shown or "EDE: 23" in shown, shown
        assert "sallyport upstream-" in shown
        page = internet.run(["curl", "-sSv", "-x", "http://127.0.0.1:3128", "http://example.com/"])
        assert "sallyport upstream-" in page.stderr


def test_a_lying_upstream_is_servfail(internet: Internet, configured: Folders) -> None:
    """The upstream's certificate is of no authority that is trusted here."""
    configured.configure("{}\n")
    with running(internet.agent, configured):
        shown = internet.run([*ASK, "+timeout=10", "+retry=0", "example.com"]).stdout
        assert "SERVFAIL" in shown
        assert "sallyport upstream-tls" in shown, shown


def test_an_origin_that_refuses_is_502(internet: Internet, configured: Folders) -> None:
    configured.rule(AGENT.replace("ports: [80, 443]", "ports: [80, 81, 443]"))
    with running(internet.agent, configured):
        url = "http://example.com:81/"
        page = internet.run(["curl", "-sSv", "-x", "http://127.0.0.1:3128", url])
        assert "502 sallyport upstream-unreachable" in page.stderr, page.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ends_in_time_with_every_audit_line_written(
    internet: Internet, configured: Folders, number: signal.Signals
) -> None:
    names = [f"n{count}.example.net" for count in range(60)]
    with running(internet.agent, configured) as appliance:
        shown = internet.run([*ASK, "+noall", "+header", *names]).stdout
        assert shown.count("NXDOMAIN") == len(names)
        with open_tunnel(internet):
            os.kill(appliance.process.pid, number)
            code, said = appliance.wait(STOP_S)
        assert code == 0, said
        targets = {str(line.get("target", "")) for line in appliance.audit()}
        assert [name for name in names if not any(name in target for target in targets)] == []


def open_tunnel(internet: Internet) -> socket.socket:
    """Return an open tunnel: it must not hold the end up."""
    with internet.agent.entered():
        client = socket.create_connection(("127.0.0.1", 3128), 5)
    client.sendall(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
    assert client.recv(4096).startswith(b"HTTP/1.1 200")
    return client


def test_without_ipv6_the_default_listeners_of_it_are_skipped(configured: Folders) -> None:
    with Namespace.made("v4only") as alone:
        alone.run(["sysctl", "-q", "net.ipv6.conf.all.disable_ipv6=1"])
        with running(alone, configured) as appliance:
            listen = appliance.ready.listen
            assert listen["do53"] == ["127.0.0.1:5300"]
            assert listen["proxy"] == ["127.0.0.1:3128"]
            until(lambda: "::1" in appliance.stderr, "the warning that names what is skipped")
        configured.configure('listen: {proxy: ["127.0.0.1:3128", "[::1]:3128"]}\n')
        with launched(alone, configured) as appliance:
            code, said = appliance.wait()
        assert code == 4, said
        assert "::1 port 3128" in said
