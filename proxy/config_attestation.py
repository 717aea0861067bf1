"""`attestation:` as settings: how long a result counts, and whose TPMs are believed."""

from collections.abc import Callable

from msgspec import Struct

from proxy.config_keys import AttestationKeys
from proxy.units import Life

TTL_S = 300  # five minutes; a client attests anew before (docs/attestation.md)
LEAST_TTL_S, MOST_TTL_S = 30, 3600
_LIFE = Life("an attestation result", TTL_S, LEAST_TTL_S, MOST_TTL_S, "write 30s to 1h")


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
    return AttestationSettings(
        _LIFE.read("attestation.ttl", keys.ttl, problem), _roots(keys.ek_roots, problem)
    )


def _roots(value: list[str] | None, problem: Callable[[str, str, str], None]) -> tuple[str, ...]:
    if value is not None and not value:
        problem("attestation.ek_roots", "it names no file", "name one, or take the key away")
    return tuple(value or ())
