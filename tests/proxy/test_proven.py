"""What is proven of who asks, and results that are presented: never of another connection."""

import datetime as dt
import hashlib
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from proxy.attested.binding import Binding, Kind, of_key
from proxy.attested.known import Attestations
from proxy.attested.result import Result
from proxy.certificates.known import Certificates
from proxy.certificates.read import read_svid
from proxy.certificates.revoked import Revocations
from proxy.certificates.svid import Svid
from proxy.certificates.trust import TrustBundles
from proxy.identify import UNKNOWN, Identifier
from proxy.limits import Limits
from proxy.proven import is_result, is_same, marked
from proxy.sandbox.lease import Lease
from proxy.sandbox.leases import Leases
from proxy.tokens.known import Token, Tokens, digest
from proxy.transport.peer import PeerTable
from proxy.wire.credential import Credential
from rules.decision import Decision, Reason
from rules.facts import Attestation, Evidence, Level, Principal
from rules.ruleset import App, IdentityLine, Requirements, Ruleset
from tests.certs.forgery import TRUST_DOMAIN, WHO, Forger, Wish

AT = dt.datetime(2026, 5, 6, tzinfo=dt.UTC)
ENDS = (("127.0.0.1", 50000), ("127.0.0.1", 3129))
HERE = "127.0.0.1:3129"
OTHER = f"spiffe://{TRUST_DOMAIN}/agent/other"
JWT = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJ4In0.c2ln"
REQUIRE = Requirements(attested=Level.SOFTWARE, max_age_s=300)
CERTIFIED = (Evidence.CERTIFICATE,)

type Chain = tuple[bytes, ...]


class Stand:
    """An identifier that knows certificates, tokens, leases and attestations."""

    def __init__(self, peers: PeerTable) -> None:
        self.at = AT.timestamp()
        self.forger = Forger.loose(TRUST_DOMAIN, AT)
        trust = TrustBundles()
        trust.use({TRUST_DOMAIN: self.forger.anchors})
        self.attestations = Attestations(Limits(), lambda: self.at, lambda _: None)
        self.leases = Leases(Limits(), lambda _: None)
        tokens = Tokens(lambda: self.at)
        tokens.use({digest("t"): Token(id="t.1", name="t", created=0, expires=1e12)}, 0.0)
        self.identifier = Identifier(
            _rules(), peers, tokens,
            Certificates(trust, Revocations(), Limits(), lambda: self.at, lambda _: None),
            self.attestations, self.leases,
        )  # fmt: skip

    def chain(self, spiffe_id: str = WHO, key: ec.EllipticCurvePrivateKey | None = None) -> Chain:
        return self.forger.sign(Wish((spiffe_id,), key=key)).ders

    def attest(
        self,
        binding: Binding,
        app: str = "coder",
        level: Level = Level.SOFTWARE,
        token: str = JWT,
        unique: str = "1",
    ) -> None:
        """Hold a result of this moment, as the verifier does."""
        self.attestations.add(Result(
            unique, hashlib.sha256(token.encode()).hexdigest(), binding, app, WHO, level, "ab",
            self.at, self.at + 300,
        ))  # fmt: skip

    def connected(self, chain: Chain = (), listener: str = HERE) -> Principal | Decision:
        return self.identifier.connected(*ENDS, listener, chain)

    def presented(
        self, chain: Chain = (), listener: str = HERE, token: str = JWT
    ) -> Principal | Decision:
        ambient = self.connected(chain, listener)
        credential = Credential("bearer", "", token)
        return self.identifier.presented(credential, ambient, *ENDS, listener, chain)

    def lend(self, name: str, unique: str) -> tuple[Lease, str]:
        """Grant a lease; return it and the name of its listener."""
        lease = Lease(unique, name)
        self.leases.grant(lease, [lease.listener("proxy")])
        return lease, lease.listener("proxy")


