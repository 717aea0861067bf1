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
    return settings if "listen:" in text else msgspec.structs.replace(settings, listen=silent())


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
