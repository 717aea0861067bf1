"""The whole steps: what each makes, mends, refuses, and leaves when it is killed."""

import datetime as dt
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from certs import files
from certs.authority import Made, describe, ensure, export, init, renew
from certs.errors import CertsError, IssueError, KeystoreError
from certs.issuer import LEAF_LIFE, ROOT_LIFE
from certs.leaf import read_leaf
from certs.names import server_names

ROOT = Path(__file__).resolve().parents[2]
NOW = dt.datetime(2026, 11, 22, 1, 2, 3, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
NAMES = server_names(["127.0.0.1", "::1"])
NOTHING, LEAF, BOTH = Made(), Made(leaf=True), Made(root=True, leaf=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "state" / "ca"
    assert init(path, NAMES, NOW) == BOTH
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_second_init_changes_nothing(folder: Path) -> None:
    before = contents(folder)
    with pytest.raises(KeystoreError, match=r"has a CA already: .*--force"):
        init(folder, NAMES, NOW)
    assert contents(folder) == before


def test_force_replaces_every_file(folder: Path) -> None:
    before = contents(folder)
    init(folder, NAMES, NOW, force=True)
    after = contents(folder)
    assert sorted(after) == ["root.key", "root.pem", "server.json", "server.key", "server.pem"]
    assert [name for name, octets in after.items() if before[name] == octets] == []
    assert ensure(folder, NAMES, NOW) == NOTHING


def test_ensure_makes_what_is_missing(tmp_path: Path) -> None:
    assert ensure(tmp_path / "ca", NAMES, NOW) == BOTH
    before = contents(tmp_path / "ca")
    assert ensure(tmp_path / "ca", NAMES, NOW) == NOTHING
    assert contents(tmp_path / "ca") == before


@pytest.mark.parametrize("name", [files.SERVER_PEM, files.SERVER_KEY, files.SERVER_JSON])
def test_a_leaf_that_lacks_a_file_is_made_anew(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert ensure(folder, NAMES, NOW) == LEAF
    assert ensure(folder, NAMES, NOW) == NOTHING


@pytest.mark.parametrize(
    ("later", "made"),
    [
        pytest.param(LEAF_LIFE / 2, NOTHING, id="half its life"),
        pytest.param(LEAF_LIFE * 2 / 3, LEAF, id="due"),
        pytest.param(LEAF_LIFE + DAY, LEAF, id="expired"),
        pytest.param(-DAY / 2, LEAF, id="the clock went back"),
    ],
)
def test_a_leaf_is_made_anew_by_the_clock(folder: Path, later: dt.timedelta, made: Made) -> None:
    assert ensure(folder, NAMES, NOW + later) == made
    assert ensure(folder, NAMES, NOW + later) == NOTHING


def test_a_leaf_is_made_anew_when_the_names_change(folder: Path) -> None:
    names = server_names(["127.0.0.7"])
    before = describe(folder).root
    assert ensure(folder, names, NOW) == LEAF
    described = describe(folder)
    assert described.server is not None
    assert described.server.names == names
    assert described.root == before


def test_a_name_that_the_root_does_not_permit_is_refused_and_nothing_changes(folder: Path) -> None:
    before = contents(folder)
    with pytest.raises(IssueError, match=r"192\.0\.2\.7"):
        ensure(folder, server_names(["192.0.2.7"]), NOW)
    assert contents(folder) == before


def test_a_root_that_ended_is_an_error_though_its_leaf_is_there(folder: Path) -> None:
    with pytest.raises(IssueError, match="ended on"):
        ensure(folder, NAMES, NOW + ROOT_LIFE + DAY)


@pytest.mark.parametrize("name", [files.ROOT_PEM, files.ROOT_KEY])
def test_a_half_written_root_is_never_replaced_unasked(folder: Path, name: str) -> None:
    (folder / name).unlink()
    before = contents(folder)
    for step in (init, ensure, renew):
        with pytest.raises(KeystoreError, match=r"half-written|no CA"):
            step(folder, NAMES, NOW)
    assert contents(folder) == before
    init(folder, NAMES, NOW, force=True)
    assert ensure(folder, NAMES, NOW) == NOTHING


@pytest.mark.parametrize("step", [init, ensure])
def test_an_open_folder_is_refused(folder: Path, step: type) -> None:
    folder.chmod(0o755)
    with pytest.raises(KeystoreError, match="chmod 700"):
        step(folder, NAMES, NOW)


def test_renewing_needs_a_root(tmp_path: Path) -> None:
    with pytest.raises(KeystoreError, match="has no CA: make one"):
        renew(tmp_path, NAMES, NOW)
    with pytest.raises(KeystoreError, match="cannot use"):
        renew(tmp_path / "nowhere", NAMES, NOW)


def test_renewing_makes_a_new_key(folder: Path) -> None:
    before = contents(folder)
    renew(folder, NAMES, NOW + DAY)
    after = contents(folder)
    changed = sorted(name for name, octets in after.items() if before[name] != octets)
    assert changed == [files.SERVER_JSON, files.SERVER_KEY, files.SERVER_PEM]
    known = read_leaf(folder)
    assert known is not None
    assert known.not_after == (NOW + DAY + LEAF_LIFE).timestamp()


KILLED = """
import datetime as dt, os, signal, sys
from pathlib import Path
from certs import authority
folder, step, left = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
replace = os.replace
def counted(*arguments):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    replace(*arguments)
os.replace = counted
now = dt.datetime.fromtimestamp(float(sys.argv[4]), dt.UTC)
keywords = {"force": True} if step == "init" else {}
getattr(authority, step)(folder, tuple(sys.argv[5:]), now, **keywords)
"""


def killed(folder: Path, step: str, renames: int, now: dt.datetime) -> None:
    """Run a step in a process that dies before a rename, as after `renames` of them."""
    argv = (str(folder), step, str(renames), str(now.timestamp()), *NAMES)
    done = subprocess.run(
        [sys.executable, "-P", "-c", KILLED, *argv],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("renames", range(3))
def test_a_renewal_that_is_killed_is_mended_by_the_next(folder: Path, renames: int) -> None:
    later = NOW + LEAF_LIFE * 3 / 4
    killed(folder, "renew", renames, later)
    before = describe(folder).root
    assert ensure(folder, NAMES, later) == LEAF
    assert ensure(folder, NAMES, later) == NOTHING
    assert describe(folder).root == before
    assert len(contents(folder)) == 5


@pytest.mark.parametrize("renames", range(5))
def test_an_init_that_is_killed_is_mended_or_said(folder: Path, renames: int) -> None:
    killed(folder, "init", renames, NOW)
    try:
        ensure(folder, NAMES, NOW)
    except CertsError as error:
        assert renames == 1, "only a key without its certificate stops us"
        assert "init --force" in str(error)  # noqa: PT017 - an error is one of two right ends
        init(folder, NAMES, NOW, force=True)
    assert ensure(folder, NAMES, NOW) == NOTHING
    assert len(contents(folder)) == 5


def test_what_is_shown_and_exported_needs_no_key(folder: Path) -> None:
    for name in (files.ROOT_KEY, files.SERVER_KEY):
        (folder / name).unlink()
    described = describe(folder)
    assert described.root.names == ("localhost", "sallyport.internal", "127.0.0.0/8", "::1/128")
    assert described.root.not_after == NOW + ROOT_LIFE
    assert described.server is not None
    assert described.server.names == NAMES
    assert described.server.not_after == NOW + LEAF_LIFE
    assert export(folder) == (folder / files.ROOT_PEM).read_bytes()


def test_fingerprints_are_those_that_openssl_prints(folder: Path) -> None:
    described = describe(folder)
    assert described.server is not None
    shown = {files.ROOT_PEM: described.root, files.SERVER_PEM: described.server}
    for name, certificate in shown.items():
        command = (
            "openssl",
            "x509",
            "-noout",
            "-fingerprint",
            "-sha256",
            "-in",
            str(folder / name),
        )
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert said.strip().replace(":", "").lower().endswith(certificate.sha256)


def test_der_is_the_same_certificate(folder: Path) -> None:
    command = ["openssl", "x509", "-inform", "der"]
    done = subprocess.run(
        command, input=export(folder, as_der=True), capture_output=True, check=True
    )
    assert done.stdout == export(folder)


def test_a_folder_without_a_leaf_is_described(folder: Path) -> None:
    (folder / files.SERVER_PEM).unlink()
    assert describe(folder).server is None


def test_a_folder_without_a_root_says_how_to_make_one(tmp_path: Path) -> None:
    for step in (describe, export):
        with pytest.raises(KeystoreError, match="sallyport ca init"):
            step(tmp_path)
