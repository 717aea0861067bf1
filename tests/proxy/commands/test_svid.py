"""`sallyport svid` and `sallyport admin`: files that are whole, closed, and nowhere else."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from proxy.commands import status as cli_status
from proxy.commands import svid as cli_svid
from proxy.commands.reach import CaOption, CertOption, ControlOption, KeyOption, reach
from proxy.commands.svid import Made
from rules.ruleset import App, IdentityLine, Ruleset
from tests.proxy.control.remote_stand import ALICE, CODER, TRUST_DOMAIN, RemoteStand, serving

OTHER = "spiffe://other.example/coder"
NAMED = Ruleset(
    1,
    {
        "coder": App(
            "coder",
            identity=(
                IdentityLine("a.yaml:1", spiffe=CODER),
                IdentityLine("a.yaml:2", spiffe=OTHER),
            ),
        ),
        "two": App(
            "two",
            identity=(
                IdentityLine("a.yaml:4", spiffe=f"{CODER}/a"),
                IdentityLine("a.yaml:5", spiffe=f"{CODER}/b"),
            ),
        ),
        "none": App("none", identity=(IdentityLine("a.yaml:7", spiffe=OTHER),)),
    },
)

app = typer.Typer()
app.command()(cli_svid.svid)
app.command()(cli_svid.admin)
app.command()(cli_status.status)


@app.callback()
def sallyport(
    control: ControlOption = "",
    cert: CertOption = None,
    key: KeyOption = None,
    ca: CaOption = None,
) -> None:
    """Speak to an appliance."""
    reach(control, cert, key, ca)


class Desk:
    """One user, whose appliance is the stand."""

    def __init__(self, folder: Path, stand: RemoteStand) -> None:
        self.folder = folder
        self.stand = stand
        self.out = folder / "out"
        self.config = folder / "sallyport.yaml"
        self.write(f"listen: {{control: {stand.path}}}")

    def write(self, listen: str) -> None:
        self.config.write_text(
            f"state: {self.folder}\nidentity: {{trust_domain: {TRUST_DOMAIN}}}\n{listen}\n"
        )

    async def run(self, *arguments: str, **env: str) -> Result:
        """Run a command while the loop serves what it asks."""
        environ = {"HOME": str(self.folder), "COLUMNS": "200", **env}
        command = [*arguments, "--config", str(self.config)]
        return await asyncio.to_thread(CliRunner().invoke, app, command, env=environ)


@asynccontextmanager
async def sitting(folder: Path) -> AsyncIterator[Desk]:
    async with serving(folder) as stand:
        stand.ruleset = NAMED
        yield Desk(folder, stand)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with sitting(tmp_path) as made:
        yield made


@pytest.mark.parametrize("whose", ["coder", CODER])
async def test_writes_what_a_server_needs(desk: Desk, whose: str) -> None:
    ended = await desk.run("svid", whose, "--out", str(desk.out), "--ttl", "10m")
    assert ended.exit_code == 0, ended.stderr
    assert f"{CODER}, until" in ended.stderr
    assert {each.name for each in desk.out.iterdir()} == {"svid.pem", "svid.key", "bundle.pem"}
    assert desk.out.stat().st_mode & 0o777 == 0o700
    assert {each.stat().st_mode & 0o777 for each in desk.out.iterdir()} == {0o600}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(desk.out / "svid.pem", desk.out / "svid.key")
    context.load_verify_locations(desk.out / "bundle.pem")


async def test_an_admins_files_open_the_control_api(desk: Desk) -> None:
    desk.write(f'listen: {{control: {desk.stand.path}, control_tls: ["127.0.0.1:9443"]}}')
    ended = await desk.run("admin", "alice", "--out", str(desk.out))
    assert ended.exit_code == 0, ended.stderr
    assert f"sallyport --control https://127.0.0.1:9443 --cert {desk.out}/svid.pem" in ended.stderr
    desk.write('listen: {control: ""}')
    told = await desk.run(
        "--control", f"https://127.0.0.1:{desk.stand.port}", "--cert", f"{desk.out}/svid.pem",
        "--key", f"{desk.out}/svid.key", "--ca", f"{desk.out}/ca.pem", "status", "--json",
    )  # fmt: skip
    assert told.exit_code == 0, told.stderr
    assert json.loads(told.stdout)["version"] == "0.9"


async def test_the_environment_may_name_the_appliance(desk: Desk) -> None:
    alice = desk.stand.issued()
    desk.write('listen: {control: ""}')
    told = await desk.run(
        "status",
        "--json",
        SALLYPORT_CONTROL=f"https://127.0.0.1:{desk.stand.port}",
        SALLYPORT_CERT=str(alice.cert),
        SALLYPORT_KEY=str(alice.key),
        SALLYPORT_CA=str(desk.stand.ca / "root.pem"),
    )
    assert told.exit_code == 0, told.stderr
    again = await desk.run("status")  # and the next command of this process is not held to it
    assert again.exit_code == 4


async def test_an_admin_by_his_whole_id(desk: Desk) -> None:
    ended = await desk.run("admin", ALICE, "--out", str(desk.out), "--json")
    assert ended.exit_code == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert (told["spiffe_id"], told["folder"]) == (ALICE, str(desk.out))
    assert set(told) == {"spiffe_id", "serial", "not_after", "folder"}


async def test_the_key_is_neither_printed_nor_logged(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    ended = await desk.run("svid", CODER, "--out", str(desk.out))
    secret = (desk.out / "svid.key").read_text().splitlines()[1]
    await desk.stand.audit.close()
    for text in (ended.stdout, ended.stderr, caplog.text, desk.stand.file.read_text()):
        assert secret not in text
    made = Made(CODER, "1", 1, "chain", "PRIVATE", "bundle")
    assert "PRIVATE" not in repr(made)


@pytest.mark.parametrize(
    ("command", "code", "told"),
    [
        pytest.param(["svid", "none"], 1, "has no SPIFFE ID of desk.example", id="no id of ours"),
        pytest.param(["svid", "two"], 2, f"name one of {CODER}/a, {CODER}/b", id="several"),
        pytest.param(["svid", "nobody"], 1, "nobody", id="no such app"),
        pytest.param(["svid", "No Name"], 2, "names are", id="no name"),
        pytest.param(["svid", ALICE], 1, "admin", id="an admin's"),
        pytest.param(["svid", OTHER], 4, "", id="another trust domain"),
        pytest.param(["svid", CODER, "--ttl", "soon"], 2, "soon", id="no time"),
        pytest.param(["svid", CODER, "--ttl", "1s"], 4, "", id="too short"),
        pytest.param(["admin", "a/b"], 2, "NAME has letters", id="two segments"),
        pytest.param(["admin", ".."], 2, "NAME has letters", id="a dot segment"),
        pytest.param(["admin", CODER], 1, "no admin", id="no admin's name"),
        pytest.param(["--control", "https://127.0.0.1:1", "status"], 2, "--cert", id="no files"),
    ],
)
async def test_what_cannot_be_is_said_with_its_exit_code(
    desk: Desk, command: list[str], code: int, told: str
) -> None:
    out = [] if command[-1] == "status" else ["--out", str(desk.out)]
    ended = await desk.run(*command, *out)
    assert ended.exit_code == code, ended.stderr
    assert told in ended.stderr
    assert not desk.out.exists()


async def test_a_folder_that_cannot_be_written_is_told(desk: Desk) -> None:
    desk.out.write_text("a file")
    ended = await desk.run("svid", CODER, "--out", str(desk.out / "below"))
    assert ended.exit_code == 4
    assert "cannot write into" in ended.stderr


async def test_without_an_appliance_nothing_is_made(desk: Desk) -> None:
    for listen in ('listen: {control: ""}', f"listen: {{control: {desk.folder}/none.sock}}"):
        desk.write(listen)
        ended = await desk.run("svid", CODER, "--out", str(desk.out))
        assert ended.exit_code == 4
        assert not desk.out.exists()
