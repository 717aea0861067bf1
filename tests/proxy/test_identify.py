"""Which app asks: order of the evidence, and what never counts as evidence."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.identify import UNKNOWN, Identifier
from proxy.limits import Limits
from proxy.transport.peer import PeerTable
from rules.facts import Evidence, Principal
from rules.ruleset import App, IdentityLine, Ruleset

MY_UID = Path("/proc/self").stat().st_uid


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


def test_tokens_leases_and_certificates_name_nobody_yet(
    peers: PeerTable, pair: tuple[tuple[str, int], tuple[str, int]]
) -> None:
    lines = [
        IdentityLine("f:1", token="me"),  # noqa: S106 - an app's name
        IdentityLine("f:2", lease="me"),
        IdentityLine("f:3", spiffe="spiffe://desk.example/agent/me"),
    ]
    assert Identifier(ruleset(me=lines), peers).tcp(*pair, "127.0.0.1:53") == UNKNOWN


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
