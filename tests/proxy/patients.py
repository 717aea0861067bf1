"""Installations for the doctor: settings in folders of a test, and nothing wrong with them."""

import os
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from proxy.config import Listen, Locations, Settings, read_config
from proxy.doctor.patient import Finding, Patient
from rules.text import SourceText


def settings_in(folder: Path, text: str = "") -> Settings:
    """Return the settings that `text` asks for; no listener where it names none."""
    places = Locations(str(folder / "config"), str(folder / "state"), str(folder / "run"))
    settings, problems = read_config(SourceText("sallyport.yaml", text), places)
    assert problems == []
    settings = msgspec.structs.replace(settings, config_file=None)
    if "listen:" not in text:
        return msgspec.structs.replace(settings, listen=silent())
    if "proxy_tls:" in text:
        return settings
    listen = msgspec.structs.replace(settings.listen, proxy_tls=())  # its port may be another's
    return msgspec.structs.replace(settings, listen=listen)


def silent() -> Listen:
    """Return no listener at all."""
    return Listen(do53=(), dot=(), doh=(), proxy=(), metrics=())


def patient_in(folder: Path, text: str = "", **changed: object) -> Patient:
    """Return such an installation, now, owned by who runs the test."""
    found = Patient(
        settings=settings_in(folder, text), environ={}, now=time.time(), uid=os.geteuid()
    )
    return msgspec.structs.replace(found, **changed)


def only(findings: Iterable[Finding]) -> Finding:
    """Return the one finding that a check gave."""
    (found,) = findings
    assert found.cure
    return found
