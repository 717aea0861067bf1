"""Checks of the trust domain: its keys and their dates, the clock against them, who issues."""

import contextlib
import datetime as dt
import socket
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from certs.errors import KeystoreError
from certs.known_domain import DOMAIN_JSON, Generation, Record, read_record
from certs.profile import SKEW_S
from proxy.control.client import ControlClient, ControlError, NotRunningError
from proxy.doctor.certificates import unreadable
from proxy.doctor.patient import Finding, Patient
from proxy.errors import BindError

_PEM_HEAD_OCTETS = 64
_ENCRYPTED = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"
_CONNECT_S = 2.0
_TO_RENEW = "restart sallyport: it makes the next one; its log says why it did not"


def identity_folder(patient: Patient) -> Path:
    """Return where the trust domain is."""
    return Path(patient.settings.state) / "identity"


def trust_domain(patient: Patient) -> Iterator[Finding]:
    """Find a trust domain that cannot be read, is another one, or whose roots or keys end."""
    try:
        record = _record(patient)
    except PermissionError as error:
        yield unreadable(error)
        return
    except (KeystoreError, OSError) as error:
        yield Finding("error", str(error), "put the folder back from a backup")
        return
    if record is None:
        return
    ours = patient.settings.identity.trust_domain
    if record.trust_domain != ours:
        message = f"{identity_folder(patient)} is of {record.trust_domain}, and we are {ours}"
        yield Finding("error", message, "set identity.trust_domain to it, or move the folder away")
    yield from _ending("root", record.roots, patient.now)
    yield from _ending("intermediate", record.intermediates, patient.now)
    yield from _ending("JWT key", record.jwt_keys, patient.now)


def identity_clock(patient: Patient) -> Iterator[Finding]:
    """Find a clock that stands before the newest certificate: it has been set back since."""
    try:
        record = _record(patient)
    except (KeystoreError, OSError):  # the check `trust-domain` tells of it
        return
    if record is None:
        return
    newest = max(each.not_before for each in record.all)
    if newest > patient.now + SKEW_S:
        message = f"the clock says {_time(patient.now)}, and a key was made at {_time(newest)}"
        yield Finding("error", message, "set the clock; certificates count by it")


def key_files(patient: Patient) -> Iterator[Finding]:
    """Find keys of the trust domain, or their passphrase, that others may read or replace."""
    try:
        yield from _passphrase(patient)
        folder = identity_folder(patient)
        if folder.is_dir():
            yield from _private(folder, patient, 0o700)
            for key in sorted(folder.glob("*.key")):
                yield from _private(key, patient, 0o600)
                yield from _unsealed(key, patient)
    except PermissionError as error:
        yield unreadable(error)
    except FileNotFoundError:  # it was replaced while we looked
        return


def issuer(patient: Patient) -> Iterator[Finding]:
    """Find an issuer that the running appliance cannot use, or another's that is not there."""
    settings = patient.settings
    if settings.identity.workload_api is not None:
        yield from _elsewhere(settings.identity.workload_api)
    if patient.pid is None or not settings.listen.control:
        return
    try:
        found = ControlClient(Path(settings.listen.control)).get("/identity")
    except NotRunningError:  # the check `instances` or `control` tells of it
        return
    except BindError as error:
        yield Finding("info", str(error), "run doctor as its owner or root")
        return
    except ControlError as error:
        yield Finding("error", str(error), "look at the log of sallyport; restart it")
        return
    if found["problem"]:
        cure = "mend it: the issuer is started again by itself"
        yield Finding("error", f"the issuer is stalled: {found['problem']}", cure)


def _record(patient: Patient) -> Record | None:
    folder = identity_folder(patient)
    if patient.settings.identity.workload_api is not None:
        return None
    with contextlib.suppress(FileNotFoundError):
        (folder / DOMAIN_JSON).open("rb").close()  # PermissionError where we may not look
    return read_record(folder)


def _ending(what: str, generations: Sequence[Generation], now: float) -> Iterator[Finding]:
    """Find that the newest one has ended, or that its successor is late."""
    newest = generations[-1]
    late = (newest.renew_at + newest.not_after) / 2
    if newest.not_after <= now:
        message = f"the {what} of the trust domain ended {_time(newest.not_after)}"
        yield Finding("error", message, _TO_RENEW)
    elif late <= now:
        message = f"the {what} of the trust domain ends {_time(newest.not_after)}"
        yield Finding("warning", message, _TO_RENEW)


def _passphrase(patient: Patient) -> Iterator[Finding]:
    named = patient.settings.identity.key_file
    if named is None:
        return
    path = Path(named)
    try:
        yield from _private(path, patient, 0o600)
    except FileNotFoundError:
        message = f"identity.key_file {path} is not there: the keys cannot be opened"
        yield Finding("error", message, "put it back from a backup")


def _private(path: Path, patient: Patient, mode: int) -> Iterator[Finding]:
    found = path.stat()
    if found.st_uid not in {patient.uid, 0}:
        message = f"{path} is owned by uid {found.st_uid}, and we run as {patient.uid}"
        yield Finding("error", message, f"chown {patient.uid} {path}")
    elif found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        message = f"others may read {path} (mode {stat.S_IMODE(found.st_mode):04o})"
        cure = f"chmod {mode:04o} {path}; if somebody may have read it, sallyport ca rotate"
        yield Finding("error", message, cure)


def _unsealed(key: Path, patient: Patient) -> Iterator[Finding]:
    """Find a key in the clear although there is a passphrase for it."""
    if patient.settings.identity.key_file is None:
        return
    with key.open("rb") as opened:
        is_sealed = opened.read(_PEM_HEAD_OCTETS).startswith(_ENCRYPTED)
    if not is_sealed:
        message = f"{key} is not encrypted, although identity.key_file is set"
        yield Finding("warning", message, "restart sallyport: it encrypts keys when it starts")


def _elsewhere(path: str) -> Iterator[Finding]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_S)
        try:
            probe.connect(path)
        except OSError as error:
            message = f"nobody answers at identity.workload_api {path}: {error.strerror or error}"
            yield Finding("error", message, "start that agent, or correct the path")


def _time(at: float) -> str:
    return f"{dt.datetime.fromtimestamp(at, dt.UTC):%Y-%m-%d %H:%M} UTC"
