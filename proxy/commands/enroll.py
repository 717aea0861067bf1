"""`sallyport enroll`: a device gets its certificate, and keeps it fresh.

It runs where the appliance does not have to: it needs an address, a file of whom to trust, and a
join token or a person who approves.  The device's key is made here and never leaves.
"""

import datetime as dt
import os
import time
from pathlib import Path
from typing import Annotated

import typer

from certs.device import BUNDLE, CHAIN, KEY, Enrolled, make_request, read_enrolled, store
from certs.errors import CertsError
from proxy.commands.say import EXIT_BIND, EXIT_FINDINGS, EXIT_USAGE, JsonOption, fail, say
from proxy.commands.tokens import check_name, write_json
from proxy.enrolling import EnrollError, Server, Shown, open_server
from proxy.hardening import close_to_debuggers
from proxy.locations import locate

_VARIABLE = "SALLYPORT_JOIN_TOKEN"
_TOKEN_OCTETS = 4096
_LEAST_WAIT_S, _MOST_WAIT_S = 5.0, 60.0  # between looks whether a renewal is due

UrlOption = Annotated[str, typer.Option("--url", help="https://HOST:PORT of `listen.enroll`.")]
CaOption = Annotated[
    Path, typer.Option("--ca", help="What verifies it: `sallyport ca export` printed it.")
]
AppOption = Annotated[str, typer.Option("--app", metavar="NAME", help="Which app to enrol as.")]
TokenOption = Annotated[
    Path | None, typer.Option("--token-file", help=f"A join token; else from {_VARIABLE}.")
]
FolderOption = Annotated[
    Path | None, typer.Option("--folder", help="Where key and certificate are to be.")
]


def enroll(  # noqa: PLR0913 - one argument an option
    url: UrlOption,
    ca: CaOption,
    app: AppOption,
    token_file: TokenOption = None,
    folder: FolderOption = None,
    spiffe_id: Annotated[
        str, typer.Option("--spiffe-id", help="Which one, where the app has several.")
    ] = "",
    *,
    oidc: Annotated[
        bool, typer.Option("--oidc", help="Have a person approve, in a browser elsewhere.")
    ] = False,
    renew: Annotated[
        bool, typer.Option("--renew", help="Renew with the certificate there is, if it is time.")
    ] = False,
    keep_fresh: Annotated[
        bool, typer.Option("--keep-fresh", help="Stay, and renew whenever it is time.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Get a certificate for this device: by a join token, by an approval, or renew it."""
    close_to_debuggers()
    check_name(app)
    place = folder or Path(locate(os.environ).state) / "enrolled" / app
    try:
        server = open_server(url, ca)
        if not renew and not (keep_fresh and _is_good(place)):
            certificates = _first(server, app, place, spiffe_id, token_file, oidc=oidc)
            _show(store(place, certificates, spiffe_id), place, as_json=as_json)
        if renew:
            _show(_renewed(server, place), place, as_json=as_json)
        while keep_fresh:
            _wait(place)
            _try_again(server, place)
    except CertsError as error:
        fail(str(error), EXIT_BIND)
    except EnrollError as error:
        fail(str(error), EXIT_FINDINGS)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _first(
    server: Server, app: str, place: Path, spiffe_id: str, token_file: Path | None, *, oidc: bool
) -> tuple[bytes, ...]:
    if oidc:
        return server.by_approval(app, make_request(place, spiffe_id), _ask_person, time.sleep)
    secret = _token(token_file)
    return server.by_token(app, secret, make_request(place, spiffe_id))


def _token(file: Path | None) -> str:
    """Return the join token; it is never taken from the command line, which others can read."""
    if file is None:
        secret = os.environ.get(_VARIABLE, "")
    else:
        try:
            with file.open(encoding="ascii") as opened:
                secret = opened.read(_TOKEN_OCTETS)
        except (OSError, UnicodeDecodeError) as error:
            fail(f"{file} cannot be read: {error}", EXIT_BIND)
    secret = secret.strip()
    if not secret or not secret.isprintable():
        fail(
            f"no join token: name a --token-file, set {_VARIABLE}, or use --oidc;"
            " `sallyport app join NAME` makes one, on the appliance's host",
            EXIT_USAGE,
        )
    return secret


def _ask_person(shown: Shown) -> None:
    say(f"open {shown.verification_uri} and enter {shown.user_code}")
    if shown.verification_uri_complete:
        say(f"  or open {shown.verification_uri_complete}")
    say(f"waiting for the approval of {shown.spiffe_id} ({shown.expires_in} s at most)")


def _renewed(server: Server, place: Path) -> Enrolled:
    """Return the certificate in `place`, renewed if half of its life is over."""
    known = read_enrolled(place)
    if known is None:
        fail(f"{place} has no certificate: enrol with a join token or --oidc first", EXIT_FINDINGS)
    if _now() < known.renew_at:
        return known
    if _now() >= known.not_after:
        fail(f"the certificate in {place} has ended: enrol anew", EXIT_FINDINGS)
    request = make_request(place, known.spiffe_id)
    renewed = server.by_certificate(place / CHAIN, place / KEY, request)
    return store(place, renewed, known.spiffe_id)


def _try_again(server: Server, place: Path) -> None:
    """Renew; where that fails, there is time until the certificate's end to try again."""
    known = read_enrolled(place)
    try:
        fresh = _renewed(server, place)
    except (EnrollError, CertsError) as error:
        if isinstance(error, EnrollError) and error.is_final:
            raise
        say(f"not renewed, and tried again: {error}")
        return
    if fresh != known:
        say(f"renewed {fresh.spiffe_id} until {_date(fresh.not_after)}")


def _wait(place: Path) -> None:
    known = read_enrolled(place)
    due_s = 0.0 if known is None else known.renew_at - _now()
    # Not in one piece: a laptop that slept is to notice.
    time.sleep(min(max(due_s, _LEAST_WAIT_S), _MOST_WAIT_S))


def _is_good(place: Path) -> bool:
    known = read_enrolled(place)
    return known is not None and _now() < known.not_after


def _show(enrolled: Enrolled, place: Path, *, as_json: bool) -> None:
    if as_json:
        files = {"certificate": CHAIN, "key": KEY, "bundle": BUNDLE}
        places = {name: str(place / file) for name, file in files.items()}
        write_json({"enrolled": enrolled, **places})
        return
    say(f"{enrolled.spiffe_id} until {_date(enrolled.not_after)}, in {place}")
    chain, key = place / CHAIN, place / KEY
    say(f"  curl --proxy https://ADDRESS:PORT --proxy-cacert CA --proxy-cert {chain} \\")
    say(f"       --proxy-key {key} https://HOST/")
    say(f"  kdig @ADDRESS +tls-ca=CA +tls-certfile={chain} +tls-keyfile={key} HOST")
    say(f"  and again before {_date(int(enrolled.renew_at))}: `sallyport enroll --renew ...`")


def _date(at: int) -> str:
    return f"{dt.datetime.fromtimestamp(at, dt.UTC):%Y-%m-%dT%H:%M:%SZ}"


def _now() -> float:
    return time.time()  # noqa: TID251 - a command is its own root
