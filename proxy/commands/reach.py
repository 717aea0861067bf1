"""Which appliance a command speaks to: this host's by its socket, or one elsewhere by TLS.

    $ sallyport --control https://192.0.2.7:9443 --cert svid.pem --key svid.key --ca ca.pem status

The options stand before the command, or in the environment.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

import typer

from proxy.commands.say import EXIT_BIND, EXIT_FINDINGS, EXIT_USAGE, fail
from proxy.config import Settings
from proxy.control.client import ControlClient, ControlError, NotRunningError, Remote
from proxy.errors import BindError

ControlOption = Annotated[
    str,
    typer.Option(
        "--control", envvar="SALLYPORT_CONTROL", help="Another appliance: https://ADDRESS:PORT."
    ),
]
CertOption = Annotated[
    Path | None,
    typer.Option("--cert", envvar="SALLYPORT_CERT", help="With --control: your certificate."),
]
KeyOption = Annotated[
    Path | None, typer.Option("--key", envvar="SALLYPORT_KEY", help="With --control: its key.")
]
CaOption = Annotated[
    Path | None,
    typer.Option("--ca", envvar="SALLYPORT_CA", help="With --control: its `ca export`."),
]

_remote: ContextVar[Remote | None] = ContextVar("remote", default=None)


def reach(control: str, cert: Path | None, key: Path | None, ca: Path | None) -> None:
    """Have the commands of this process speak to `control`, where it says anything."""
    if not control:
        _remote.set(None)
        return
    if cert is None or key is None or ca is None:
        fail("--control needs --cert, --key and --ca: docs/control.md", EXIT_USAGE)
    _remote.set(Remote(control, cert, key, ca))


def is_remote() -> bool:
    """Return whether commands speak to an appliance elsewhere; files here are not its own."""
    return _remote.get() is not None


def client_of(settings: Settings) -> ControlClient | None:
    """Return who asks the appliance; None where there is no way to."""
    remote = _remote.get()
    if remote is not None:
        return ControlClient(remote)
    return ControlClient(Path(settings.listen.control)) if settings.listen.control else None


def client_or_fail(settings: Settings) -> ControlClient:
    """Return who asks the appliance; ends the command where there is no way to."""
    client = client_of(settings)
    if client is None:
        fail("there is no control socket: `listen.control` is empty", EXIT_BIND)
    return client


def ask(client: ControlClient, method: str, target: str, content: object = None) -> Any:
    """Return what the appliance answers; ends the command where it does not, or refuses."""
    with _ending():
        return client.ask(method, target, content)


def ask_if_running(
    client: ControlClient | None, method: str, target: str, content: object = None
) -> Any:
    """Return the same; None where no appliance runs that could be asked."""
    if client is None:
        return None
    with _ending(), contextlib.suppress(NotRunningError):
        return client.ask(method, target, content)
    return None


@contextlib.contextmanager
def _ending() -> Iterator[None]:
    """End the command with what keeps the appliance from answering."""
    try:
        yield
    except BindError as error:
        fail(str(error), EXIT_BIND)
    except ControlError as error:
        fail(str(error), EXIT_BIND if error.status >= 500 else EXIT_FINDINGS)
