"""Lines that ask for a lease, alone and with other evidence; and what disagrees with one."""

from typing import override

import msgspec
import pytest

from proxy.identity_lines import Lines, OtherEnd, first
from proxy.limits import Limits
from proxy.transport.peer import PeerTable, SocketOwner
from rules.decision import Decision, Reason
from rules.facts import UNKNOWN_APP, Evidence, Principal
from rules.ruleset import App, IdentityLine, Requirements, Ruleset
from tests.certs.forgery import WHO
from tests.proxy.test_proven import OTHER, Stand, refused
from tests.proxy.test_proven import stand as stand  # noqa: PLC0414 - a fixture, for this file too

LEASE, CERTIFICATE, TOKEN = Evidence.LEASE, Evidence.CERTIFICATE, Evidence.TOKEN
SECRET = "t"  # noqa: S105 - of a token of this test


def line(**keys: object) -> IdentityLine:
    return msgspec.convert({"id": "f:1", **keys}, IdentityLine)


def rules(**lines: list[IdentityLine]) -> Ruleset:
    return Ruleset(1, {name: App(name, tuple(each)) for name, each in lines.items()})


@pytest.fixture
def inside(stand: Stand) -> str:
    """The listener of a lease `coder`."""
    return stand.lend("coder", "a")[1]


def test_a_lease_names_its_app_there_and_nowhere_else(stand: Stand, inside: str) -> None:
    stand.identifier.use(rules(coder=[line(lease="coder")], me=[line(uid=0)]))
    assert stand.connected(listener=inside) == Principal("coder", (LEASE,))
    assert stand.identifier.udp(inside) == Principal("coder", (LEASE,))
    assert stand.connected() != stand.connected(listener=inside)


def test_a_lease_that_no_line_names_is_evidence_of_nobody(stand: Stand, inside: str) -> None:
    stand.identifier.use(rules(other=[line(lease="other")]))
    nobody = Principal(UNKNOWN_APP, (LEASE,))
    assert stand.connected(listener=inside) == stand.identifier.udp(inside) == nobody
    assert stand.identifier.wants_token(nobody) is False


def test_connections_at_the_listener_of_a_lease_that_ended_are_nobodys(
    stand: Stand, inside: str
) -> None:
    stand.identifier.use(rules(coder=[line(lease="coder")], me=[line(uid=0)]))
    stand.leases.end("a")
    reason, text = refused(stand.connected(listener=inside))
    assert (reason, "ended" in text) == (Reason.IDENTITY_UNKNOWN, True)
    nobody = Principal(UNKNOWN_APP, (LEASE,))
    assert stand.identifier.udp(inside) == nobody
    assert stand.identifier.presented_unknown(has_token=False) == nobody
    assert refused(stand.presented(stand.chain(), inside))[0] is Reason.IDENTITY_UNKNOWN
    stand.identifier.use(rules(coder=[line(token=SECRET)]))
    assert refused(stand.presented(listener=inside, token=SECRET))[0] is Reason.IDENTITY_UNKNOWN


def test_inside_a_lease_the_kernel_is_not_asked_who_has_a_socket(stand: Stand, inside: str) -> None:
    """The addresses there are of another namespace: here they are somebody else's."""
    stand.identifier.use(rules(me=[line(uid=0)], both=[line(lease="coder", uid=0)]))
    assert stand.connected(listener=inside) == Principal(UNKNOWN_APP, (LEASE,))


@pytest.mark.parametrize("secret", [SECRET, ""])
def test_what_agrees_with_the_lease_is_evidence_besides(
    stand: Stand, inside: str, secret: str
) -> None:
    chain = stand.chain()
    both = [line(lease="coder"), line(spiffe=WHO), line(token=SECRET)]
    stand.identifier.use(rules(coder=both))
    if secret:
        found = stand.presented(chain, inside, secret)
        assert found == Principal("coder", (LEASE, CERTIFICATE, TOKEN))
        assert stand.presented(listener=inside, token=secret) == Principal("coder", (LEASE, TOKEN))
    else:
        assert stand.connected(chain, inside) == Principal("coder", (LEASE, CERTIFICATE))


def test_what_disagrees_with_the_lease_is_refused(stand: Stand, inside: str) -> None:
    """threats.md, "Identity": evidence that disagrees is refused, never resolved by order."""
    stand.identifier.use(
        rules(coder=[line(lease="coder")], other=[line(spiffe=OTHER), line(token=SECRET)])
    )
    by_certificate = stand.connected(stand.chain(OTHER), inside)
    by_token = stand.presented(listener=inside, token=SECRET)
    assert [refused(each) for each in (by_certificate, by_token)] == [
        (Reason.IDENTITY_CONFLICT, f"the lease and the {what} name different apps; present one")
        for what in ("certificate", "token")
    ]
    assert refused(stand.presented(stand.chain(OTHER), inside, SECRET))[0] is (
        Reason.IDENTITY_CONFLICT
    )


