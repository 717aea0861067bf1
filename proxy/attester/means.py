"""From what the command line names to an attester: where, with which certificate, by what."""

import re
import ssl
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from certs.attester_key import ensure_attester_key
from proxy.attester.attester import Attester, Claimed
from proxy.attester.certificate import OwnCertificate
from proxy.attester.errors import UnusableError
from proxy.attester.evidence import Evidence, Launched, Software, TpmQuote
from proxy.attester.place import api_place, proxy_place
from proxy.attester.tpm_device import Tpm

CHAIN, KEY, CA = "svid.pem", "svid.key", "ca.pem"
"""What `sallyport enroll`, `svid` and `admin` write."""
ATTESTER_KEY = "attester.key"
DEFAULT_URL, DEFAULT_PROXY = "https://127.0.0.1:8443", "http://127.0.0.1:3128"
DEFAULT_PCRS = (0, 7, 16)
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")
_MOST_PCR = 23  # TCG PC Client Platform TPM Profile, section 4.6: 24 registers


class Means(Struct, frozen=True):
    """What the command line says; `state` is our folder, where the rest is looked for."""

    state: Path
    url: str = ""
    proxy: str = ""
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    folder: Path | None = None
    attester_key: Path | None = None
    tpm: str = ""
    pcrs: tuple[int, ...] = DEFAULT_PCRS
    ek_chain: Path | None = None
    launched: bool = False
    claimed: Claimed = Claimed()


def open_attester(means: Means) -> Attester:
    """Return the attester; nothing is sent yet.

    Raises:
        UnusableError: a file is missing or an address is none.
        KeystoreError: the attester's key cannot be used.
    """
    if means.launched:
        place = proxy_place(means.proxy or DEFAULT_PROXY, is_plain=True)
        if place.is_tls:
            raise UnusableError("--launched is for the plain port of a lease: http://HOST:PORT")
        return Attester(place, None, Launched(), means.claimed)
    if means.proxy:
        place = proxy_place(means.proxy, is_plain=False)
    else:
        place = api_place(means.url or DEFAULT_URL)
    own = own_certificate(means)
    return Attester(place, own, _evidence(means, own), means.claimed)


def own_certificate(means: Means) -> OwnCertificate:
    """Return the files that are named, or those of the one enrolment that there is.

    Raises:
        UnusableError: it cannot be told which.
    """
    if means.cert is not None and means.key is not None:
        return OwnCertificate(means.cert, means.key, _ca(means, means.cert.parent))
    folder = means.folder or _enrolled(means.state)
    return OwnCertificate(folder / CHAIN, folder / KEY, _ca(means, folder))


def read_pcrs(text: str) -> tuple[int, ...]:
    """Return the registers that `text` lists.

    Raises:
        ValueError: it is none, or one is there twice.
    """
    numbers = [int(each) for each in text.split(",") if each.isascii() and each.isdigit()]
    found = tuple(sorted(set(numbers)))
    if not found or len(found) != text.count(",") + 1 or found[-1] > _MOST_PCR:
        raise ValueError(f"{text!r} is no list of registers: write 0,7,16")
    return found


def _evidence(means: Means, own: OwnCertificate) -> Evidence:
    if means.tpm:
        chain = () if means.ek_chain is None else _certificates(means.ek_chain)
        return TpmQuote(lambda: Tpm(means.tpm, chain), means.pcrs)
    return Software(ensure_attester_key(means.attester_key or own.key.parent / ATTESTER_KEY))


def _certificates(path: Path) -> tuple[bytes, ...]:
    """Return those of a PEM file, DER."""
    try:
        texts = _PEM.findall(path.read_text("ascii"))
        found = tuple(ssl.PEM_cert_to_DER_cert(each) for each in texts)
    except (OSError, ValueError):
        found = ()
    if not found:
        raise UnusableError(f"{path} is no file of PEM certificates: name another --ek-chain")
    return found


def _enrolled(state: Path) -> Path:
    places: Sequence[Path] = sorted((state / "enrolled").glob(f"*/{CHAIN}"))
    if len(places) == 1:
        return places[0].parent
    found = f"there are {len(places)} certificates" if places else "there is no certificate"
    raise UnusableError(f"{found} in {state / 'enrolled'}: enrol, or name --folder")


def _ca(means: Means, folder: Path) -> Path:
    for each in (means.ca, folder / CA, means.state / "ca" / "root.pem"):
        if each is not None and (each == means.ca or each.is_file()):
            return each
    raise UnusableError("who is trusted is not known: name --ca (`sallyport ca export`)")
