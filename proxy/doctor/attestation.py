"""Checks of attestation: whose TPMs are believed, and whether what rules require can be proven."""

import os
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG

from certs.unreadable import UNREADABLE
from certs.vendor_chain import read_signed
from proxy.confinement import foreign_writers
from proxy.doctor.certificates import unreadable
from proxy.doctor.patient import Finding, Patient
from proxy.doctor.rulefiles import may_read, rules_of
from rules.errors import RuleSyntaxError
from rules.ruleset import App

_OCTETS = 4 << 20  # of a file, as the issuer reads it (proxy.issuing.evidence)
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")
_NEW = "take the vendor's present one; its TPMs are refused until then"


def ek_roots(patient: Patient) -> Iterator[Finding]:
    """Find files of `attestation.ek_roots` that cannot be used, or that others may write."""
    for name in patient.settings.attestation.ek_roots:
        path = Path(name)
        try:
            yield from _writers(path, patient)
            yield from _root(path, patient)
        except PermissionError as error:
            yield unreadable(error)
        except FileNotFoundError:
            message = f"{path} of attestation.ek_roots is not there: no TPM can be enrolled"
            yield Finding("error", message, "put it there, or correct the path")
        except (OSError, ValueError) as error:
            message = f"{path} of attestation.ek_roots cannot be used: {error}"
            yield Finding("error", message, "write the vendors' certificates into it, in PEM")


def attestable(patient: Patient) -> Iterator[Finding]:
    """Find rules that require what nobody can prove here, whatever the agent does."""
    try:
        files = rules_of(patient, system=patient.settings.system)
    except RuleSyntaxError:  # the check `rules` tells of it
        return
    apps = () if files is None else tuple(files.loaded.ruleset.apps.values())
    listen = patient.settings.listen
    requiring = [app for app in apps if app.max_ages_s]
    if requiring and not (listen.proxy_tls or listen.doh):
        message = (
            f"nobody can attest, and {_named(requiring)} must: it takes a connection with a"
            " certificate, and neither proxy_tls nor doh listens"
        )
        yield Finding("error", message, "give listen.proxy_tls or listen.doh an address")
    quoting = [app for app in apps if app.reference_values.pcrs]
    if quoting and not patient.settings.attestation.ek_roots:
        message = (
            f"no TPM can be enrolled, and there are reference_values.pcrs of {_named(quoting)}"
        )
        cure = "name the root of the TPM's vendor in attestation.ek_roots"
        yield Finding("warning", message, cure)


def _named(apps: list[App]) -> str:
    """Return the first of the apps, and how many more there are."""
    more = f" and {len(apps) - 1} more" if len(apps) > 1 else ""
    return f"the app {apps[0].name}{more}"


def _writers(path: Path, patient: Patient) -> Iterator[Finding]:
    for each in (path.absolute(), *path.absolute().parents):
        who = foreign_writers(each, {0, patient.uid})
        if who is not None:
            message = f"{each}: {who}, and with it whose TPMs are believed"
            yield Finding("error", message, f"chown root {each}; chmod go-w {each}")


def _root(path: Path, patient: Patient) -> Iterator[Finding]:
    found = path.stat()
    if not S_ISREG(found.st_mode):
        raise ValueError("it is no regular file")
    if not may_read(path, patient.uid):
        message = f"{path} of attestation.ek_roots cannot be read by uid {patient.uid}, as we run"
        yield Finding("error", message, f"chmod a+r {path}: it holds nothing secret")
        if patient.uid == os.geteuid():
            return
    for number, not_after in enumerate(_ends(path), 1):
        if not_after <= patient.now:
            message = f"certificate {number} of {path} has expired"
            yield Finding("warning", message, _NEW)


def _ends(path: Path) -> list[float]:
    """Return when each certificate of a file ends (Unix time).

    Raises:
        OSError: it cannot be read.
        ValueError: it holds none, or something else.
    """
    with path.open("rb") as file:
        octets = file.read(_OCTETS + 1)
    if len(octets) > _OCTETS:
        raise ValueError(f"it has more than {_OCTETS} octets")
    pems = _PEM.findall(octets.decode("ascii", "replace"))
    if not pems:
        raise ValueError("it holds no certificate in PEM")
    try:
        found = [read_signed(ssl.PEM_cert_to_DER_cert(each)).certificate for each in pems]
        return [each.not_valid_after_utc.timestamp() for each in found]
    except UNREADABLE as error:
        raise ValueError(f"one of its certificates is none ({error})") from None
