"""Checks of the local CA and the server's certificate: their dates, and the names they are for."""

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from certs.errors import KeystoreError
from certs.files import ROOT_PEM, SERVER_PEM
from certs.leaf import read_leaf
from certs.names import server_names
from proxy.config import read_socket
from proxy.doctor.patient import Finding, Patient

SOON_S = 7 * 86400.0
"""A server certificate is renewed at two thirds of its life: this near its end, renewal failed."""

_ROOT_SOON_S = 30 * 86400.0  # clients have to be told of a new root
_RENEW = "restart sallyport: it renews the certificate; its log says why it did not"
_NEW_ROOT = "sallyport ca init --force, then give clients the new `sallyport ca export`"


def certificates(patient: Patient) -> Iterator[Finding]:
    """Find what is expired, about to be, or not for the addresses that we listen on."""
    folder = ca_folder(patient)
    labels = patient.settings.listen.tls
    if not labels:
        return
    try:
        if not folder.exists():  # `up` makes it
            return
        yield from _root(folder, patient.now)
        yield from _server(folder, patient.now, labels)
    except PermissionError as error:
        yield unreadable(error)
    except (KeystoreError, OSError) as error:
        yield Finding("error", str(error), f"mend or remove {folder}; `sallyport up` makes it anew")


def ca_folder(patient: Patient) -> Path:
    """Return where the certificates are."""
    return Path(patient.settings.state) / "ca"


def root_certificate(folder: Path) -> dict[str, Any] | None:
    """Return the fields of root.pem, as `ssl` names them; None where there is none.

    Raises:
        OSError: it cannot be read, or holds no certificate.
    """
    path = folder / ROOT_PEM
    if not path.exists():
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(path)
    found = context.get_ca_certs()
    if not found:
        raise OSError(f"{path} holds no certificate of an authority")
    return found[0]


def unreadable(error: OSError) -> Finding:
    """Return the finding that this check needs rights which whoever asks lacks."""
    where = error.filename or "the state"
    return Finding(
        "info", f"{where} cannot be read by this user", "run doctor as its owner or root"
    )


def _root(folder: Path, now: float) -> Iterator[Finding]:
    fields = root_certificate(folder)
    if fields is None:
        return
    until = ssl.cert_time_to_seconds(fields["notAfter"])
    if until <= now:
        yield Finding("error", f"the local CA expired on {fields['notAfter']}", _NEW_ROOT)
    elif until <= now + _ROOT_SOON_S:
        yield Finding("warning", f"the local CA expires on {fields['notAfter']}", _NEW_ROOT)


def _server(folder: Path, now: float, labels: tuple[str, ...]) -> Iterator[Finding]:
    if not (folder / SERVER_PEM).exists():
        return
    leaf = read_leaf(folder)
    if leaf is None:
        yield Finding("error", f"{folder / SERVER_PEM} is not the one that we made", _RENEW)
        return
    left_s = leaf.not_after - now
    if left_s <= 0:
        yield Finding("error", f"the server certificate expired {_days(-left_s)} ago", _RENEW)
    elif left_s <= SOON_S:
        yield Finding("warning", f"the server certificate expires in {_days(left_s)}", _RENEW)
    addresses = [str(read_socket(label)[0]) for label in labels]
    missing = [name for name in server_names(addresses) if name not in leaf.names]
    if missing:
        message = f"the server certificate is not for {', '.join(missing)}"
        yield Finding("error", message, "restart sallyport: it makes one for what `listen:` says")


def _days(seconds: float) -> str:
    return f"{seconds / 86400:.0f} days" if seconds >= 86400 * 2 else f"{seconds / 3600:.0f} hours"
