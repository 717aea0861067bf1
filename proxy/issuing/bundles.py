"""Whom to believe: our own bundle and those of other trust domains, as each reader wants them."""

from collections.abc import Callable

import msgspec
from msgspec import Struct

from certs.bundle import Bundle, parse_bundle
from certs.jwks import JWT_SVID
from certs.trust_domain import TrustDomain
from proxy.channel import Trust
from proxy.issuing.caller import Watched


class _Key(Struct):
    use: str = ""


class _Document(Struct):
    keys: list[msgspec.Raw]


class Bundles(Watched):
    """The bundles by trust domain; streams that watch them look again when one has changed."""

    def __init__(self) -> None:
        super().__init__()
        self._anchors: dict[str, tuple[bytes, ...]] = {}
        self._pem: dict[str, str] = {}
        self._jwks: dict[str, bytes] = {}
        self._others: dict[str, Bundle] = {}
        self._octets: dict[str, bytes] = {}
        self._problems: dict[str, str] = {}
        self._tell: Callable[[Trust], object] | None = None
        self.own_name = ""
        self.version = 0
        """Grows with each change."""

    def own(self, domain: TrustDomain) -> None:
        """Take our own bundle from `domain`."""
        self.own_name = domain.name
        self._take(domain.name, domain.anchors, domain.anchors_pem, domain.jwt_jwks())

    def other(self, trust_domain: str, octets: bytes) -> Bundle:
        """Take the bundle of another trust domain, as SPIFFE JWKS or PEM.

        Raises:
            SpiffeError: it is none; the one before stays.
        """
        known = self._others.get(trust_domain)
        if known is not None and self._octets.get(trust_domain) == octets:
            self._mended(trust_domain)
            return known
        bundle = parse_bundle(octets, trust_domain)
        if known is not None and 0 < bundle.sequence < known.sequence:
            return known  # Trust Domain and Bundle, section 4.1.3: it is older than what we have
        self._others[trust_domain], self._octets[trust_domain] = bundle, octets
        self._problems.pop(trust_domain, None)
        jwks = _jwt_keys(octets) if bundle.jwt_keys else b""
        self._take(trust_domain, bundle.anchors, bundle.pem, jwks)
        return bundle

    def failed(self, trust_domain: str, problem: str) -> None:
        """Remember what is wrong with a bundle; the one before is believed further."""
        if self._problems.get(trust_domain) != problem:
            self._problems[trust_domain] = problem
            self._stirred()

    @property
    def anchors(self) -> dict[str, tuple[bytes, ...]]:
        """The roots by trust domain, as DER; ours first."""
        return self._anchors

    @property
    def pem(self) -> dict[str, str]:
        """The same as PEM."""
        return self._pem

    @property
    def jwt_documents(self) -> dict[str, bytes]:
        """JWKS documents with the JWT keys alone, of the trust domains that have any."""
        return self._jwks

    @property
    def others(self) -> dict[str, Bundle]:
        """The bundles of others."""
        return self._others

    @property
    def trust(self) -> Trust:
        """What the appliance is told."""
        return Trust(dict(self._pem), "; ".join(self._problems.values()))

    def tell(self, tell: Callable[[Trust], object]) -> None:
        """Call `tell` with what the appliance is told, now and at each change."""
        self._tell = tell
        tell(self.trust)

    def _mended(self, trust_domain: str) -> None:
        if self._problems.pop(trust_domain, None) is not None:
            self._stirred()

    def _take(self, name: str, anchors: tuple[bytes, ...], pem: str, jwks: bytes) -> None:
        if anchors:
            self._anchors[name], self._pem[name] = anchors, pem
        else:
            self._anchors.pop(name, None)
            self._pem.pop(name, None)
        if jwks:
            self._jwks[name] = jwks
        else:
            self._jwks.pop(name, None)
        self._stirred()

    def _stirred(self) -> None:
        self.version += 1
        self.stir()
        if self._tell is not None:
            self._tell(self.trust)


def _jwt_keys(octets: bytes) -> bytes:
    """Return the JWT keys of a SPIFFE bundle that has been read, as a document of their own."""
    keys = msgspec.json.decode(octets, type=_Document).keys
    kept = [each for each in keys if msgspec.json.decode(each, type=_Key).use == JWT_SVID]
    return msgspec.json.encode(_Document(kept))
