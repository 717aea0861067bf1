"""`sallyport attest`: an agent proves what it is, and keeps the proof fresh.

It runs beside the agent and speaks to the agent-facing API alone, never to the control socket.
A connection with the same certificate counts as attested then, so that kdig and curl need
nothing else; the token is for who wants one.
"""

import contextlib
import random
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from certs.errors import CertsError
from proxy.attester.attester import Attester
from proxy.attester.errors import AttesterError
from proxy.attester.keep import Keeper
from proxy.attester.means import DEFAULT_PCRS, Means
from proxy.attester.outlet import Descriptor, Outlet, TokenFile, TokenSocket
from proxy.commands.attesting import (
    AttesterKeyOption,
    CaOption,
    CertOption,
    EkChainOption,
    FolderOption,
    HashOption,
    KeyOption,
    LaunchedOption,
    PcrsOption,
    ProxyOption,
    SoftwareOption,
    TpmOption,
    UrlOption,
    VersionOption,
    attester_of,
    claimed_of,
    end,
    our_state,
    pcrs_of,
)
from proxy.commands.say import EXIT_USAGE, JsonOption, fail, say
from proxy.commands.tokens import write_json
from proxy.hardening import close_to_debuggers

_PCRS = ",".join(map(str, DEFAULT_PCRS))

FdOption = Annotated[
    int | None, typer.Option("--fd", help="With --keep-fresh: rewrite this open file or memfd.")
]
FileOption = Annotated[
    Path | None, typer.Option("--file", help="With --keep-fresh: replace this file, 0600.")
]
SocketOption = Annotated[
    Path | None,
    typer.Option("--socket", help="With --keep-fresh: who connects here gets the token."),
]
KeepFreshOption = Annotated[
    bool, typer.Option("--keep-fresh", help="Stay, and attest anew before the proof ends.")
]
HeartbeatOption = Annotated[
    bool, typer.Option("--heartbeat", help="With --keep-fresh: say each minute that we live.")
]


def attest(  # noqa: PLR0913, PLR0917 - one argument an option
    url: UrlOption = "",
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    folder: FolderOption = None,
    proxy: ProxyOption = "",
    attester_key: AttesterKeyOption = None,
    tpm: TpmOption = "",
    pcrs: PcrsOption = _PCRS,
    ek_chain: EkChainOption = None,
    agent_hash: HashOption = "",
    version: VersionOption = "",
    fd: FdOption = None,
    file: FileOption = None,
    socket: SocketOption = None,
    *,
    software: SoftwareOption = False,
    launched: LaunchedOption = False,
    keep_fresh: KeepFreshOption = False,
    heartbeat: HeartbeatOption = False,
    as_json: JsonOption = False,
) -> None:
    """Prove what this agent is, and print the token; or stay, and keep the proof fresh."""
    close_to_debuggers()
    if not keep_fresh and (heartbeat or (fd, file, socket) != (None, None, None)):
        fail("--fd, --file, --socket and --heartbeat go with --keep-fresh", EXIT_USAGE)
    if 3 - (fd, file, socket).count(None) > 1:
        fail("--fd, --file and --socket are three places: name one", EXIT_USAGE)
    where = our_state(), url, proxy, ca, cert, key, folder
    how = attester_key, tpm, pcrs_of(pcrs), ek_chain, launched
    means = Means(*where, *how, claimed_of(agent_hash, version))
    attester = attester_of(means, software=software)
    try:
        if keep_fresh:
            _keep(attester, _outlet(fd, file, socket), beats=heartbeat)
        _print(attester, as_json=as_json)
    except (AttesterError, CertsError) as error:
        end(error)


def _print(attester: Attester, *, as_json: bool) -> None:
    found = attester.attest()
    if as_json:
        write_json(found)
    else:
        sys.stdout.write(f"{found.token}\n")


def _outlet(fd: int | None, file: Path | None, socket: Path | None) -> Outlet | None:
    if fd is not None:
        return Descriptor(fd)
    if file is not None:
        return TokenFile(file)
    return None if socket is None else TokenSocket(socket)


def _keep(attester: Attester, outlet: Outlet | None, *, beats: bool) -> NoReturn:
    """Stay until SIGTERM or Ctrl-C."""
    keeper = Keeper(attester, outlet, _clock, random.random, say, beats=beats)
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
        stack.callback(signal.signal, signal.SIGTERM, before)
        if outlet is not None:
            stack.callback(outlet.close)
        while True:
            time.sleep(keeper.step())
    raise typer.Exit(0)


def _clock() -> float:
    """Return seconds that go on while the host is suspended (clock_gettime(2))."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
