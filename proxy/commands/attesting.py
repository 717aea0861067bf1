"""What `sallyport attest` and `sallyport exchange` have in common: options and exit codes."""

import os
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from certs.errors import CertsError
from proxy.attester.attester import Attester, Claimed
from proxy.attester.errors import AttesterError, RefusedError, UnreachableError
from proxy.attester.means import DEFAULT_PROXY, DEFAULT_URL, Means, open_attester, read_pcrs
from proxy.commands.say import EXIT_BIND, EXIT_FINDINGS, EXIT_RULES, EXIT_USAGE, fail
from proxy.locations import locate

UrlOption = Annotated[
    str, typer.Option("--url", help=f"The DNS-over-HTTPS listener; {DEFAULT_URL} unless said.")
]
ProxyOption = Annotated[
    str,
    typer.Option("--proxy", help=f"A proxy's URL instead; with --launched {DEFAULT_PROXY}."),
]
CaOption = Annotated[
    Path | None, typer.Option("--ca", help="What verifies it: `sallyport ca export` printed it.")
]
CertOption = Annotated[Path | None, typer.Option("--cert", help="Your certificate, PEM.")]
KeyOption = Annotated[Path | None, typer.Option("--key", help="Its key, PEM.")]
FolderOption = Annotated[
    Path | None,
    typer.Option("--folder", help="Where svid.pem and svid.key are, instead of --cert and --key."),
]
SoftwareOption = Annotated[
    bool, typer.Option("--software", help="Attest with a key in a file; so unless said.")
]
AttesterKeyOption = Annotated[
    Path | None,
    typer.Option("--attester-key", help="That file; made on first use, beside the certificate."),
]
TpmOption = Annotated[
    str, typer.Option("--tpm", metavar="TCTI", help="Attest with a TPM: device:/dev/tpmrm0.")
]
PcrsOption = Annotated[str, typer.Option("--pcrs", help="Which registers the TPM quotes.")]
EkChainOption = Annotated[
    Path | None,
    typer.Option("--ek-chain", help="Certificates above the TPM's own, PEM, if it has them not."),
]
LaunchedOption = Annotated[
    bool, typer.Option("--launched", help="Inside a lease: by what its launcher executed.")
]
HashOption = Annotated[
    str, typer.Option("--agent-hash", help="Recorded with the result; believed by nobody.")
]
VersionOption = Annotated[
    str, typer.Option("--version", help="The agent's version; recorded, not believed.")
]

_MOST_HASH, _MOST_VERSION = 128, 64  # characters, as POST /attest takes them


def attester_of(means: Means, *, software: bool) -> Attester:
    """Return the attester of the command line; ends with 2 or 3 where there is none."""
    _check(means, software=software)
    try:
        return open_attester(means)
    except (AttesterError, CertsError) as error:
        end(error)


def our_state() -> Path:
    """Return where `sallyport enroll` puts what it gets."""
    return Path(locate(os.environ).state)


def pcrs_of(text: str) -> tuple[int, ...]:
    """Return the registers; ends with 2 where they are none."""
    try:
        return read_pcrs(text)
    except ValueError as error:
        fail(str(error), EXIT_USAGE)


def claimed_of(agent_hash: str, version: str) -> Claimed:
    """Return what the agent says of itself; ends with 2 where it is too long."""
    if len(agent_hash) > _MOST_HASH or len(version) > _MOST_VERSION:
        text = f"--agent-hash has {_MOST_HASH} characters at most, --version {_MOST_VERSION}"
        fail(text, EXIT_USAGE)
    return Claimed(agent_hash, version)


def end(error: AttesterError | CertsError) -> NoReturn:
    """End the command with what is wrong: 1 refused, 3 a file or an address, 4 not reached."""
    code = EXIT_RULES
    if isinstance(error, RefusedError):
        code = EXIT_FINDINGS
    elif isinstance(error, UnreachableError):
        code = EXIT_BIND
    fail(str(error), code)


def _check(means: Means, *, software: bool) -> None:
    if software + bool(means.tpm) + means.launched > 1:
        fail("--software, --tpm and --launched are three ways: name one", EXIT_USAGE)
    if (means.cert is None) != (means.key is None):
        fail("--cert and --key belong together", EXIT_USAGE)
    if means.cert is not None and means.folder is not None:
        fail("name --folder, or --cert and --key", EXIT_USAGE)
    if means.url and (means.proxy or means.launched):
        fail("--url is a DNS-over-HTTPS listener: without --proxy and --launched", EXIT_USAGE)
    if means.ek_chain is not None and not means.tpm:
        fail("--ek-chain is for --tpm", EXIT_USAGE)
    if means.attester_key is not None and (means.tpm or means.launched):
        fail("--attester-key is for --software", EXIT_USAGE)
