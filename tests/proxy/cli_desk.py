"""Commands as a person runs them, beside a running appliance's control socket or without one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import typer
from typer.testing import CliRunner, Result

from proxy.commands import app as cli_app
from proxy.commands import metrics as cli_metrics
from proxy.commands import status as cli_status
from proxy.limits import Limits
from tests.proxy.control_stand import Stand, standing

RULES = """\
apps:
  coder:
    identity: [{token: coder}]
    allow: [{host: example.com}]
  box:
    identity: [{process: {uid: 4711}}]
    allow: []
"""

app = typer.Typer()
app.add_typer(cli_app.app)
app.add_typer(cli_metrics.app)
app.command()(cli_status.status)
app.command()(cli_status.reload)


class Desk:
    """The folders of one user; the stand's socket and state are where this user's are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "run" / "control.sock"
        self.audit = folder / "audit.jsonl"
        rules = folder / "config" / "sallyport" / "rules"
        rules.mkdir(parents=True, mode=0o700)
        self.rules = rules / "rules.yaml"
        self.rules.write_text(RULES)
        self.rules.chmod(0o600)
        self.config = rules.parent / "sallyport.yaml"
        self.config.write_text(f"state: {folder}\nlisten: {{control: {self.socket}}}\n")
        self.env = {
            "HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "COLUMNS": "200",
        }

    def run(self, *arguments: str) -> Result:
        """Run a command in this process."""
        return CliRunner().invoke(app, arguments, env=self.env)

    async def beside(self, *arguments: str) -> Result:
        """Run a command while the loop serves what it asks."""
        return await asyncio.to_thread(self.run, *arguments)


@asynccontextmanager
async def running(desk: Desk) -> AsyncIterator[Stand]:
    """Serve the control socket of `desk`."""
    async with standing(desk.folder, Limits()) as stand:
        yield stand
