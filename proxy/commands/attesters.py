"""`sallyport attesters`: the TPMs that are enrolled, of the running appliance."""

from typing import Annotated
from urllib.parse import quote

import msgspec
import typer

from proxy.audit_line import printable
from proxy.commands.listing import Column, show
from proxy.commands.reach import ask, client_or_fail
from proxy.commands.say import (
    ConfigOption,
    JsonOption,
    StateOption,
    SystemOption,
    say,
    settings_of,
)
from proxy.commands.tokens import write_json
from proxy.config import Settings
from proxy.control.attesters import AttesterView

app = typer.Typer(
    name="attesters",
    help="The TPMs that are enrolled: see them, remove them.",
    no_args_is_help=True,
)

_COLUMNS = (
    Column("attester"),
    Column("app"),
    Column("SPIFFE ID", is_free=True),
    Column("enrolled", is_free=True),
    Column("last quote", is_free=True),
    Column("results", is_free=True),
)


@app.command("list")
def list_(
    config: ConfigOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the TPMs that are enrolled, and when each has last attested."""
    found = _asked(settings_of(config, None, state, system=system), "GET", "/attesters")
    if as_json:
        write_json(found)
        return
    rows = [
        (
            *(each.attester, each.app, each.spiffe_id, each.enrolled_at),
            *(each.quoted_at or "", str(each.results or "")),
        )
        for each in found
    ]
    show(_COLUMNS, rows, "no TPM is enrolled")


@app.command()
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The attester, as `list` has it.")],
    config: ConfigOption = None,
    state: StateOption = None,
    *,
    system: SystemOption = False,
    as_json: JsonOption = False,
) -> None:
    """Forget a TPM, and void all that it has proven; it may be enrolled again."""
    settings = settings_of(config, None, state, system=system)
    found = _asked(settings, "DELETE", f"/attesters/{quote(name, safe='')}")
    if as_json:
        write_json(found)
        return
    for each in found:
        results = "1 result is void" if each.results == 1 else f"{each.results} results are void"
        say(f"{each.attester} of {printable(each.app)}: removed, {results}")


def _asked(settings: Settings, method: str, target: str) -> list[AttesterView]:
    answer = ask(client_or_fail(settings), method, target)
    return msgspec.convert(answer, list[AttesterView])
