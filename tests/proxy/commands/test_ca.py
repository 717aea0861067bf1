"""`sallyport ca`: what each command prints, makes and ends with."""

import datetime as dt
import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from certs import files
from certs.domain import ensure_domain, load_domain
from certs.issuer import LEAF_LIFE, ROOT_LIFE
from proxy.audit import AuditSettings
from proxy.commands.ca import app, ensure_server_certificate
from proxy.config import Listen, Settings
from proxy.errors import BindError, ConfigError

NOW = dt.datetime(2026, 11, 22, 1, 2, 3, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
LOOPBACK = ("127.0.0.1:8853", "[::1]:8853")

type Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command with folders of its own."""
    env = {
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }

    def ran(*argv: str | Path) -> Result:
        return CliRunner(env=env).invoke(app, [str(each) for each in argv])

    return ran


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "sallyport" / "ca"


def configure(tmp_path: Path, text: str) -> None:
    config = tmp_path / "config" / "sallyport"
    config.mkdir(parents=True)
    (config / "sallyport.yaml").write_text(text)


def settings(tmp_path: Path, dot: Sequence[str], doh: Sequence[str] = ()) -> Settings:
    return Settings(
        state=str(tmp_path),
        rules=(),
        audit=AuditSettings(str(tmp_path / "audit.jsonl")),
        listen=Listen(dot=tuple(dot), doh=tuple(doh)),
    )


def modes(folder: Path) -> dict[str, str]:
    return {path.name: oct(path.stat().st_mode & 0o7777) for path in folder.iterdir()}


def test_init_makes_a_ca_once_and_says_what_to_do_next(run: Run, folder: Path) -> None:
    done = run("init")
    assert done.exit_code == 0
    assert f"made a local CA in {folder}; `sallyport ca export`" in done.stderr
    assert done.stdout == ""
    assert modes(folder) == dict.fromkeys(
        ["root.pem", "root.key", "server.pem", "server.key", "server.json"], "0o600"
    )
    before = (folder / files.ROOT_PEM).read_bytes()
    again = run("init")
    assert again.exit_code == 4
    assert "has a CA already" in again.stderr
    assert (folder / files.ROOT_PEM).read_bytes() == before


def test_force_makes_a_new_one(run: Run, folder: Path) -> None:
    run("init")
    before = (folder / files.ROOT_PEM).read_bytes()
    assert run("init", "--force").exit_code == 0
    assert (folder / files.ROOT_PEM).read_bytes() != before


def test_the_root_follows_the_listeners(run: Run, tmp_path: Path) -> None:
    configure(tmp_path, 'listen: {dot: ["192.0.2.7:853"], doh: ["0.0.0.0:443"], proxy_tls: []}')
    assert run("init").exit_code == 0
    shown = json.loads(run("show", "--json").stdout)
    assert shown["root"]["names"][2:] == ["127.0.0.0/8", "::1/128", "192.0.2.7/32"]
    assert shown["server"]["names"][2:] == ["127.0.0.1", "192.0.2.7"]


def test_state_is_where_it_is_told(run: Run, tmp_path: Path) -> None:
    assert run("init", "--state", tmp_path / "elsewhere").exit_code == 0
    assert (tmp_path / "elsewhere" / "ca" / files.ROOT_KEY).exists()
    assert run("show").exit_code == 4


def test_show_has_what_a_person_compares(run: Run, folder: Path) -> None:
    run("init")
    shown = run("show")
    assert shown.exit_code == 0
    command = ("openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in")
    for name in (files.ROOT_PEM, files.SERVER_PEM):
        said = subprocess.run(
            [*command, str(folder / name)], capture_output=True, text=True, check=True
        )
        fingerprint = said.stdout.strip().partition("=")[2]
        assert f"  sha256  {fingerprint}\n" in shown.stdout
    assert "permits localhost, sallyport.internal, 127.0.0.0/8, ::1/128\n" in shown.stdout
    assert "names   localhost, sallyport.internal, 127.0.0.1, ::1\n" in shown.stdout


def test_show_as_json_has_subjects_fingerprints_and_ends(run: Run) -> None:
    run("init")
    shown = json.loads(run("show", "--json").stdout)
    for name in ("root", "server"):
        assert shown[name].keys() == {"subject", "names", "sha256", "not_before", "not_after"}
        assert len(shown[name]["sha256"]) == 64
    assert shown["server"]["not_after"] < shown["root"]["not_after"]


def test_show_says_where_a_certificate_is_missing(run: Run, folder: Path) -> None:
    run("init")
    (folder / files.SERVER_PEM).unlink()
    assert "none yet: `sallyport up` makes it" in run("show").stdout
    assert json.loads(run("show", "--json").stdout)["server"] is None


def test_show_has_both_roots_where_both_are_there(run: Run, tmp_path: Path) -> None:
    """Decision 0026: the root of the trust domain is not the one that clients trust."""
    configure(tmp_path, "identity: {trust_domain: desk.example}")
    state = tmp_path / "state" / "sallyport"
    domain = ensure_domain(state / "identity", "desk.example", NOW, None)
    assert domain.is_new
    alone = run("show")
    assert alone.exit_code == 0
    assert "root      none yet" in alone.stdout
    assert "identity  spiffe://desk.example, bundle 1, keys not encrypted" in alone.stdout
    run("init")
    both = json.loads(run("show", "--json").stdout)
    assert both["identity"]["trust_domain"] == "desk.example"
    assert both["identity"]["roots"][0]["sha256"] != both["root"]["sha256"]
    assert [each["state"] for each in both["identity"]["jwt_keys"]] == ["signs"]
    colons = run("show").stdout
    assert both["root"]["sha256"][:8] in colons.replace(":", "").lower()


def test_show_without_identity_has_none(run: Run) -> None:
    run("init")
    assert json.loads(run("show", "--json").stdout)["identity"] is None


def test_export_of_identity_is_its_bundle(run: Run, tmp_path: Path) -> None:
    configure(tmp_path, "identity: {trust_domain: desk.example}")
    missing = run("export", "--identity")
    assert missing.exit_code == 4
    assert "`sallyport up` makes it" in missing.stderr
    folder = tmp_path / "state" / "sallyport" / "identity"
    ensure_domain(folder, "desk.example", NOW, None)
    pem = run("export", "--identity")
    assert pem.stdout_bytes == (folder / "bundle.pem").read_bytes()
    jwks = run("export", "--identity", "--jwks")
    assert jwks.stdout_bytes == load_domain(folder, None).jwks()
    assert run("export", "--identity", "--format", "jwks").stdout_bytes == jwks.stdout_bytes


@pytest.mark.parametrize(
    "options", [["--jwks"], ["--format", "jwks"], ["--identity", "--format", "der"]]
)
def test_export_says_which_forms_there_are(run: Run, options: list[str]) -> None:
    done = run("export", *options)
    assert done.exit_code == 2
    assert "--identity as pem or jwks" in done.stderr


def test_export_prints_the_public_root(run: Run, folder: Path, tmp_path: Path) -> None:
    run("init")
    pem = (folder / files.ROOT_PEM).read_bytes()
    assert run("export").stdout_bytes == pem
    der = run("export", "--format", "der").stdout_bytes
    converted = subprocess.run(
        ["openssl", "x509", "-inform", "der"], input=der, capture_output=True, check=True
    )
    assert converted.stdout == pem
    out = tmp_path / "out.crt"
    assert run("export", "--out", out).stdout == ""
    assert out.read_bytes() == pem


def test_export_says_where_it_cannot_write(run: Run, tmp_path: Path) -> None:
    run("init")
    done = run("export", "--out", tmp_path)
    assert done.exit_code == 4
    assert "name another file with --out" in done.stderr


@pytest.mark.parametrize("command", ["show", "export"])
def test_without_a_ca_the_cure_is_said(run: Run, command: str) -> None:
    done = run(command)
    assert done.exit_code == 4
    assert "make one with `sallyport ca init`" in done.stderr


def test_a_broken_configuration_is_an_error_of_its_own(run: Run, tmp_path: Path) -> None:
    configure(tmp_path, "listen: {dott: []}")
    done = run("init")
    assert done.exit_code == 3
    assert "dott" in done.stderr


def test_no_output_ever_holds_a_key(run: Run, folder: Path) -> None:
    said = [run("init"), run("show"), run("show", "--json"), run("export"), run("init")]
    for name in (files.ROOT_KEY, files.SERVER_KEY):
        body = (folder / name).read_text().splitlines()[1]
        assert [each for each in said if body in each.output] == []
    assert [each for each in said if "PRIVATE" in each.output] == []


def test_starting_makes_what_is_missing_once(tmp_path: Path) -> None:
    wanted = settings(tmp_path, LOOPBACK)
    notes = ensure_server_certificate(wanted, NOW)
    assert notes == [
        f"made a local CA in {tmp_path}/ca: `sallyport ca export` prints what to trust"
    ]
    assert ensure_server_certificate(wanted, NOW) == []


def test_starting_without_a_tls_listener_makes_nothing(tmp_path: Path) -> None:
    assert ensure_server_certificate(settings(tmp_path, ()), NOW) == []
    assert not (tmp_path / "ca").exists()


def test_doh_alone_needs_a_certificate_too(tmp_path: Path) -> None:
    assert ensure_server_certificate(settings(tmp_path, (), ["127.0.0.1:8443"]), NOW)


def test_starting_with_an_expired_leaf_makes_a_fresh_one(tmp_path: Path) -> None:
    wanted = settings(tmp_path, LOOPBACK)
    ensure_server_certificate(wanted, NOW)
    before = (tmp_path / "ca" / files.SERVER_PEM).read_bytes()
    assert ensure_server_certificate(wanted, NOW + LEAF_LIFE + DAY) == []
    assert (tmp_path / "ca" / files.SERVER_PEM).read_bytes() != before


def test_a_root_that_ends_soon_is_told_in_time(tmp_path: Path) -> None:
    wanted = settings(tmp_path, LOOPBACK)
    ensure_server_certificate(wanted, NOW)
    notes = ensure_server_certificate(wanted, NOW + ROOT_LIFE - 89 * DAY)
    assert notes == ["the local CA ends on 2036-11-21: plan `sallyport ca init --force`"]


def test_a_listener_that_the_root_does_not_permit_is_the_configurations_fault(
    tmp_path: Path,
) -> None:
    ensure_server_certificate(settings(tmp_path, LOOPBACK), NOW)
    with pytest.raises(ConfigError, match=r"does not permit 192\.0\.2\.7: .*init --force"):
        ensure_server_certificate(settings(tmp_path, ["192.0.2.7:853"]), NOW)


@pytest.mark.parametrize("name", [files.ROOT_KEY, files.SERVER_KEY])
def test_a_key_that_others_can_read_stops_the_start(tmp_path: Path, name: str) -> None:
    wanted = settings(tmp_path, LOOPBACK)
    ensure_server_certificate(wanted, NOW)
    (tmp_path / "ca" / name).chmod(0o640)
    with pytest.raises(BindError, match="chmod 600"):
        ensure_server_certificate(wanted, NOW)


def test_another_users_folder_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = settings(tmp_path, LOOPBACK)
    ensure_server_certificate(wanted, NOW)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(BindError, match="run as that user"):
        ensure_server_certificate(wanted, NOW)
