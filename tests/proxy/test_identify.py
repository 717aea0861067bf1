"""Which app asks: order of the evidence, and what never counts as evidence."""

import datetime as dt
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from proxy.certificates.known import Certificates
from proxy.certificates.revoked import Kind, Revocation, Revocations
from proxy.certificates.trust import TrustBundles
from proxy.identify import UNKNOWN, Identifier
from proxy.limits import Limits
from proxy.tokens.known import Token, Tokens, digest
from proxy.transport.peer import PeerTable, SocketOwner
from proxy.wire.credential import Credential
from rules.decision import Decision, Reason
from rules.facts import Evidence, Principal
from rules.ruleset import App, IdentityLine, Requirements, Ruleset
from tests.certs.forgery import TRUST_DOMAIN, WHO, Forger

MY_UID = Path("/proc/self").stat().st_uid
TOKEN = (Evidence.TOKEN,)
HERE = "127.0.0.1:3129"

type Ends = tuple[tuple[str, int], tuple[str, int]]


@pytest.fixture
def peers() -> Iterator[PeerTable]:
    table = PeerTable(Limits(), lambda: 2e9, lambda _: None)
    yield table
    table.close()


@pytest.fixture
def pair() -> Iterator[tuple[tuple[str, int], tuple[str, int]]]:
    """The client's and the server's address of a connection of this process."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, peer = server.accept()
        with client, accepted:
            yield peer, accepted.getsockname()


def ruleset(**lines: list[IdentityLine]) -> Ruleset:
    return Ruleset(1, {name: App(name, identity=tuple(each)) for name, each in lines.items()})


class Desk:
    """An identifier with the tokens `t` and `u`; the secret of each is its name."""

    def __init__(self, peers: PeerTable, **lines: list[IdentityLine]) -> None:
        self.now = 0.0
        self.tokens = Tokens(lambda: self.now)
        self.use(t={}, u={})
        self.identifier = Identifier(ruleset(**lines), peers, self.tokens)

    def use(self, **tokens: dict[str, object]) -> None:
        """Know these tokens, each with the fields that differ from the usual."""
        usual = {"created": 0.0, "expires": 100.0}
        made = {
            digest(name): {"id": f"{name}.1", "name": name, **usual, **fields}
            for name, fields in tokens.items()
        }
        known = {key: msgspec.convert(fields, Token) for key, fields in made.items()}
        self.tokens.use(known, self.now)

    def presented(
        self,
        secret: str,
        pair: Ends,
        *,
        user: str = "",
        ambient: Principal = UNKNOWN,
        listener: str = "127.0.0.1:3128",
    ) -> Principal | Reason:
        credential = Credential("basic", user, secret)
        found = self.identifier.presented(credential, ambient, *pair, listener)
        return found.reason if isinstance(found, Decision) else found


def line(token: str, **keys: object) -> IdentityLine:
    return msgspec.convert({"id": "f:1", "token": token, **keys}, IdentityLine)


def test_the_uid_of_the_peer_names_the_app(
    peers: PeerTable, pair: tuple[tuple[str, int], tuple[str, int]]
) -> None:
    identifier = Identifier(ruleset(me=[IdentityLine("f:1", uid=MY_UID)]), peers)
    assert identifier.tcp(*pair, "127.0.0.1:0") == Principal("me", (Evidence.PROCESS,))


def test_another_uid_is_unknown(
    peers: PeerTable, pair: tuple[tuple[str, int], tuple[str, int]]
) -> None:
    identifier = Identifier(ruleset(me=[IdentityLine("f:1", uid=MY_UID + 1)]), peers)
    assert identifier.tcp(*pair, "127.0.0.1:0") == UNKNOWN


def test_listener_beats_process(
    peers: PeerTable, pair: tuple[tuple[str, int], tuple[str, int]]
) -> None:
    rules = ruleset(
        me=[IdentityLine("f:1", uid=MY_UID)], box=[IdentityLine("f:2", listener="127.0.0.2:53")]
    )
    identifier = Identifier(rules, peers)
    assert identifier.tcp(*pair, "127.0.0.2:53") == Principal("box", (Evidence.LISTENER,))
    assert identifier.tcp(*pair, "127.0.0.1:53").app == "me"


def test_of_two_process_lines_the_one_with_more_keys_wins(
    peers: PeerTable, pair: tuple[tuple[str, int], tuple[str, int]]
) -> None:
    owner = peers.owner(*pair)
    assert owner is not None
    digest = peers.executable_sha256(owner)
    lines = ruleset(
        wide=[IdentityLine("f:1", uid=MY_UID)],
        narrow=[IdentityLine("f:2", uid=MY_UID, exe_sha256=digest or "none")],
    )
    named = Identifier(lines, peers).tcp(*pair, "127.0.0.1:53").app
    # The appliance's own process is never evidence: this process is the appliance here, so its
    # executable is not looked at, and the line that names it must not match.
    assert (digest, named) == (None, "wide")


def test_udp_with_process_evidence_in_play_needs_tcp(peers: PeerTable) -> None:
    """threats.md, Identity: UDP between local users can be forged with IP_PKTINFO."""
    identifier = Identifier(ruleset(me=[IdentityLine("f:1", uid=MY_UID)]), peers)
    assert identifier.udp("127.0.0.1:53") is None


def test_udp_at_a_named_listener_is_that_app(peers: PeerTable) -> None:
    rules = ruleset(
        me=[IdentityLine("f:1", uid=MY_UID)], box=[IdentityLine("f:2", listener="127.0.0.2:53")]
    )
    assert Identifier(rules, peers).udp("127.0.0.2:53") == Principal("box", (Evidence.LISTENER,))


def test_udp_without_any_evidence_in_play_is_unknown(peers: PeerTable) -> None:
    assert Identifier(ruleset(), peers).udp("127.0.0.1:53") == UNKNOWN


def test_leases_and_certificates_name_nobody_yet(
    peers: PeerTable, pair: tuple[tuple[str, int], tuple[str, int]]
) -> None:
    lines = [
        IdentityLine("f:2", lease="me"),
        IdentityLine("f:3", spiffe="spiffe://desk.example/agent/me"),
        IdentityLine("f:4", token="t", lease="me"),  # noqa: S106 - an app's name
    ]
    desk = Desk(peers, me=lines)
    assert desk.identifier.tcp(*pair, "127.0.0.1:53") == UNKNOWN
    assert desk.presented("t", pair) is Reason.IDENTITY_UNKNOWN


def test_a_presented_credential_that_nobody_issued_is_no_ambient_evidence(
    peers: PeerTable,
) -> None:
    identifier = Identifier(ruleset(me=[IdentityLine("f:1", uid=MY_UID)]), peers)
    presented = identifier.presented_unknown()
    assert presented.app == "unknown"
    assert presented.evidence == (Evidence.TOKEN,)


def test_a_peer_that_is_gone_is_unknown(peers: PeerTable) -> None:
    identifier = Identifier(ruleset(me=[IdentityLine("f:1", uid=MY_UID)]), peers)
    assert identifier.tcp(("127.0.0.1", 1), ("127.0.0.1", 2), "127.0.0.1:53") == UNKNOWN


@pytest.mark.parametrize(
    "line",
    [
        IdentityLine("f:1", listener="127.0.0.2:53", uid=MY_UID + 1),
        IdentityLine("f:1", listener="127.0.0.3:53", uid=MY_UID),
        IdentityLine("f:1", listener="127.0.0.2:53", token="me"),  # noqa: S106 - an app's name
        IdentityLine("f:1", uid=MY_UID, lease="me"),
    ],
)
def test_every_key_of_a_line_must_match(
    peers: PeerTable, pair: tuple[tuple[str, int], tuple[str, int]], line: IdentityLine
) -> None:
    assert Identifier(ruleset(me=[line]), peers).tcp(*pair, "127.0.0.2:53") == UNKNOWN


def test_a_line_with_listener_and_process_beats_one_with_process_alone(
    peers: PeerTable, pair: tuple[tuple[str, int], tuple[str, int]]
) -> None:
    lines = ruleset(
        me=[IdentityLine("f:1", uid=MY_UID)],
        box=[IdentityLine("f:2", listener="127.0.0.2:53", uid=MY_UID)],
    )
    identifier = Identifier(lines, peers)
    both = (Evidence.LISTENER, Evidence.PROCESS)
    assert identifier.tcp(*pair, "127.0.0.2:53") == Principal("box", both)
    assert identifier.tcp(*pair, "127.0.0.1:53") == Principal("me", (Evidence.PROCESS,))


def test_udp_at_a_listener_whose_line_has_a_process_needs_tcp(peers: PeerTable) -> None:
    """threats.md, Identity: UDP between local users can be forged with IP_PKTINFO."""
    line = IdentityLine("f:1", listener="127.0.0.2:53", uid=MY_UID)
    identifier = Identifier(ruleset(box=[line]), peers)
    assert identifier.udp("127.0.0.2:53") is None
    assert identifier.udp("127.0.0.1:53") == UNKNOWN


def test_a_token_names_the_app_that_an_identity_line_gives_it(peers: PeerTable, pair: Ends) -> None:
    desk = Desk(peers, coder=[line("t")], builder=[line("u")])
    assert desk.presented("t", pair) == Principal("coder", TOKEN)
    assert desk.presented("u", pair) == Principal("builder", TOKEN)


def test_a_token_beats_ambient_evidence_and_never_conflicts_with_it(
    peers: PeerTable, pair: Ends
) -> None:
    desk = Desk(peers, coder=[line("t")], me=[IdentityLine("f:2", uid=MY_UID)])
    ambient = desk.identifier.tcp(*pair, "127.0.0.1:3128")
    assert ambient.app == "me"
    assert desk.presented("t", pair, ambient=ambient) == Principal("coder", TOKEN)


@pytest.mark.parametrize("kind", [Evidence.LEASE, Evidence.CERTIFICATE])
def test_evidence_that_disagrees_is_refused(peers: PeerTable, pair: Ends, kind: Evidence) -> None:
    """threats.md, "Identity": evidence that disagrees is refused, never resolved by order."""
    desk = Desk(peers, coder=[line("t")])
    other = Principal("builder", (kind,))
    assert desk.presented("t", pair, ambient=other) is Reason.IDENTITY_CONFLICT
    same = Principal("coder", (kind,))
    assert desk.presented("t", pair, ambient=same) == Principal("coder", (kind, *TOKEN))


@pytest.mark.parametrize("user", ["", "t", "coder"])
def test_the_user_of_basic_is_the_token_the_app_or_nobody(
    peers: PeerTable, pair: Ends, user: str
) -> None:
    desk = Desk(peers, coder=[line("t")])
    assert desk.presented("t", pair, user=user) == Principal("coder", TOKEN)


@pytest.mark.parametrize("user", ["u", "Coder", "root", " "])
def test_another_user_of_basic_is_a_conflict(peers: PeerTable, pair: Ends, user: str) -> None:
    """threats.md, "Identity": evidence that disagrees is refused, never resolved by order."""
    desk = Desk(peers, coder=[line("t")], u=[line("u")])
    assert desk.presented("t", pair, user=user) is Reason.IDENTITY_CONFLICT


def test_what_is_presented_and_not_known_is_no_ambient_evidence(
    peers: PeerTable, pair: Ends
) -> None:
    """threats.md, "Identity": a credential that is not known is never a fall-back."""
    desk = Desk(peers, coder=[line("t")], me=[IdentityLine("f:2", uid=MY_UID)])
    ambient = desk.identifier.tcp(*pair, "127.0.0.1:3128")
    for secret in ("x", "", "u"):  # no such token, and one that no line names
        assert desk.presented(secret, pair, ambient=ambient) is Reason.IDENTITY_UNKNOWN


def test_expired_revoked_and_scraping_tokens_name_nobody(peers: PeerTable, pair: Ends) -> None:
    desk = Desk(peers, coder=[line("t")])
    desk.now = 100.0
    assert desk.presented("t", pair) is Reason.IDENTITY_UNKNOWN
    desk.use(t={"revoked": 1.0})
    assert desk.presented("t", pair) is Reason.REVOKED
    desk.use(t={"purpose": "scrape", "expires": 200.0})
    assert desk.presented("t", pair) is Reason.IDENTITY_UNKNOWN


def test_without_tokens_every_credential_is_unknown(peers: PeerTable, pair: Ends) -> None:
    identifier = Identifier(ruleset(coder=[line("t")]), peers)
    credential = Credential("bearer", "", "t")
    found = identifier.presented(credential, UNKNOWN, *pair, "127.0.0.1:3128")
    assert isinstance(found, Decision)
    assert (found.reason, found.text[:13]) == (Reason.IDENTITY_UNKNOWN, "no such token")
    assert not identifier.wants_token(UNKNOWN)


def test_a_token_bound_to_a_uid_is_worth_nothing_to_another(peers: PeerTable, pair: Ends) -> None:
    """threats.md, "Identity": tokens leak through environ, .npmrc and logs: uid binding."""
    desk = Desk(peers, coder=[line("t")])
    desk.use(t={"bind_uid": MY_UID})
    assert desk.presented("t", pair) == Principal("coder", TOKEN)
    desk.use(t={"bind_uid": MY_UID + 1})
    assert desk.presented("t", pair) is Reason.IDENTITY_UNKNOWN


def test_a_bound_token_is_worth_nothing_where_the_kernel_cannot_say_who_asks(
    peers: PeerTable, pair: Ends
) -> None:
    desk = Desk(peers, coder=[line("t")])
    desk.use(t={"bind_uid": MY_UID})
    gone = (("127.0.0.1", 1), ("127.0.0.1", 2))
    assert desk.presented("t", gone) is Reason.IDENTITY_UNKNOWN
    peers.close()
    assert desk.presented("t", pair) is Reason.IDENTITY_UNKNOWN


def test_all_keys_of_a_line_must_match(peers: PeerTable, pair: Ends) -> None:
    here = "127.0.0.1:3128"
    for keys, is_named in (
        ({"uid": MY_UID}, True),
        ({"uid": MY_UID + 1}, False),
        ({"listener": here}, True),
        ({"listener": "127.0.0.2:3128"}, False),
        ({"listener": here, "uid": MY_UID}, True),
        ({"listener": here, "uid": MY_UID + 1}, False),
        ({"uid": MY_UID, "cgroup": "/none"}, False),
        ({"uid": MY_UID, "exe_sha256": "0" * 64}, False),
    ):
        found = Desk(peers, coder=[line("t", **keys)]).presented("t", pair, listener=here)
        assert isinstance(found, Principal) is is_named, keys


def test_a_line_tells_all_its_evidence(peers: PeerTable, pair: Ends) -> None:
    keys = {"listener": "127.0.0.1:3128", "uid": MY_UID}
    found = Desk(peers, coder=[line("t", **keys)]).presented("t", pair)
    every = (Evidence.TOKEN, Evidence.LISTENER, Evidence.PROCESS)
    assert found == Principal("coder", every)


def test_of_two_lines_of_a_token_the_one_with_more_keys_wins(peers: PeerTable, pair: Ends) -> None:
    desk = Desk(peers, wide=[line("t")], narrow=[line("t", uid=MY_UID)], far=[line("u")])
    assert desk.presented("t", pair) == Principal("narrow", (*TOKEN, Evidence.PROCESS))
    desk = Desk(peers, wide=[line("t")], narrow=[line("t", uid=MY_UID + 1)])
    assert desk.presented("t", pair) == Principal("wide", TOKEN)


def test_a_line_with_a_token_is_no_ambient_evidence(peers: PeerTable, pair: Ends) -> None:
    lines = [line("t", listener="127.0.0.1:53"), line("t", uid=MY_UID)]
    identifier = Desk(peers, coder=lines).identifier
    assert identifier.tcp(*pair, "127.0.0.1:53") == UNKNOWN
    assert identifier.udp("127.0.0.1:53") == UNKNOWN


def test_a_token_is_wanted_of_strangers_and_of_ambient_evidence(peers: PeerTable) -> None:
    wants = Desk(peers, coder=[line("t")]).identifier.wants_token
    assert wants(UNKNOWN)
    assert wants(Principal("unknown", TOKEN))
    assert wants(Principal("me", (Evidence.PROCESS,)))
    assert wants(Principal("me", (Evidence.LISTENER, Evidence.PROCESS)))
    assert not wants(Principal("coder", TOKEN))
    assert not wants(Principal("coder", (Evidence.LEASE,)))


def test_no_token_is_wanted_where_no_app_has_one(peers: PeerTable) -> None:
    desk = Desk(peers, coder=[line("t")], me=[IdentityLine("f:2", uid=MY_UID)])
    desk.use(u={})  # which no identity line names
    assert not desk.identifier.wants_token(UNKNOWN)
    desk.use(t={"expires": 1.0})
    desk.tokens.look(1.0)
    assert not desk.identifier.wants_token(UNKNOWN)
    assert not Desk(peers, me=[IdentityLine("f:2", uid=MY_UID)]).identifier.wants_token(UNKNOWN)


def test_says_why_a_credential_was_refused_and_never_the_credential(peers: PeerTable) -> None:
    explain = Desk(peers, coder=[line("t")]).identifier.explain
    assert "neither Basic nor Bearer" in explain(None)
    assert "no such token" in explain(Credential("basic", "coder", "spt_secret"))
    assert "spt_secret" not in explain(Credential("basic", "coder", "spt_secret"))
    assert "t.1 is not for this app" in explain(Credential("bearer", "", "t"))


def test_the_epoch_changes_with_the_rules_and_with_the_tokens(peers: PeerTable) -> None:
    desk = Desk(peers, coder=[line("t")])
    epochs = [desk.identifier.epoch]
    desk.identifier.use(ruleset())
    epochs.append(desk.identifier.epoch)
    desk.use(t={"revoked": 1.0})
    epochs.append(desk.identifier.epoch)
    assert len(set(epochs)) == 3
    alone = Identifier(ruleset(), peers)
    before = alone.epoch
    alone.use(ruleset())
    assert alone.epoch != before


# Certificates

CERTIFIED = (Evidence.CERTIFICATE,)
OTHER = f"spiffe://{TRUST_DOMAIN}/agent/other"
AT = dt.datetime(2026, 5, 6, tzinfo=dt.UTC)


class Court(Desk):
    """A desk that knows certificates, of one authority."""

    def __init__(self, peers: PeerTable, **lines: list[IdentityLine]) -> None:
        super().__init__(peers, **lines)
        self.at = AT.timestamp()
        self.forger = Forger.loose(TRUST_DOMAIN, AT)
        trust = TrustBundles()
        trust.use({TRUST_DOMAIN: self.forger.anchors})
        self.revocations = Revocations()
        self.certificates = Certificates(
            trust, self.revocations, Limits(), lambda: self.at, lambda _: None
        )
        self.identifier = Identifier(ruleset(**lines), peers, self.tokens, self.certificates)

    def chain(self, spiffe_id: str = WHO) -> tuple[bytes, ...]:
        return self.forger.good(spiffe_id).ders

    def connected(
        self, pair: Ends, spiffe_id: str = WHO, listener: str = HERE
    ) -> Principal | Decision:
        return self.identifier.connected(*pair, listener, self.chain(spiffe_id))

    def both(
        self, secret: str, pair: Ends, spiffe_id: str = WHO, listener: str = HERE
    ) -> Principal | Decision:
        """Present a token on a connection that presented a certificate."""
        chain = self.chain(spiffe_id)
        ambient = self.identifier.connected(*pair, listener, chain)
        credential = Credential("bearer", "", secret)
        return self.identifier.presented(credential, ambient, *pair, listener, chain)


def spiffe(spiffe_id: str = WHO, **keys: object) -> IdentityLine:
    return msgspec.convert({"id": "f:1", "spiffe": spiffe_id, **keys}, IdentityLine)


def refused(found: Principal | Decision) -> tuple[Reason, str]:
    assert isinstance(found, Decision)
    return found.reason, found.text


def test_a_certificate_names_the_app_of_its_spiffe_id(peers: PeerTable, pair: Ends) -> None:
    court = Court(peers, coder=[spiffe()], other=[spiffe(OTHER)])
    assert court.connected(pair) == Principal("coder", CERTIFIED)
    assert court.connected(pair, OTHER) == Principal("other", CERTIFIED)


def test_without_a_certificate_a_connection_is_whose_it_was(peers: PeerTable, pair: Ends) -> None:
    court = Court(peers, me=[IdentityLine("f:1", uid=MY_UID)], coder=[spiffe()])
    assert court.identifier.connected(*pair, HERE) == Principal("me", (Evidence.PROCESS,))


def test_a_certificate_that_no_line_names_is_never_ambient(peers: PeerTable, pair: Ends) -> None:
    """design.md, "Identity": a presented credential is never a fall-back to ambient evidence."""
    court = Court(peers, me=[IdentityLine("f:1", uid=MY_UID)])
    assert refused(court.connected(pair)) == (
        Reason.IDENTITY_UNKNOWN,
        f"no identity line names {WHO}",
    )


def test_a_certificate_that_does_not_count_says_why(peers: PeerTable, pair: Ends) -> None:
    court = Court(peers, coder=[spiffe()])
    court.revocations.use([Revocation(Kind.SPIFFE_ID, WHO, 1.0)])
    assert refused(court.connected(pair)) == (Reason.REVOKED, f"{WHO} was revoked")
    assert refused(court.both("t", pair))[0] is Reason.REVOKED
    court.revocations.use([])
    court.at += 3600
    reason, text = refused(court.connected(pair))
    assert reason is Reason.IDENTITY_UNKNOWN
    assert "ended at" in text


def test_where_certificates_are_not_taken_one_names_nobody(peers: PeerTable, pair: Ends) -> None:
    court = Court(peers, coder=[spiffe()])
    identifier = Identifier(ruleset(coder=[spiffe()]), peers, court.tokens)
    found = refused(identifier.connected(*pair, HERE, court.chain()))
    assert found == (Reason.IDENTITY_UNKNOWN, "certificates are not taken here")


def test_all_keys_of_a_line_with_a_certificate_must_match(peers: PeerTable, pair: Ends) -> None:
    court = Court(peers, here=[spiffe(listener=HERE)], mine=[spiffe(OTHER, uid=MY_UID)])
    assert court.connected(pair) == Principal("here", (*CERTIFIED, Evidence.LISTENER))
    assert court.connected(pair, OTHER) == Principal("mine", (*CERTIFIED, Evidence.PROCESS))
    reason, text = refused(court.connected(pair, listener="127.0.0.1:1"))
    assert reason is Reason.IDENTITY_UNKNOWN
    assert "no app at this listener" in text
    stranger = Court(peers, mine=[spiffe(uid=MY_UID + 1)])
    assert refused(stranger.connected(pair))[0] is Reason.IDENTITY_UNKNOWN


def test_of_lines_of_one_certificate_the_one_with_more_keys_wins(
    peers: PeerTable, pair: Ends
) -> None:
    court = Court(peers, wide=[spiffe()], narrow=[spiffe(uid=MY_UID)])
    assert court.connected(pair) == Principal("narrow", (*CERTIFIED, Evidence.PROCESS))


def test_a_certificate_and_a_token_of_one_app_are_both_evidence(
    peers: PeerTable, pair: Ends
) -> None:
    court = Court(peers, coder=[spiffe(), line("t")])
    assert court.both("t", pair) == Principal("coder", (*CERTIFIED, *TOKEN))


def test_a_certificate_and_a_token_of_two_apps_are_a_conflict(peers: PeerTable, pair: Ends) -> None:
    """threats.md, "Identity": "Evidence that disagrees ... is refused, never resolved by order"."""
    court = Court(peers, coder=[spiffe()], builder=[line("t")])
    assert refused(court.both("t", pair)) == (
        Reason.IDENTITY_CONFLICT,
        "the certificate and the token name different apps; present one",
    )


def test_a_token_does_not_make_up_for_a_certificate_that_names_nobody(
    peers: PeerTable, pair: Ends
) -> None:
    court = Court(peers, coder=[line("t")])
    assert refused(court.both("t", pair)) == (
        Reason.IDENTITY_UNKNOWN,
        f"no identity line names {WHO}",
    )


def test_a_token_that_is_not_known_is_no_harmless_addition(peers: PeerTable, pair: Ends) -> None:
    court = Court(peers, coder=[spiffe(), line("t")])
    reason, text = refused(court.both("stolen", pair))
    assert (reason, text[:13]) == (Reason.IDENTITY_UNKNOWN, "no such token")


def test_a_line_may_ask_for_a_certificate_and_a_token(peers: PeerTable, pair: Ends) -> None:
    court = Court(peers, coder=[spiffe(token="t")])  # noqa: S106 - an app's name
    assert court.both("t", pair) == Principal("coder", (*CERTIFIED, *TOKEN))
    reason, text = refused(court.connected(pair))
    assert (reason, "together with a token" in text) == (Reason.IDENTITY_UNKNOWN, True)
    assert refused(court.both("u", pair))[0] is Reason.IDENTITY_UNKNOWN
    assert refused(court.both("t", pair, OTHER))[0] is Reason.IDENTITY_UNKNOWN
    assert court.presented("t", pair) is Reason.IDENTITY_UNKNOWN  # without any certificate
    assert court.identifier.asks_for_certificates


def test_such_a_line_decides_where_the_certificate_alone_names_another(
    peers: PeerTable, pair: Ends
) -> None:
    court = Court(peers, wide=[spiffe()], narrow=[spiffe(token="t")])  # noqa: S106 - as above
    assert court.connected(pair) == Principal("wide", CERTIFIED)
    assert court.both("t", pair) == Principal("narrow", (*CERTIFIED, *TOKEN))


def test_a_token_is_asked_for_only_where_it_could_help(peers: PeerTable) -> None:
    identifier = Court(peers, coder=[spiffe()], builder=[line("t")]).identifier
    stranger = identifier.presented_unknown(chain=(b"",), has_token=False)
    assert (stranger.app, stranger.evidence) == ("unknown", CERTIFIED)
    assert not identifier.wants_token(stranger)
    assert identifier.wants_token(UNKNOWN)
    assert identifier.wants_token(identifier.presented_unknown(chain=(b"",)))
    both = Court(peers, coder=[spiffe(token="t")]).identifier  # noqa: S106 - as above
    assert both.wants_token(both.presented_unknown(chain=(b"",), has_token=False))
    assert not both.wants_token(Principal("coder", CERTIFIED))


def test_certificates_are_asked_for_while_rules_use_them(peers: PeerTable) -> None:
    identifier = Identifier(ruleset(coder=[line("t")]), peers)
    asked = [identifier.asks_for_certificates]
    identifier.use(ruleset(coder=[line("t")], other=[spiffe()]))
    asked.append(identifier.asks_for_certificates)
    identifier.use(Ruleset(1, {"a": App("a", require=Requirements(mtls=True))}))
    asked.append(identifier.asks_for_certificates)
    assert asked == [False, True, True]


def test_a_spiffe_id_that_somebody_else_verified_names_the_app(peers: PeerTable) -> None:
    court = Court(peers, coder=[spiffe()], bound=[spiffe(OTHER, listener=HERE)])
    assert court.identifier.vouched(WHO) == Principal("coder", CERTIFIED)
    assert refused(court.identifier.vouched(OTHER))[0] is Reason.IDENTITY_UNKNOWN
    court.revocations.use([Revocation(Kind.SPIFFE_ID, WHO, 1.0)])
    assert refused(court.identifier.vouched(WHO))[0] is Reason.REVOKED
    alone = Identifier(ruleset(coder=[spiffe()]), peers)
    assert alone.vouched(WHO) == Principal("coder", CERTIFIED)


def test_a_process_at_a_unix_socket_is_named_by_its_uid(peers: PeerTable) -> None:
    lines = ruleset(me=[IdentityLine("f:1", uid=MY_UID)], box=[spiffe(uid=MY_UID)])
    identifier = Identifier(lines, peers)
    assert identifier.of_process(SocketOwner(MY_UID, 0, None)).app == "me"
    assert identifier.of_process(SocketOwner(MY_UID + 1, 0, None)) == UNKNOWN
    bound = Identifier(ruleset(me=[IdentityLine("f:1", uid=MY_UID, listener=HERE)]), peers)
    assert bound.of_process(SocketOwner(MY_UID, 0, None)) == UNKNOWN


def test_the_epoch_moves_with_certificates(peers: PeerTable, pair: Ends) -> None:
    court = Court(peers, coder=[spiffe()])
    court.connected(pair)
    seen = [court.identifier.epoch]
    court.revocations.use([Revocation(Kind.APP, "coder", 1.0)])
    seen.append(court.identifier.epoch)
    court.at += 3600
    court.certificates.look(court.at)
    seen.append(court.identifier.epoch)
    assert seen == sorted({*seen})