def _rules() -> Ruleset:
    lines = {
        "coder": (IdentityLine("f:1", spiffe=WHO), IdentityLine("f:2", lease="coder")),
        "other": (IdentityLine("f:3", spiffe=OTHER), IdentityLine("f:4", lease="other")),
        "builder": (IdentityLine("f:5", token="t"),),  # noqa: S106 - a name
        "plain": (IdentityLine("f:6", listener="127.0.0.1:3128"),),
    }
    return Ruleset(1, {name: App(name, each, REQUIRE) for name, each in lines.items()})


@pytest.fixture
def stand() -> Iterator[Stand]:
    peers = PeerTable(Limits(), lambda: 2e9, lambda _: None)
    yield Stand(peers)
    peers.close()


def key_of(chain: Chain) -> Binding:
    svid = read_svid(chain)
    assert isinstance(svid, Svid)
    return of_key(svid)


def lease_of(lease: Lease) -> Binding:
    return Binding(Kind.LEASE, lease.id)


def refused(found: Principal | Decision) -> tuple[Reason, str]:
    assert isinstance(found, Decision)
    return found.reason, found.text


PROVEN = (Attestation(Level.SOFTWARE, 300),)


def test_a_connection_with_the_key_is_attested_while_the_result_stands(stand: Stand) -> None:
    chain = stand.chain()
    assert stand.connected(chain) == Principal("coder", CERTIFIED)
    before = stand.identifier.epoch
    stand.attest(key_of(chain))
    assert stand.identifier.epoch != before
    assert stand.connected(chain) == Principal("coder", CERTIFIED, PROVEN)
    assert stand.connected(chain) is stand.connected(chain)  # tables by principal stay few
    stand.at += 301
    stand.attestations.look(stand.at)
    assert stand.connected(chain) == Principal("coder", CERTIFIED)


def test_what_attests_moves_no_epoch_of_names(stand: Stand) -> None:
    """A plane asks the kernel again only where who asks may be somebody else."""
    before, names = stand.identifier.epoch, stand.identifier.naming_epoch
    stand.attest(key_of(stand.chain()))
    assert (stand.identifier.epoch != before, stand.identifier.naming_epoch) == (True, names)
    lease, _ = stand.lend("coder", "a")
    assert stand.identifier.naming_epoch != names
    names = stand.identifier.naming_epoch
    stand.leases.end(lease.id)
    assert stand.identifier.naming_epoch != names


def test_who_was_found_is_told_what_is_proven_by_now(stand: Stand) -> None:
    chain = stand.chain()
    found = stand.connected(chain)
    stand.attest(key_of(chain))
    now = stand.identifier.again(found, HERE, chain)
    assert now == Principal("coder", CERTIFIED, PROVEN)
    stand.attestations.void(lambda _: True)
    assert stand.identifier.again(now, HERE, chain) == found
    denial = stand.connected(stand.chain(f"spiffe://{TRUST_DOMAIN}/nobody"))
    assert stand.identifier.again(denial, HERE, chain) is denial


def test_a_certificate_renewed_on_the_same_key_keeps_its_attestation(stand: Stand) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    first, renewed, fresh = stand.chain(key=key), stand.chain(key=key), stand.chain()
    stand.attest(key_of(first))
    assert first != renewed
    assert stand.connected(renewed) == Principal("coder", CERTIFIED, PROVEN)
    assert stand.connected(fresh) == Principal("coder", CERTIFIED)


def test_a_token_from_before_a_newer_one_is_no_strangers(stand: Stand) -> None:
    """Its agent attested anew: who presents the older one is who it was, and has what is newer."""
    chain = stand.chain()
    stand.attest(key_of(chain))
    stand.at += 200
    stand.attest(key_of(chain), token=f"{JWT}2", unique="2")
    assert stand.presented(chain) == Principal("coder", CERTIFIED, PROVEN)
    stand.at += 100
    assert refused(stand.presented(chain))[0] is Reason.IDENTITY_UNKNOWN  # it has expired
    assert stand.presented(chain, token=f"{JWT}2") == Principal("coder", CERTIFIED, PROVEN)


