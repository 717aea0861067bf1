"""`identity:` as settings: the trust domain, whom else to believe, and who may enrol."""

from collections.abc import Callable

from msgspec import Struct

from certs.errors import SpiffeError
from certs.profile import LEAST_TTL_S, MOST_TTL_S, SVID_TTL_S
from certs.spiffe import check_own_trust_domain, check_trust_domain, parse_id, workload_id
from proxy.config_keys import FederatedKeys, IdentityKeys, OidcKeys
from proxy.units import Life

TRUST_DOMAIN = "sallyport.internal"
_LIFE = Life("an SVID", SVID_TTL_S, LEAST_TTL_S, MOST_TTL_S, "write 5m to 24h")
MOST_FEDERATED = 32  # a Trust message holds them all; SPIRE sets no bound


class Federated(Struct, frozen=True):
    """Where the bundle of another trust domain comes from: a `file`, or a `url` (HTTPS).

    `ca` is a PEM file that verifies the server of `url`; None: the system's.
    """

    file: str | None = None
    url: str | None = None
    ca: str | None = None


class Oidc(Struct, frozen=True):
    """The OpenID provider that approves enrolments (RFC 8628).

    `apps` says which claims of the ID token open which app: `{app: {claim: value}}`.
    """

    issuer: str
    client_id: str
    apps: dict[str, dict[str, str]]
    ca: str | None = None


class IdentitySettings(Struct, frozen=True):
    """What the trust domain is, and how long its certificates live (seconds).

    `key_file` has the passphrase of the keys on the disk.  `workload_api` is the socket of
    another SPIFFE implementation that takes our issuer's place.  `admins` are the SPIFFE IDs that
    may use the control API over TLS; none: those below /sallyport/admin/ of our trust domain.
    """

    trust_domain: str = TRUST_DOMAIN
    svid_ttl_s: int = SVID_TTL_S
    key_file: str | None = None
    federation: dict[str, Federated] = {}
    workload_api: str | None = None
    oidc: Oidc | None = None
    admins: tuple[str, ...] = ()


def read_identity(keys: IdentityKeys, problem: Callable[[str, str, str], None]) -> IdentitySettings:
    """Return the settings of `identity:`; what is wrong is told by `problem(key, text, cure)`."""
    domain = keys.trust_domain or TRUST_DOMAIN
    try:
        check_own_trust_domain(domain)
    except SpiffeError as error:
        problem("identity.trust_domain", str(error), "write a host name, such as desk.example")
    for at, admin in enumerate(keys.admins or ()):
        try:
            workload_id(admin, parse_id(admin).trust_domain)
        except SpiffeError as error:
            problem(f"identity.admins.{at}", str(error), "write spiffe://TRUST-DOMAIN/PATH")
    if keys.workload_api is not None:
        for name in ("federation", "oidc"):
            if getattr(keys, name):  # better said than not done
                cure = "take it away, or `workload_api`; SPIRE federates and enrols by itself"
                problem(f"identity.{name}", "it is of no use where another one issues", cure)
    return IdentitySettings(
        trust_domain=domain,
        svid_ttl_s=_LIFE.read("identity.svid_ttl", keys.svid_ttl, problem),
        key_file=keys.key_file,
        federation=_federation(keys.federation or {}, domain, problem),
        workload_api=None if keys.workload_api is None else keys.workload_api.removeprefix("unix:"),
        oidc=None if keys.oidc is None else _oidc(keys.oidc, problem),
        admins=tuple(keys.admins or ()),
    )


def _check_domain(key: str, name: str, problem: Callable[[str, str, str], None]) -> None:
    try:
        check_trust_domain(name)
    except SpiffeError as error:
        cure = "write a name of lower-case letters, digits, dots, dashes and underscores"
        problem(key, str(error), cure)


def _federation(
    keys: dict[str, FederatedKeys], ours: str, problem: Callable[[str, str, str], None]
) -> dict[str, Federated]:
    found = {}
    for name, each in keys.items():
        key = f"identity.federation\0{name}"
        _check_domain(key, name, problem)
        if name == ours:
            problem(key, "this is our own trust domain", "name another one")
        if (each.file is None) == (each.url is None):
            problem(key, "a bundle comes from a file or from a URL", "write `file:` or `url:`")
        if each.url is not None and not each.url.startswith("https://"):
            problem(key, "a bundle is fetched over HTTPS", "write https://HOST/PATH")
        found[name] = Federated(each.file, each.url, each.ca)
    if len(found) > MOST_FEDERATED:
        cure = f"name {MOST_FEDERATED} at most"
        problem("identity.federation", "too many trust domains", cure)
    return found


def _oidc(keys: OidcKeys, problem: Callable[[str, str, str], None]) -> Oidc:
    if not keys.issuer.startswith("https://"):  # OpenID Connect Core, section 2: iss
        problem("identity.oidc.issuer", "an issuer is an HTTPS URL", "write https://HOST/PATH")
    for app, claims in keys.apps.items():
        if not claims:  # nothing listed is nothing proven
            cure = "write which claims of the ID token open the app, such as {email: a@b.example}"
            problem(f"identity.oidc.apps\0{app}", "no claim is asked for", cure)
    return Oidc(keys.issuer, keys.client_id, keys.apps, keys.ca)
