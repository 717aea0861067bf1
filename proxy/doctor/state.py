"""Checks of the state: its folder and disk, evidence, the database, the control socket."""

import os
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import msgspec
from msgspec import Struct

from proxy.config import read_socket
from proxy.confinement import foreign_writers
from proxy.doctor.certificates import unreadable
from proxy.doctor.patient import Finding, Patient

DATABASES = {
    "sallyport.sqlite": "issue the tokens anew",
    "revoked.sqlite": "revoke again what must be: nothing is revoked until then",
    "attested.sqlite": "agents attest again, and TPMs are enrolled again",
    "detection.sqlite": "blocked suffixes are open again, and every budget is whole",
    "secrets.sqlite": "no registered secret is looked for: register them again",
    "capabilities.sqlite": "agents exchange again; the tokens that are out count no more here",
    "identity/issued.sqlite": "what was issued before can be revoked by its serial number only",
}
"""The files, and what is to be done where one is lost."""

_HTTP_S = 2.0
_INODES = 64  # an installation makes about thirty files


class _Readiness(Struct):
    ready: bool
    problems: dict[str, str]


def state_folder(patient: Patient) -> Iterator[Finding]:
    """Find a folder of state or of evidence that cannot be written."""
    folders = {Path(patient.settings.state), Path(patient.settings.audit.file).parent}
    for folder in sorted(folders):
        there = next(each for each in (folder, *folder.parents) if each.exists())
        if not there.is_dir():
            yield Finding("error", f"{there} is no folder", "move it away, or use --state")
        elif patient.uid != os.geteuid():
            continue  # who asks is not who writes; the check `system` knows the modes
        else:
            yield from _unwritable(there, is_there=there == folder)


def _unwritable(folder: Path, *, is_there: bool) -> Iterator[Finding]:
    try:
        if is_there:
            tempfile.TemporaryFile(dir=folder).close()  # without a name where Linux can
        elif not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(None, "Permission denied")
    except OSError as error:
        cure = f"chown {os.geteuid()} {folder}; chmod 0700 {folder}; or --state elsewhere"
        yield Finding("error", f"{folder} cannot be written: {error.strerror}", cure)


def disk(patient: Patient) -> Iterator[Finding]:
    """Find a disk that is full, or will be before the next rotation."""
    settings = patient.settings
    folder = Path(settings.audit.file).parent
    there = next(each for each in (folder, *folder.parents) if each.exists())
    found = os.statvfs(there)
    free = found.f_bavail * found.f_frsize
    cure = f"free space on the file system of {there}, lower audit.rotate and audit.keep"
    if free < settings.limits.audit_reserve_octets or (found.f_files and found.f_favail == 0):
        yield Finding("error", f"the disk of {there} is full: requests are refused", cure)
    elif free < settings.audit.rotate:
        message = f"{free >> 20} MiB are free at {there}: less than one audit file"
        yield Finding("warning", message, cure)
    elif found.f_files and found.f_favail < _INODES:
        yield Finding("warning", f"{found.f_favail} inodes are free at {there}", cure)


def audit(patient: Patient) -> Iterator[Finding]:
    """Find evidence that is not written: what the appliance says, or who owns the file."""
    if patient.pid is not None:
        yield from _readiness(patient)
    file = Path(patient.settings.audit.file)
    try:
        found = file.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        yield unreadable(error)
        return
    if not stat.S_ISREG(found.st_mode):
        yield Finding("error", f"{file} is no regular file", "move it away, or set audit.file")
    elif found.st_uid != patient.uid:
        message = f"{file} is owned by uid {found.st_uid}, and we run as {patient.uid}"
        yield Finding("error", message, f"chown {patient.uid} {file}")


def _readiness(patient: Patient) -> Iterator[Finding]:
    for label in patient.settings.listen.metrics[:1]:
        address, port = read_socket(label)
        try:
            with closing(HTTPConnection(str(address), port, timeout=_HTTP_S)) as connection:
                connection.request("GET", "/readyz")
                said = msgspec.json.decode(connection.getresponse().read(), type=_Readiness)
        except (OSError, HTTPException, msgspec.MsgspecError) as error:
            message = f"the appliance (pid {patient.pid}) does not answer /readyz: {error}"
            yield Finding("error", message, "look at its log; restart it where it hangs")
            return
        for name, problem in sorted(said.problems.items()):
            cure = "mend it: the appliance goes on within a second or two"
            yield Finding("error", f"{name} is stalled: {problem}", cure)


def database(patient: Patient) -> Iterator[Finding]:
    """Find a database that SQLite cannot read, or that is not ours to write."""
    for name, loss in DATABASES.items():
        yield from _database(Path(patient.settings.state) / name, loss, patient.uid)


def _database(file: Path, loss: str, uid: int) -> Iterator[Finding]:
    try:
        if not file.exists():
            return
        found = file.stat()
        if found.st_uid not in {uid, 0}:
            message = f"{file} is owned by uid {found.st_uid}, and we run as {uid}"
            yield Finding("error", message, f"chown {uid} {file}")
        if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            message = f"others may open {file} (mode {stat.S_IMODE(found.st_mode):04o}): it is not"
            yield Finding("error", f"{message} used", f"chmod 0600 {file}")
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except PermissionError as error:
        yield unreadable(error)
        return
    except sqlite3.Error as error:
        verdict = str(error)
    if verdict != "ok":
        cure = f"stop sallyport, move {file} away, start it; {loss}"
        yield Finding("error", f"{file} is damaged: {verdict}", cure)


def control_folder(patient: Patient) -> Iterator[Finding]:
    """Find a control socket that others could put there, or everybody may use."""
    socket = Path(patient.settings.listen.control)
    if not patient.settings.listen.control:
        return
    for each in (socket.parent, *socket.parent.parents):
        who = foreign_writers(each, {0, patient.uid})
        if who is not None:
            message = f"{each}: {who}, and may put a control socket of its own there"
            yield Finding("error", message, f"chown {patient.uid} {each}; chmod go-w {each}")
    try:
        mode = socket.stat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        yield Finding("error", f"{socket} is no socket", f"rm {socket}, then restart sallyport")
    elif mode & stat.S_IRWXO and not _is_closed(socket.parent):
        yield Finding("error", f"every user may open {socket}", f"chmod o= {socket}")


def _is_closed(folder: Path) -> bool:
    return not folder.stat().st_mode & stat.S_IXOTH
