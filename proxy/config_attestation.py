"""`attestation:` as settings: how long a result counts, and whose TPMs are believed."""

from collections.abc import Callable

from msgspec import Struct

from proxy.config_keys import AttestationKeys
from proxy.units import read_seconds

TTL_S = 300  # five minutes; a client attests anew before (docs/attestation.md)
LEAST_TTL_S, MOST_TTL_S = 30, 3600


class AttestationSettings(Struct, frozen=True):
    """`ttl_s` is how long a result counts (seconds); rules may ask for a younger one.

    `ek_roots` are PEM files of the authorities that certify endorsement keys; without any no TPM
    is believed.
    """

    ttl_s: int = TTL_S
    ek_roots: tuple[str, ...] = ()


def read_attestation(
    keys: AttestationKeys, problem: Callable[[str, str, str], None]
) -> AttestationSettings:
    """Return the settings of `attestation:`; `problem(key, text, cure)` is told what is wrong."""
    return AttestationSettings(_ttl(keys.ttl, problem), _roots(keys.ek_roots, problem))


def _ttl(value: int | str | None, problem: Callable[[str, str, str], None]) -> int:
    key = "attestation.ttl"
    try:
        ttl_s = int(read_seconds(TTL_S if value is None else value))
    except ValueError as error:
        problem(key, str(error), "see docs/configuration.md")
        return TTL_S
    if not LEAST_TTL_S <= ttl_s <= MOST_TTL_S:
        problem(key, f"{ttl_s} s is no life of an attestation result", "write 30s to 1h")
        return TTL_S
    return ttl_s


def _roots(value: list[str] | None, problem: Callable[[str, str, str], None]) -> tuple[str, ...]:
    if value is not None and not value:
        problem("attestation.ek_roots", "it names no file", "name one, or take the key away")
    return tuple(value or ())