def test_a_voided_token_is_nobodys_with_all_from_before_it(stand: Stand) -> None:
    chain = stand.chain()
    stand.attest(key_of(chain))
    stand.attest(key_of(chain), token=f"{JWT}2", unique="2")
    stand.attestations.void(lambda _: True)
    for token in (JWT, f"{JWT}2"):
        assert refused(stand.presented(chain, token=token))[0] is Reason.IDENTITY_UNKNOWN


def test_the_attestation_of_an_apps_key_is_none_of_another_app(stand: Stand) -> None:
    """threats.md, "Identity": the attested key of one app, in a certificate of another."""
    key = ec.generate_private_key(ec.SECP256R1())
    stand.attest(key_of(stand.chain(key=key)))
    assert stand.connected(stand.chain(OTHER, key)) == Principal("other", CERTIFIED)
    assert refused(stand.presented(stand.chain(OTHER, key))) == (
        Reason.ATTESTATION_REQUIRED,
        "the result was made for another app; each attests over its own connection, at /attest",
    )


def test_neither_token_nor_listener_is_ever_attested(stand: Stand) -> None:
    stand.attest(Binding(Kind.KEY, "0" * 64), "plain")
    stand.attest(Binding(Kind.LEASE, "a"), "builder", token="x", unique="2")  # noqa: S106 - any text
    assert stand.presented(token="t") == Principal("builder", (Evidence.TOKEN,))  # noqa: S106 - a secret of this test
    assert stand.connected(listener="127.0.0.1:3128") == Principal("plain", (Evidence.LISTENER,))


def test_inside_a_lease_what_was_launched_is_proven_over_udp_too(stand: Stand) -> None:
    lease, listener = stand.lend("coder", "a")
    stand.attest(lease_of(lease), level=Level.LAUNCHED)
    proven = (Attestation(Level.LAUNCHED, 300),)
    wanted = Principal("coder", (Evidence.LEASE,), proven)
    assert stand.connected(listener=listener) == stand.identifier.udp(listener) == wanted
    _, elsewhere = stand.lend("coder", "b")
    assert stand.identifier.udp(elsewhere) == Principal("coder", (Evidence.LEASE,))


def test_of_a_lease_and_a_key_the_freshest_of_each_level_counts(stand: Stand) -> None:
    chain = stand.chain()
    lease, listener = stand.lend("coder", "a")
    stand.attest(lease_of(lease), level=Level.LAUNCHED)
    stand.attest(key_of(chain), token="b", unique="2")  # noqa: S106 - any text
    stand.attest(key_of(chain), level=Level.TPM, token="c", unique="3")  # noqa: S106 - any text
    both = (Evidence.LEASE, Evidence.CERTIFICATE)
    found = stand.connected(chain, listener)
    levels = (Level.TPM, Level.LAUNCHED, Level.SOFTWARE)
    assert found == Principal("coder", both, tuple(Attestation(each, 300) for each in levels))
    stand.attest(lease_of(lease), token="d", unique="4")  # noqa: S106 - any text
    assert stand.connected(chain, listener) == found


def test_a_connection_is_told_what_a_result_can_be_bound_to(stand: Stand) -> None:
    chain = stand.chain()
    lease, listener = stand.lend("coder", "a")
    identifier = stand.identifier
    svid = read_svid(chain)
    assert identifier.binding(HERE) == (None, None)
    assert identifier.binding(HERE, chain) == (svid, key_of(chain))
    assert identifier.binding(listener) == (None, lease_of(lease))
    assert identifier.binding(listener, chain) == (svid, lease_of(lease))
    assert identifier.bindings(listener, chain) == (lease_of(lease), key_of(chain))
    stand.leases.end(lease.id)
    assert identifier.binding(listener) == (None, None)
    stand.at += 7200  # the certificate has ended
    assert identifier.binding(HERE, chain) == (None, None)


# Results that are presented


def test_a_result_on_its_own_connection_changes_nothing(stand: Stand) -> None:
    chain = stand.chain()
    stand.attest(key_of(chain))
    assert stand.presented(chain) is stand.connected(chain)


