"""`sallyport exchange`: a capability token for one audience, and giving it back (RFC 8693, 7009).

Tokens come from files or standard input, never from the command line, which others can read.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from certs.errors import CertsError
from proxy.attester.attester import TOKEN, Attester, Wanted
from proxy.attester.errors import AttesterError
from proxy.attester.means import DEFAULT_PCRS, Means
from proxy.commands.attesting import (
    AttesterKeyOption,
    CaOption,
    CertOption,
    EkChainOption,
    FolderOption,
    KeyOption,
    LaunchedOption,
    PcrsOption,
    ProxyOption,
    SoftwareOption,
    TpmOption,
    UrlOption,
    attester_of,
    end,
    our_state,
    pcrs_of,
)
from proxy.commands.say import EXIT_RULES, EXIT_USAGE, JsonOption, fail, say
from proxy.commands.tokens import write_json
from proxy.hardening import close_to_debuggers

_PCRS = ",".join(map(str, DEFAULT_PCRS))
_MOST_CHARACTERS = 65536  # of a file with a token; a token has 16 KiB at most
_FILE = "FILE|-"

AudienceOption = Annotated[str, typer.Option("--audience", help="Who is to accept it.")]
ScopeOption = Annotated[str, typer.Option("--scope", help="What for; spaces between several.")]
TokenOption = Annotated[
    Path | None,
    typer.Option("--token-file", metavar=_FILE, help="Your attestation; else you attest now."),
]
SubjectOption = Annotated[
    Path | None,
    typer.Option("--subject-token", metavar=_FILE, help="A capability token that you pass on."),
]
RevokeOption = Annotated[
    Path | None,
    typer.Option("--revoke", metavar=_FILE, help="Give this capability token back instead."),
]


def exchange(  # noqa: PLR0913, PLR0917 - one argument an option
    audience: AudienceOption = "",
    scope: ScopeOption = "",
    token_file: TokenOption = None,
    subject_token: SubjectOption = None,
    revoke: RevokeOption = None,
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
    *,
    software: SoftwareOption = False,
    launched: LaunchedOption = False,
    as_json: JsonOption = False,
) -> None:
    """Exchange this agent's attestation for a capability token, and print it."""
    close_to_debuggers()
    if revoke is None and not (audience and scope):
        fail("name --audience and --scope, or --revoke", EXIT_USAGE)
    if revoke is not None and (audience or scope or subject_token or token_file):
        fail("--revoke goes with none of --audience, --scope and tokens", EXIT_USAGE)
    where = our_state(), url, proxy, ca, cert, key, folder
    means = Means(*where, attester_key, tpm, pcrs_of(pcrs), ek_chain, launched)
    attester = attester_of(means, software=software)
    try:
        if revoke is not None:
            attester.revoke(_read(revoke))
            say("given back")
            return
        _exchange(attester, Wanted(audience, scope), token_file, subject_token, as_json=as_json)
    except (AttesterError, CertsError) as error:
        end(error)


def _exchange(
    attester: Attester,
    wanted: Wanted,
    token_file: Path | None,
    subject_token: Path | None,
    *,
    as_json: bool,
) -> None:
    subject = None if subject_token is None else _read(subject_token)
    own = attester.attest().token if token_file is None else _read(token_file)
    found = attester.exchange(wanted.for_tokens(own, subject))
    if as_json:
        write_json(found)
    else:
        sys.stdout.write(f"{found.access_token}\n")


def _read(path: Path) -> str:
    """Return the token in a file, or on standard input."""
    try:
        if str(path) == "-":
            text = sys.stdin.read(_MOST_CHARACTERS)
        else:
            with path.open(encoding="ascii") as opened:
                text = opened.read(_MOST_CHARACTERS)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no token"
        fail(f"{path} cannot be read: {why}", EXIT_RULES)
    token = text.strip()
    if not TOKEN.fullmatch(token):
        fail(f"{path} holds no token: one line, as `sallyport attest` prints it", EXIT_RULES)
    return token
