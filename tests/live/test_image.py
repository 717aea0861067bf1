"""The image: built on a minimal base, run as a user of its own on a read-only file system."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.internet import Namespace, until
from tests.live.appliance import STOP_S, Ready
from tests.live.image import USER, Container, Store, opened_store, skip_where_it_cannot_be

RULES = """
apps:
  coder:
    identity: [{token: coder}]
    allow: [{host: example.com}]
"""
BUILD_S = 300


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    skip_where_it_cannot_be()
    with opened_store() as made:
        yield made


@pytest.fixture(scope="module")
def config(store: Store) -> dict[str, Any]:
    return store.build()


@pytest.fixture(scope="module")
def root(store: Store, config: dict[str, Any]) -> Iterator[Path]:
    assert config
    with store.mounted() as mounted:
        yield mounted


@pytest.fixture(scope="module")
def container(
    root: Path, config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Container]:
    folder = tmp_path_factory.mktemp("container")
    for each in (folder, folder.parent):
        each.chmod(0o755)
    rules = folder / "rules"
    rules.mkdir(mode=0o755)
    (rules / "rules.yaml").write_text(RULES)
    (rules / "rules.yaml").chmod(0o644)
    with Namespace.made("image") as net:
        yield Container(root, rules, config, net)


@pytest.fixture(scope="module")
def running(container: Container) -> Iterator["subprocess.Popen[str]"]:
    argv = container.net.command(container.argv(container.main))
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: container.net.accepts("127.0.0.1", 3128) or process.poll() is not None, "up")
        if process.poll() is not None:
            pytest.fail(str(process.communicate()))
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.timeout(BUILD_S)
def test_the_image_says_how_it_is_run(config: dict[str, Any]) -> None:
    assert config["User"] == USER
    assert config["Entrypoint"] == ["sallyport"]
    assert config["Cmd"] == ["up", "--system", "--json"]
    assert set(config["Volumes"]) == {"/var/lib/sallyport"}
    assert set(config["ExposedPorts"]) == {"3128/tcp", "8443/tcp"}


def test_no_build_tool_is_left(root: Path) -> None:
    folders = [root / part for part in ("usr/bin", "usr/local/bin", "usr/lib/sallyport/bin")]
    names = {path.name for folder in folders for path in folder.iterdir()}
    assert not {"pip", "pip3", "gcc", "cc", "make", "hatchling", "git"} & names
    packages = {path.name for path in root.glob("usr/lib/sallyport/lib/python3*/site-packages/*")}
    assert "sallyport" not in packages, "our packages are proxy, rules and certs"
    assert {"proxy", "rules", "certs"} <= packages
    assert not {name for name in packages if name.startswith(("pip", "hatchling", "pathspec"))}
    assert not list(root.glob("usr/local/lib/python3*/ensurepip"))


def test_nothing_but_the_state_can_be_written(container: Container) -> None:
    for place in ("/x", "/etc/sallyport/rules/x.yaml", "/usr/lib/sallyport/x", "/tmp/x"):  # noqa: S108 - read-only there
        assert container.run("touch", place).returncode == 1, place
    assert container.run("touch", "/var/lib/sallyport/x").returncode == 0
    (container.state / "x").unlink()


def test_it_comes_up_as_a_system_with_proxy_and_doh(
    running: "subprocess.Popen[str]", container: Container
) -> None:
    assert running.stdout is not None
    ready = msgspec.json.decode(running.stdout.readline(), type=Ready)
    assert ready.enforcement == "system"
    assert ready.listen["proxy"] == ["0.0.0.0:3128"]
    assert ready.listen["doh"] == ["0.0.0.0:8443"]
    assert not ready.listen.get("do53")
    assert not ready.listen.get("dot")
    status = Path(f"/proc/{ready.pid}/status").read_text().splitlines()
    (uids,) = (line.split()[1:] for line in status if line.startswith("Uid:"))
    assert set(uids) == {USER.partition(":")[0]}
    (held,) = (line.split()[1] for line in status if line.startswith("CapEff:"))
    assert int(held, 16) == 0
    assert container.net.accepts("127.0.0.1", 8443)


def test_the_health_check_is_fine(running: "subprocess.Popen[str]", container: Container) -> None:
    assert running.poll() is None
    assert container.run(*container.health).returncode == 0


def test_the_proxy_wants_a_token_and_takes_it(
    running: "subprocess.Popen[str]", container: Container
) -> None:
    """threats.md, "Identity": a source address between containers proves nothing; a token does."""
    assert running.poll() is None
    made = container.run("sallyport", "app", "token", "coder", "--system", "--json")
    assert made.returncode == 0, made.stderr
    token = msgspec.json.decode(made.stdout)["secret"]
    asked = ["curl", "--silent", "--include", "--proxy", "http://127.0.0.1:3128"]
    assert " 407 " in container.net.run([*asked, "http://example.net/"]).stdout.splitlines()[0]
    known = container.net.run([*asked, "--proxy-user", f"coder:{token}", "http://example.net/"])
    assert "X-Deny-Reason: host-not-listed" in known.stdout
    assert '"app":"coder"' in known.stdout


def test_it_ends_when_it_is_asked_and_is_then_not_healthy(
    running: "subprocess.Popen[str]", container: Container
) -> None:
    running.terminate()
    assert running.wait(STOP_S) == 0
    assert (container.state / "audit.jsonl").stat().st_uid == int(USER.partition(":")[0])
    assert container.run(*container.health).returncode != 0
