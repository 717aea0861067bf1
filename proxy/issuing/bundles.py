"""Whom to believe: our own bundle and those of other trust domains, as each reader wants them."""

from collections.abc import Callable

import msgspec
from msgspec import Struct

from certs.bundle import Bundle, parse_bundle
from certs.errors import SpiffeError
from certs.jwks import JWT_SVID
from certs.trust_domain import TrustDomain
from proxy.channel import Trust
from proxy.issuing.caller import Watched

MOST_PEM_OCTETS = 98304  # of all bundles together: half of `channel_socket.MOST_OCTETS`


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
            SpiffeError: it is none, or all are too large together; the one before stays.
        """
        known = self._others.get(trust_domain)
        if known is not None and self._octets.get(trust_domain) == octets:
            self.note(trust_domain, "")
            return known
        bundle = parse_bundle(octets, trust_domain)
        if known is not None and 0 < bundle.sequence < known.sequence:
            return known  # Trust Domain and Bundle, section 4.1.3: it is older than what we have
        self._check_room(trust_domain, bundle.pem)
        self._others[trust_domain], self._octets[trust_domain] = bundle, octets
        self._problems.pop(trust_domain, None)
        jwks = _jwt_keys(octets) if bundle.jwt_keys else b""
        self._take(trust_domain, bundle.anchors, bundle.pem, jwks)
        return bundle

    def failed(self, trust_domain: str, problem: str) -> None:
        """Remember what is wrong with a bundle; the one before is believed further."""
        self.note(trust_domain, problem)

    def note(self, what: str, problem: str) -> bool:
        """Tell of a problem, or with "" that it has passed; return whether that is news.

        `what` is a trust domain, or what can be the name of none.
        """
        if self._problems.get(what, "") == problem:
            return False
        if problem:
            self._problems[what] = problem
        else:
            del self._problems[what]
        self._say()
        return True

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
        """What the appliance is told: "" is a bundle whose roots were taken back.

        What was not had yet is left out: after a restart of ours the appliance believes it further.
        """
        withdrawn = dict.fromkeys(self._others.keys() - self._pem.keys(), "")
        return Trust({**self._pem, **withdrawn}, "; ".join(self._problems.values()))

    def tell(self, tell: Callable[[Trust], object]) -> None:
        """Call `tell` with what the appliance is told, now and at each change."""
        self._tell = tell
        tell(self.trust)

    def _check_room(self, trust_domain: str, pem: str) -> None:
        others = (len(each) for name, each in self._pem.items() if name != trust_domain)
        if pem and sum(others, len(pem)) > MOST_PEM_OCTETS:
            raise SpiffeError(
                f"with the {len(pem)} octets (PEM) of {trust_domain} all bundles have more than "
                f"{MOST_PEM_OCTETS}: have it keep fewer roots, or federate with fewer"
            )

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
        self._say()

    def _say(self) -> None:
        if self._tell is not None:
            self._tell(self.trust)


def _jwt_keys(octets: bytes) -> bytes:
    """Return the JWT keys of a SPIFFE bundle that has been read, as a document of their own."""
    keys = msgspec.json.decode(octets, type=_Document).keys
    kept = [each for each in keys if msgspec.json.decode(each, type=_Key).use == JWT_SVID]
    return msgspec.json.encode(_Document(kept))