def test_what_names_nobody_is_refused_inside_a_lease_too(stand: Stand, inside: str) -> None:
    stand.identifier.use(rules(coder=[line(lease="coder"), line(token=SECRET)]))
    for found in (
        stand.connected(stand.chain(), inside),
        stand.presented(stand.chain(), inside, SECRET),
        stand.presented(listener=inside, token="x"),  # noqa: S106 - a secret of nobody
    ):
        assert refused(found)[0] is Reason.IDENTITY_UNKNOWN
    stand.at += 7200
    assert refused(stand.connected(stand.chain(), inside))[0] is Reason.IDENTITY_UNKNOWN


def test_a_lease_that_names_nobody_is_no_help_to_what_names_an_app(
    stand: Stand, inside: str
) -> None:
    stand.identifier.use(rules(coder=[line(spiffe=WHO), line(token=SECRET)]))
    wanted = (Reason.IDENTITY_UNKNOWN, "no identity line names the lease")
    assert refused(stand.connected(stand.chain(), inside)) == wanted
    assert refused(stand.presented(listener=inside, token=SECRET)) == wanted


def test_a_line_with_a_lease_and_more_needs_all_of_it(stand: Stand, inside: str) -> None:
    chain = stand.chain()
    cases = {
        "certificate": ([line(lease="coder", spiffe=WHO)], (LEASE, CERTIFICATE)),
        "token": ([line(lease="coder", token=SECRET)], (LEASE, TOKEN)),
        "all": ([line(lease="coder", spiffe=WHO, token=SECRET)], (LEASE, CERTIFICATE, TOKEN)),
    }
    for what, (lines, evidence) in cases.items():
        stand.identifier.use(rules(coder=lines))
        assert stand.connected(listener=inside) == Principal(UNKNOWN_APP, (LEASE,))
        if what == "certificate":
            found = stand.connected(chain, inside)
            outside = stand.connected(chain)
        else:
            with_it = chain if what == "all" else ()
            found = stand.presented(with_it, inside, SECRET)
            outside = stand.presented(with_it, token=SECRET)
        assert found == Principal("coder", evidence)
        assert isinstance(outside, Decision)


def test_a_token_line_with_the_lease_leaves_the_certificate_to_name_the_same_app(
    stand: Stand, inside: str
) -> None:
    both = line(lease="coder", token=SECRET)
    stand.identifier.use(rules(coder=[both, line(spiffe=WHO)], other=[line(spiffe=OTHER)]))
    found = stand.presented(stand.chain(), inside, SECRET)
    assert found == Principal("coder", (LEASE, CERTIFICATE, TOKEN))
    conflict = refused(stand.presented(stand.chain(OTHER), inside, SECRET))
    assert conflict[0] is Reason.IDENTITY_CONFLICT


def test_a_token_line_with_the_certificate_leaves_the_lease_to_name_the_same_app(
    stand: Stand, inside: str
) -> None:
    both = line(spiffe=WHO, token=SECRET)
    stand.identifier.use(rules(coder=[both, line(lease="coder")]))
    found = stand.presented(stand.chain(), inside, SECRET)
    assert found == Principal("coder", (LEASE, CERTIFICATE, TOKEN))
    stand.identifier.use(rules(coder=[both], other=[line(lease="coder")]))
    conflict = refused(stand.presented(stand.chain(), inside, SECRET))
    assert conflict[0] is Reason.IDENTITY_CONFLICT


def test_a_spiffe_id_that_others_verified_is_no_lease(stand: Stand) -> None:
    stand.identifier.use(rules(coder=[line(lease="coder", spiffe=WHO)]))
    assert refused(stand.identifier.vouched(WHO))[0] is Reason.IDENTITY_UNKNOWN


def test_a_lease_beats_every_other_key_of_a_line() -> None:
    lines = Lines(rules(
        narrow=[line(spiffe=WHO, listener="127.0.0.1:1", uid=0)],
        leased=[line(spiffe=WHO, lease="coder")],
        wide=[line(spiffe=WHO)],
    ))  # fmt: skip
    assert [each.principal.app for each in lines.spiffe[WHO]] == ["leased", "narrow", "wide"]
    assert lines.ask_for_certificates
    assert not lines.any_asks_for_both


def test_certificates_are_asked_for_where_an_app_requires_one() -> None:
    mtls = App("a", require=Requirements(mtls=True))
    assert Lines(Ruleset(1, {"a": mtls})).ask_for_certificates
    assert not Lines(rules(a=[line(lease="a")])).ask_for_certificates


def test_an_executable_is_hashed_once_however_many_lines_ask() -> None:
    class Peers(PeerTable):
        asked = 0

        @override
        def executable_sha256(self, owner: SocketOwner) -> str | None:
            self.asked += 1
            return "b" * 64

    peers = Peers(Limits(), lambda: 2e9, lambda _: None)
    lines = Lines(rules(a=[line(exe_sha256="a" * 64)], b=[line(exe_sha256="b" * 64)]))
    other = OtherEnd.known(peers, SocketOwner(0, 1, None))
    assert first(lines.processes, other, "") == Principal("b", (Evidence.PROCESS,))
    assert peers.asked == 1
    peers.close()
