"""Evidence (RFC 9334) verified, and what came of it signed: answers to the appliance's questions.

A question a turn of the loop, so that workloads have theirs.  What an agent sent is at worst a bug
of ours that is logged: it ends nothing.
"""

import asyncio
import datetime as dt
import logging
import os
import re
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import assert_never

from msgspec import structs

from certs.credential import make_credential
from certs.endorsement import verify_endorsement
from certs.errors import CertsError, EvidenceError, KeystoreError
from certs.quote import verify_quote
from certs.software_key import verify_signature
from proxy.channel import Challenge, Challenged, SignClaims, SignedClaims, Verified, Verify

logger = logging.getLogger(__name__)

SOFTWARE, TPM = "software", "tpm"
MOST_ROOTS_OCTETS = 4 << 20  # of a file; the roots of every maker of TPMs have 1 MiB
_BUG = "a bug of ours; please report it"
_TOO_LONG = "the answer does not fit the channel: ask for less"
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")

type Asked = Verify | Challenge | SignClaims
type Answered = Verified | Challenged | SignedClaims
type Stamp = tuple[tuple[int, int, int], ...]


class Docket:
    """Answers questions by `answer`, one a turn; the appliance bounds how many there are."""

    def __init__(
        self, answer: Callable[[Asked], Answered], send: Callable[[Answered], object]
    ) -> None:
        self._answer = answer
        self._send = send
        self._waiting: deque[Asked] = deque()

    def take(self, asked: Asked) -> None:
        """Answer `asked` soon; needs a running loop."""
        self._waiting.append(asked)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._work)

    def _work(self) -> None:
        asked = self._waiting[0]
        try:
            self._send(self._answered(asked))
        except ValueError:
            self._send(unanswered(asked, _TOO_LONG))
        self._waiting.popleft()
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._work)

    def _answered(self, asked: Asked) -> Answered:
        try:
            return self._answer(asked)
        except EvidenceError as error:
            return failed(asked, str(error))
        except CertsError as error:  # our keys, files or clock, not what was asked
            return unanswered(asked, str(error))
        except Exception:
            logger.exception(_BUG)
            return unanswered(asked, _BUG)


class Roots:
    """The authorities that certify endorsement keys: PEM files, read again when one changes."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = tuple(map(Path, paths))
        self._stamp: Stamp | None = None
        self._known: tuple[bytes, ...] = ()
        self._said = ""

    def read(self) -> tuple[bytes, ...]:
        """Return the certificates, DER; none where no file is named.

        Raises:
            KeystoreError: a file cannot be read; the log says which.
        """
        try:
            stamp = tuple(map(_stamp, self._paths))
            if stamp != self._stamp:
                self._known = tuple(der for path in self._paths for der in _read(path))
                self._stamp = stamp
        except (OSError, ValueError) as error:
            self._stamp = None
            self._warn(str(error))
            raise KeystoreError(
                "the roots of TPMs (attestation.ek_roots) cannot be read here: the log says why"
            ) from None
        return self._known

    def _warn(self, problem: str) -> None:
        """Say a problem once: whoever attests would fill the log else."""
        if problem != self._said:
            self._said = problem
            logger.warning("attestation.ek_roots cannot be used: %s", problem)


def verified(asked: Verify) -> Verified:
    """Return what the evidence says, whose signature holds.

    Raises:
        EvidenceError: it does not.
    """
    if asked.kind == SOFTWARE:
        digest = verify_signature(asked.key, asked.signature, asked.message)
        return Verified(asked.call, key_sha256=digest)
    if asked.kind != TPM:
        raise EvidenceError(f"evidence is {SOFTWARE} or {TPM} here")
    quoted = verify_quote(asked.key, asked.quote, asked.signature, asked.message, asked.pcrs)
    return Verified(asked.call, **structs.asdict(quoted))


def challenged(asked: Challenge, roots: Sequence[bytes], now: dt.datetime) -> Challenged:
    """Return a credential that the TPM of that EK alone can open.

    Raises:
        EvidenceError: the EK's certificate is not one of `roots`', or the AK is none.
    """
    endorsement = verify_endorsement(asked.certificates, roots, now)
    made = make_credential(endorsement, asked.ak, asked.secret)
    return Challenged(
        asked.call,
        credential=made.credential,
        seed=made.seed,
        name=made.name,
        ek_sha256=endorsement.ek_sha256,
    )


def failed(asked: Asked, problem: str, *, unanswered: bool = False) -> Answered:
    """Return the answer that says why what was asked for cannot be."""
    match asked:
        case Verify():
            return Verified(asked.call, problem=problem, unanswered=unanswered)
        case Challenge():
            return Challenged(asked.call, problem=problem, unanswered=unanswered)
        case SignClaims():
            return SignedClaims(asked.call, problem=problem, unanswered=unanswered)
        case _:
            assert_never(asked)


def unanswered(asked: Asked, problem: str) -> Answered:
    """Return the answer that says why there is none, which says nothing of what was asked."""
    return failed(asked, problem, unanswered=True)


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


def _read(path: Path) -> list[bytes]:
    """Return the certificates in a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds none, or is too large.
    """
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > MOST_ROOTS_OCTETS:
            raise ValueError(f"{path} has more than {MOST_ROOTS_OCTETS} octets")
        text = file.read(MOST_ROOTS_OCTETS).decode("ascii", "replace")
    found = [ssl.PEM_cert_to_DER_cert(each) for each in _PEM.findall(text)]
    if not found:
        raise ValueError(f"{path} holds no certificate in PEM")
    return found
