"""`sallyport ca rotate` and `ca seal`, and what `up` makes: what each says, and ends with."""

import asyncio
import datetime as dt
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from certs.domain import init_domain, load_domain
from certs.known_domain import Record, record_of
from certs.profile import INTERMEDIATE
from certs.sealed import CREDENTIAL
from proxy.audit import AuditSettings
from proxy.commands import ca_identity
from proxy.commands.ca import app
from proxy.commands.ca_identity import (
    ensure_trust_domain,
    identity_folder,
    identity_secret,
)
from proxy.config import Listen, Settings
from proxy.config_identity import IdentitySettings
from proxy.errors import BindError, ConfigError
from tests.proxy.control.remote_stand import serving

NOW = dt.datetime(2026, 11, 22, 1, 2, 3, tzinfo=dt.UTC)
TD = "desk.example"

type Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command with folders of its own."""
    env = {
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "CREDENTIALS_DIRECTORY": str(tmp_path / "credentials"),
    }

    def ran(*argv: str | Path) -> Result:
        return CliRunner(env=env).invoke(app, [str(each) for each in argv])

    return ran


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a trust domain that begins now, by the clock that the commands read."""
    path = tmp_path / "state" / "sallyport" / "identity"
    configure(tmp_path, TD)
    init_domain(path, TD, dt.datetime.fromtimestamp(time.time(), dt.UTC), None)
    return path


def configure(tmp_path: Path, trust_domain: str, key_file: Path | None = None) -> None:
    config = tmp_path / "config" / "sallyport"
    config.mkdir(parents=True, exist_ok=True)
    key = "" if key_file is None else f", key_file: {key_file}"
    text = f"identity: {{trust_domain: {trust_domain}{key}}}\nlisten: {{control: ''}}\n"
    (config / "sallyport.yaml").write_text(text)


def secret_in(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


def settings(tmp_path: Path, **identity: object) -> Settings:
    return Settings(
        state=str(tmp_path),
        rules=(),
        audit=AuditSettings(str(tmp_path / "audit.jsonl")),
        listen=Listen(),
        identity=msgspec.structs.replace(IdentitySettings(trust_domain=TD), **identity),
    )


def counts(record: Record) -> tuple[int, int, int]:
    return len(record.roots), len(record.intermediates), len(record.jwt_keys)


def test_rotate_makes_the_next_intermediate(run: Run, folder: Path) -> None:
    done = run("rotate")
    assert done.exit_code == 0
    assert "made the next intermediate" in done.stderr
    assert "it signs from now on" in done.stderr
    assert counts(record_of(folder)) == (1, 2, 1)


@pytest.mark.parametrize(("what", "wanted"), [("jwt", (1, 1, 2)), ("root", (2, 1, 1))])
def test_rotate_says_from_when_the_next_key_signs(
    run: Run, folder: Path, what: str, wanted: tuple[int, int, int]
) -> None:
    done = run("rotate", what)
    assert done.exit_code == 0
    assert " UTC on" in done.stderr
    assert "it signs from 20" in done.stderr
    assert counts(record_of(folder)) == wanted
    assert "prepared from 20" in run("show").stdout


def test_forgetting_leaves_the_new_key_alone(run: Run, folder: Path) -> None:
    before = record_of(folder)
    done = run("rotate", "root", "--forget")
    assert "it signs from now on" in done.stderr
    after = record_of(folder)
    assert counts(after) == (1, 1, 1)
    assert after.roots != before.roots


def test_an_intermediate_is_not_forgotten_alone(run: Run, folder: Path) -> None:
    done = run("rotate", "--forget")
    assert done.exit_code == 2
    assert "forget the root" in done.stderr
    assert counts(record_of(folder)) == (1, 1, 1)
    assert run("rotate", "sideways").exit_code == 2


@pytest.mark.parametrize("command", [["rotate"], ["seal"]])
def test_without_a_trust_domain_the_cure_is_said(
    run: Run, tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "state" / "sallyport" / "identity").mkdir(parents=True, mode=0o700)
    done = run(*command)
    assert done.exit_code == 4
    assert "has no trust domain: `sallyport up` makes it" in done.stderr


def test_keys_are_sealed_resealed_and_opened_again(run: Run, folder: Path, tmp_path: Path) -> None:
    one, two = secret_in(tmp_path, "one", "first"), secret_in(tmp_path, "two", "second")
    configure(tmp_path, TD, one)
    assert f"the keys in {folder} are encrypted\n" in run("seal").stderr
    assert "encrypted, as before" in run("seal").stderr
    configure(tmp_path, TD, two)
    wrong = run("seal")
    assert wrong.exit_code == 4
    assert "--from FILE" in wrong.stderr
    assert run("rotate").exit_code == 4
    assert run("seal", "--from", one).exit_code == 0
    load_domain(folder, b"second")
    configure(tmp_path, TD)
    assert "not encrypted: no passphrase is set" in run("seal", "--from", two).stderr
    load_domain(folder, None)


def test_a_credential_of_systemd_is_the_passphrase(run: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "credentials").mkdir()
    secret_in(tmp_path / "credentials", CREDENTIAL, "handed over")
    assert run("seal").exit_code == 0
    load_domain(folder, b"handed over")
    assert "keys encrypted" in run("show").stdout


def test_a_passphrase_that_others_may_read_is_refused(
    run: Run, folder: Path, tmp_path: Path
) -> None:
    del folder
    path = secret_in(tmp_path, "one", "first secret of all")
    path.chmod(0o644)
    configure(tmp_path, TD, path)
    done = run("rotate")
    assert done.exit_code == 4
    assert "chmod 600" in done.stderr
    assert "first secret" not in done.output


def test_no_output_ever_holds_a_key_or_passphrase(run: Run, folder: Path, tmp_path: Path) -> None:
    secret = secret_in(tmp_path, "one", "xyzzy-plugh")
    bodies = [line for each in folder.glob("*.key") for line in each.read_text().split("\n")[1:3]]
    said = [run("rotate", "jwt"), run("show", "--json"), run("show")]
    said += [run("export", "--identity"), run("export", "--identity", "--jwks")]
    configure(tmp_path, TD, secret)
    said += [run("seal"), run("seal", "--from", secret), run("rotate"), run("show")]
    configure(tmp_path, TD)
    said += [run("rotate"), run("seal")]
    for each in said:
        assert "PRIVATE" not in each.output
        assert "xyzzy" not in each.output
        assert not [body for body in bodies if body in each.output]


def test_starting_makes_the_trust_domain_once(tmp_path: Path) -> None:
    wanted = settings(tmp_path)
    folder = identity_folder(wanted)
    assert ensure_trust_domain(wanted, NOW) == [f"made the trust domain {TD} in {folder}"]
    assert ensure_trust_domain(wanted, NOW) == []
    due = NOW + dt.timedelta(seconds=INTERMEDIATE.life_s * 2 / 3)
    assert ensure_trust_domain(wanted, due) == [
        f"the next intermediate, JWT key of {TD} was due and has been made"
    ]


def test_starting_with_a_passphrase_seals_what_was_plain(tmp_path: Path) -> None:
    ensure_trust_domain(settings(tmp_path), NOW)
    wanted = settings(tmp_path, key_file=str(secret_in(tmp_path, "one", "first")))
    assert identity_secret(wanted) == b"first"
    assert ensure_trust_domain(wanted, NOW) == [f"encrypted the keys in {identity_folder(wanted)}"]
    with pytest.raises(BindError, match="is encrypted"):
        ensure_trust_domain(settings(tmp_path), NOW)


def test_a_root_that_is_kept_elsewhere_is_asked_for_in_time(tmp_path: Path) -> None:
    wanted = settings(tmp_path)
    folder = identity_folder(wanted)
    ensure_trust_domain(wanted, NOW)
    (folder / f"{record_of(folder).roots[0].id}.key").unlink()
    due = NOW + dt.timedelta(seconds=INTERMEDIATE.life_s * 2 / 3)
    notes = ensure_trust_domain(wanted, due)
    assert f"put the key of the root back into {folder}: an intermediate is due" in notes


def test_another_issuer_in_our_place_needs_no_keys(tmp_path: Path) -> None:
    wanted = settings(tmp_path, workload_api="/run/spire/agent.sock")
    assert ensure_trust_domain(wanted, NOW) == []
    assert not identity_folder(wanted).exists()


def test_a_name_that_cannot_be_ours_is_the_configurations_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"set `identity\.trust_domain`"):
        ensure_trust_domain(settings(tmp_path, trust_domain="192.0.2.7"), NOW)


