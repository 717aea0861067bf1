"""The certificate of an EK, and one above it: `EvidenceError` is allowed."""

import datetime as dt

from cryptography.hazmat.primitives.asymmetric import ec

from certs.endorsement import verify_endorsement
from certs.errors import EvidenceError
from tests.swtpm import Vendor

_NOW = dt.datetime.now(dt.UTC)
_VENDOR = Vendor()
_KEY = ec.generate_private_key(ec.SECP256R1()).public_key()
_EK, _ABOVE, _ROOT = _VENDOR.endorse(_KEY), _VENDOR.above[0], _VENDOR.root
SEEDS: tuple[bytes, ...] = (_EK, _ABOVE, _ROOT)


def target(data: bytes) -> None:
    """Whatever is changed: the key is that which the vendor signed."""
    for sent, roots in (
        ((data, _ABOVE), (_ROOT,)),
        ((_EK, data), (_ROOT,)),
        ((_EK, _ABOVE), (data,)),
    ):
        try:
            found = verify_endorsement(sent, roots, _NOW)
        except EvidenceError:
            continue
        assert found.key == _KEY
