"""Whom to believe: the trust anchors of each trust domain, our own and those federated with it.

One set of anchors is given to OpenSSL, for it knows nothing of trust domains.  So each verified
chain is looked at once more: it names nobody of a trust domain that its anchor is not of.
"""

import re
import ssl
from collections.abc import Callable, Collection, Mapping

from proxy.errors import ConfigError, PeerError
from proxy.wire.certificate import read_certificate

ANCHORS = 64  # of all trust domains, each 0.4 ms a context; SPIRE keeps two or three of each

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")


class TrustBundles:
    """Trust anchors by trust domain; `epoch` changes with them."""

    def __init__(self) -> None:
        self.epoch = 0
        self._domains: dict[bytes, frozenset[str]] = {}  # of an anchor's DER
        self._below: tuple[bytes, ...] = ()
        self._changed: list[Callable[[], object]] = []

    def use(self, bundles: Mapping[str, str]) -> bool:
        """Believe exactly these PEM certificates by trust domain; return whether that is new.

        Raises:
            ConfigError: one of them cannot be read, or all have too many anchors; what was
                believed before still is.
        """
        domains: dict[bytes, frozenset[str]] = {}
        for domain, text in bundles.items():
            for anchor in read_anchors(domain, text, domains):
                domains[anchor] = domains.get(anchor, frozenset()) | {domain}
        if domains == self._domains:
            return False
        self._domains = domains
        self._tell()
        return True

    def complete(self, text: str) -> bool:
        """Know our own intermediates (PEM), for clients that show a leaf alone; whether it is new.

        Browsers do so, where a server names no authorities.  Nobody is believed for it: a chain
        ends at an anchor all the same.

        Raises:
            ConfigError: they cannot be read; what was known before still is.
        """
        below = tuple(read_anchors("intermediates", text)) if text else ()
        if below == self._below:
            return False
        self._below = below
        self._tell()
        return True

    @property
    def anchors(self) -> tuple[bytes, ...]:
        """Every anchor once, as DER."""
        return tuple(self._domains)

    @property
    def store(self) -> tuple[bytes, ...]:
        """What OpenSSL is to build chains of: the anchors, and our intermediates."""
        return tuple(dict.fromkeys((*self._domains, *self._below)))

    @property
    def trust_domains(self) -> frozenset[str]:
        """The trust domains whose anchors are known."""
        return frozenset().union(*self._domains.values())

    def domains_of(self, anchor: bytes) -> frozenset[str]:
        """Return the trust domains that the certificate `anchor` (DER) may vouch for."""
        return self._domains.get(anchor, frozenset())

    def on_change(self, callback: Callable[[], object]) -> None:
        """Call `callback` whenever other anchors are believed: contexts need to be made anew."""
        self._changed.append(callback)

    def _tell(self) -> None:
        self.epoch += 1
        for callback in self._changed:
            callback()


def read_anchors(domain: str, text: str, others: Collection[bytes] = ()) -> list[bytes]:
    """Return the certificates (DER) in a text; `others` are anchors that are known already.

    Raises:
        ConfigError: they cannot be read, or are too many with those.
    """
    found = _PEM.findall(text)
    if not found or len(found) > ANCHORS:
        raise ConfigError(
            f"the trust bundle of {domain} has {len(found)} certificates, and must have 1 to "
            f"{ANCHORS}: give it as PEM"
        )
    try:
        anchors = [ssl.PEM_cert_to_DER_cert(each) for each in found]
        for anchor in anchors:
            read_certificate(anchor)  # a chain that ends there is read as well
    except (ValueError, PeerError) as error:
        raise ConfigError(
            f"the trust bundle of {domain} cannot be used ({error}): get it again"
        ) from None
    count = len({*anchors, *others})
    if count > ANCHORS:
        raise ConfigError(
            f"with the trust bundle of {domain} there are {count} anchors, and {ANCHORS} at most "
            "are believed: have it keep fewer roots, or take some out of identity.federation"
        )
    return anchors