def test_a_changed_trust_domain_never_replaces_the_old_one(tmp_path: Path) -> None:
    ensure_trust_domain(settings(tmp_path), NOW)
    with pytest.raises(BindError, match="set it back, or move"):
        ensure_trust_domain(settings(tmp_path, trust_domain="other.example"), NOW)


async def rotated_beside(folder: Path, control: str) -> Result:
    config = folder / "sallyport.yaml"
    config.write_text(
        f"state: {folder}\nidentity: {{trust_domain: {TD}}}\nlisten: {{control: {control}}}\n"
    )
    argv = ["rotate", "--config", str(config)]
    return await asyncio.to_thread(CliRunner().invoke, app, argv, env={"HOME": str(folder)})


async def test_a_running_appliance_is_told_to_look(tmp_path: Path) -> None:
    async with serving(tmp_path) as stand:
        done = await rotated_beside(tmp_path, str(stand.path))
        assert done.exit_code == 0, done.stderr
        assert stand.looked == 1
        assert stand.domain.is_stale()


async def test_an_appliance_that_cannot_be_told_is_spoken_of(tmp_path: Path) -> None:
    async with serving(tmp_path) as stand:
        stand.issuing = None
        done = await rotated_beside(tmp_path, str(stand.path))
        assert done.exit_code == 0
        assert "could not be told, and will look by itself: this appliance has no" in done.stderr
        assert stand.domain.is_stale()


async def test_an_appliance_that_is_not_there_stops_nothing(tmp_path: Path) -> None:
    init_domain(tmp_path / "identity", TD, dt.datetime.fromtimestamp(time.time(), dt.UTC), None)
    absent = await rotated_beside(tmp_path, str(tmp_path / "absent"))
    assert (absent.exit_code, absent.stderr.count("\n")) == (0, 1)
    assert counts(record_of(tmp_path / "identity")) == (1, 2, 1)


def test_keys_are_never_made_for_an_appliance_elsewhere(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ca_identity, "is_remote", lambda: True)
    for command in ("rotate", "seal"):
        done = run(command)
        assert done.exit_code == 2
        assert "on the host itself" in done.stderr
    assert counts(record_of(folder)) == (1, 1, 1)
