"""What a person is told who has no TPM, or may not use it; no TPM is needed here."""

import os
import sys
from pathlib import Path

import pytest

from proxy.attester.tpm_device import Tpm
from proxy.attester.tpm_errors import TpmError, load, why_closed
from proxy.errors import ProxyError


def test_names_the_extra_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tpm2_pytss", None)
    monkeypatch.setitem(sys.modules, "tpm2_pytss.utils", None)
    for start in (load, Tpm):
        with pytest.raises(TpmError, match=r"pip install 'sallyport\[tpm\]'"):
            start()


def test_is_an_error_that_the_command_line_prints() -> None:
    assert issubclass(TpmError, ProxyError)


@pytest.mark.parametrize("prefix", ["", "device:"])
def test_says_that_the_device_is_not_there(tmp_path: Path, prefix: str) -> None:
    text = why_closed(f"{prefix}{tmp_path / 'tpmrm0'}")
    assert text.startswith(f"no TPM at {tmp_path / 'tpmrm0'}: switch it on")


def test_says_who_may_use_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "tpmrm0"
    device.touch()
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may use everything
    assert "usermod -a -G tss" in why_closed(f"device:{device}")


def test_says_that_the_device_is_something_else() -> None:
    assert why_closed("device:/dev/null").startswith("/dev/null is no TPM 2.0")


def test_says_how_tpms_are_named() -> None:
    for tcti in ("swtpm:port=1", "nonsense", ""):
        assert why_closed(tcti).startswith(f"no TPM answers at {tcti}: is it running")