@pytest.mark.parametrize("token", [JWT, "eyJhbGciOiJub25lIn0.eyJhcHAiOiJjb2RlciJ9."])
def test_a_jwt_that_is_no_result_of_ours_names_nobody(stand: Stand, token: str) -> None:
    """threats.md, "Identity": alg none, another key, forged claims: it is not found."""
    reason, text = refused(stand.presented(stand.chain(), token=token))
    assert reason is Reason.IDENTITY_UNKNOWN
    assert "attest again" in text


def test_a_result_that_has_ended_names_nobody(stand: Stand) -> None:
    chain = stand.chain()
    stand.attest(key_of(chain))
    stand.at += 301
    assert refused(stand.presented(chain))[0] is Reason.IDENTITY_UNKNOWN


def test_a_result_that_was_copied_is_refused_and_says_why(stand: Stand) -> None:
    """threats.md, "Identity": an attestation token copied to another key, lease or port."""
    chain, stolen = stand.chain(), stand.chain()
    stand.attest(key_of(chain))
    _, inside = stand.lend("coder", "a")
    cases = {
        "another TLS key": stand.presented(stolen),
        "this connection shows none": stand.presented(),
        "shows none: use a TLS": stand.presented(listener="127.0.0.1:3128"),
        "bound to a TLS key": stand.presented(listener=inside),
    }
    for text, found in cases.items():
        assert refused(found)[0] is Reason.ATTESTATION_REQUIRED
        assert text in refused(found)[1]


def test_a_result_of_a_lease_counts_in_no_other(stand: Stand) -> None:
    """threats.md, "Identity": an attestation token copied to another lease, or out of it."""
    lease, inside = stand.lend("coder", "a")
    _, elsewhere = stand.lend("coder", "b")
    stand.attest(lease_of(lease), level=Level.LAUNCHED)
    assert stand.presented(listener=inside) is stand.connected(listener=inside)
    reason, text = refused(stand.presented(listener=elsewhere))
    assert (reason, "another lease" in text) == (Reason.ATTESTATION_REQUIRED, True)
    for found in (stand.presented(), stand.presented(stand.chain())):
        reason, text = refused(found)
        assert (reason, "none of its listeners" in text) == (Reason.ATTESTATION_REQUIRED, True)


def test_a_result_helps_no_certificate_that_names_nobody(stand: Stand) -> None:
    chain = stand.chain(f"spiffe://{TRUST_DOMAIN}/nobody")
    stand.attest(key_of(chain))
    assert refused(stand.presented(chain)) == refused(stand.connected(chain))


def test_without_attestations_every_result_is_unknown() -> None:
    peers = PeerTable(Limits(), lambda: 2e9, lambda _: None)
    identifier = Identifier(_rules(), peers)
    found = identifier.presented(Credential("bearer", "", JWT), UNKNOWN, *ENDS, HERE)
    assert refused(found)[0] is Reason.IDENTITY_UNKNOWN
    assert identifier.binding("lease:a:proxy") == (None, None)
    peers.close()


@pytest.mark.parametrize(
    ("scheme", "secret", "is_one"),
    [
        ("bearer", JWT, True),
        ("basic", JWT, False),
        ("bearer", "eyJ.x", False),
        ("bearer", "spt_a.b.c", False),
    ],
)
def test_only_a_bearer_of_three_parts_is_a_result(scheme: str, secret: str, is_one: bool) -> None:
    credential = Credential("basic" if scheme == "basic" else "bearer", "", secret)
    assert is_result(credential) is is_one


def test_nobody_is_never_attested(stand: Stand) -> None:
    stand.attest(Binding(Kind.LEASE, "a"), UNKNOWN.app)
    assert marked(stand.attestations, UNKNOWN, (Binding(Kind.LEASE, "a"),)) is UNKNOWN


def test_an_asker_is_the_same_whatever_is_proven_of_it() -> None:
    bare, proven = Principal("a", CERTIFIED), Principal("a", CERTIFIED, PROVEN)
    assert is_same(bare, proven)
    assert not is_same(bare, Principal("b", CERTIFIED))
    assert not is_same(bare, Principal("a", (Evidence.TOKEN,)))
