"""What each kind of certificate may be used for, as data.

The names of usages are those of RFC 5280, sections 4.2.1.3 and 4.2.1.12.  Lives are in seconds.
"""

from typing import Literal

from msgspec import Struct

SVID_TTL_S, LEAST_TTL_S, MOST_TTL_S = 3600, 300, 86400
"""The life of an X.509-SVID: SPIRE's default, its agents' least, and a day."""
JWT_TTL_S, LEAST_JWT_TTL_S, MOST_JWT_TTL_S = 300, 30, 3600
"""The life of a JWT-SVID: a bearer's secret, hence short; 5 minutes is SPIRE's default."""
SKEW_S = 60
"""How far a certificate is dated back, for clocks behind ours; SPIRE: 10 s, Let's Encrypt: 1 h."""
_DAY_S = 86400

type Usage = Literal["digital_signature", "key_cert_sign", "crl_sign"]
type Purpose = Literal["client_auth", "server_auth"]


class Profile(Struct, frozen=True):
    """One kind of certificate; `is_svid`: it names a SPIFFE ID, and is asked for by that.

    `path_length` counts the authorities that may stand below it; None: it is no authority.
    `life_s` is the life where none is asked for; what is asked lies in `least_s` to `most_s`.
    """

    name: str
    usages: tuple[Usage, ...]
    purposes: tuple[Purpose, ...]
    life_s: int
    least_s: int
    most_s: int
    path_length: int | None = None
    skew_s: int = SKEW_S
    is_svid: bool = False


def _fixed(name: str, days: int, path_length: int) -> Profile:
    return Profile(
        name=name,
        # X509-SVID, section 4.3: keyCertSign for authorities alone; cRLSign for our CRL
        usages=("key_cert_sign", "crl_sign"),
        purposes=("client_auth", "server_auth"),
        life_s=days * _DAY_S,
        least_s=days * _DAY_S,
        most_s=days * _DAY_S,
        path_length=path_length,
        skew_s=3600,
    )


def _server(name: str, life_s: int, most_s: int) -> Profile:
    return Profile(name, ("digital_signature",), ("server_auth",), life_s, LEAST_TTL_S, most_s)


ROOT = _fixed("root", days=3652, path_length=1)
INTERMEDIATE = _fixed("intermediate", days=90, path_length=0)
SVID = Profile(
    name="svid",
    usages=("digital_signature",),  # X509-SVID, section 4.3
    purposes=("client_auth", "server_auth"),  # X509-SVID, section 4.4
    life_s=SVID_TTL_S,
    least_s=LEAST_TTL_S,
    most_s=MOST_TTL_S,
    is_svid=True,
)
ADMIN = Profile(
    name="admin",
    usages=("digital_signature",),
    # Who administers serves nobody.  X509-SVID, section 4.4 asks for both; we alone look at these
    purposes=("client_auth",),
    life_s=SVID_TTL_S,
    least_s=LEAST_TTL_S,
    most_s=MOST_TTL_S,
    is_svid=True,
)
SERVER = _server("server", life_s=180 * _DAY_S, most_s=180 * _DAY_S)
INSPECTION = _server("inspection", life_s=_DAY_S, most_s=7 * _DAY_S)

PROFILES: dict[str, Profile] = {
    each.name: each for each in (ROOT, INTERMEDIATE, SVID, ADMIN, SERVER, INSPECTION)
}
