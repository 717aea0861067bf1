"""What goes wrong with a TPM on the agent's side, in words of what to do.

The library is large and comes with the extra `tpm`: it is imported where a TPM is opened.
"""

import importlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from proxy.errors import ProxyError

_EXTRA = "a TPM needs the extra `tpm`, which is not installed here: pip install 'sallyport[tpm]'"
_PASSWORD = "a hierarchy of this TPM has a password, and attesting has none: `tpm2_changeauth -c e`"  # noqa: S105 - a text for people
_CURES = {  # TPM 2.0, part 2, section 6.6.3, without handle, parameter and session
    0x08E: _PASSWORD,
    0x0A2: _PASSWORD,
    0x09F: "the credential is not for the EK and the AK of this TPM: enrol again",
    0x100: "the TPM was not started: `tpm2_startup -c` does it",
    0x902: "the TPM has no room for another key: use /dev/tpmrm0, or `tpm2_flushcontext -t`",
    0x921: "the TPM is locked after wrong passwords: `tpm2_dictionarylockout -c` ends it",
}


class TpmError(ProxyError):
    """The TPM cannot be used; the text says why, and what to do."""


def load() -> ModuleType:
    """Return the library.

    Raises:
        TpmError: it is not installed.
    """
    os.environ.setdefault("TSS2_LOG", "all+NONE")  # it writes to stderr what we say in our words
    try:
        importlib.import_module("tpm2_pytss.utils")  # which the package itself does not
        return importlib.import_module("tpm2_pytss")
    except ImportError:
        raise TpmError(_EXTRA) from None


@contextmanager
def explained(library: ModuleType) -> Iterator[None]:
    """Turn what the library raises into what to do."""
    try:
        yield
    except library.TSS2_Exception as error:
        text = _CURES.get(error.error, f"the TPM refuses: {error}")
        raise TpmError(text) from None


def why_closed(tcti: str) -> str:
    """Return why the TPM that `tcti` names could not be opened."""
    found = re.fullmatch(r"(?:device:)?(/.*)", tcti)
    if found is None:
        return f"no TPM answers at {tcti}: is it running, and is the name spelt as tpm2-tools do?"
    path = Path(found[1])
    if not path.exists():
        return f"no TPM at {path}: switch it on in the firmware, or attest with a software key"
    if not os.access(path, os.R_OK | os.W_OK):
        return f"{path} is not for this user: `usermod -a -G tss USER`, and log in again"
    return f"{path} is no TPM 2.0, or another program has it: /dev/tpmrm0 is for many at once"
