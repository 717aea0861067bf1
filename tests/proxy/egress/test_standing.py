"""Whether an open tunnel could be opened now: what was not looked at is owed."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from proxy.egress.asker import Asker
from proxy.egress.obligations import Passage
from proxy.egress.standing import GONE, Standing, disowned, withdrawn
from rules.address import parse_address
from rules.decision import SvidCertificate, UpgradeTls
from rules.facts import Connect, Principal, Request
from rules.name import parse
from rules.ruleset import AllowRule
from tests.proxy.egress.world import World, opened
from tests.rules.written import ME, allow

HOST = parse("example.com")
PUBLIC = parse_address("93.184.216.34")
LOOKED, UNREAD, WITH_ECH = Passage(), Passage(unread=True), Passage(accept_ech=True)


def standing(world: World, value: bytes | None = None) -> Standing:
    ends = ("127.0.0.1", 1), ("127.0.0.1", 2)
    return Standing(Asker(world.identifier, *ends, world.listener.name), value, PUBLIC)


@pytest.mark.parametrize(
    ("taken", "rule", "stands"),
    [
        (LOOKED, allow("example.com"), True),
        (LOOKED, allow("example.com", tls=False), True),
        (LOOKED, allow("example.com", accept_ech=True), True),
        (UNREAD, allow("example.com", tls=False), True),
        (UNREAD, allow("example.com"), False),
        (WITH_ECH, allow("example.com"), False),
        (WITH_ECH, allow("example.com", accept_ech=True), True),
        (LOOKED, allow("example.com", methods=["GET"]), False),
        (LOOKED, allow("example.com", ports=[80]), False),
        (LOOKED, allow("example.org"), False),
    ],
)
async def test_a_tunnel(tmp_path: Path, taken: Passage, rule: AllowRule, stands: bool) -> None:
    async with opened(tmp_path, rule) as world:
        connect = Connect(ME, HOST, 443)
        found = withdrawn(world.egress, standing(world), connect, taken)
        assert found == (None if stands else GONE)


async def test_a_request_needs_its_own_allow(tmp_path: Path) -> None:
    async with opened(tmp_path, allow("example.com", ports=[80], methods=["GET"])) as world:
        for method, gone in (("GET", None), ("POST", GONE)):
            facts = Request(ME, method, HOST, 80, "/")
            assert withdrawn(world.egress, standing(world), facts, None) == gone


async def test_a_request_keeps_to_its_way(tmp_path: Path) -> None:
    """What is owed TLS does not go on in plain, nor with another certificate."""
    shown = UpgradeTls(SvidCertificate("spiffe://a.example/b"))
    for owed in (None, UpgradeTls(), shown):
        rule = allow("example.com", ports=[80], upgrade=owed)
        folder = tmp_path / str(owed is None or owed.certificate)
        folder.mkdir(parents=True)
        async with opened(folder, rule) as world:
            for taken in (None, UpgradeTls(), shown):
                flow = replace(standing(world), secure=taken)
                facts = Request(ME, "GET", HOST, 80, "/")
                assert withdrawn(world.egress, flow, facts, None) == (
                    None if taken == owed else GONE
                )


async def test_a_tunnel_to_port_80_ends_where_requests_are_upgraded(tmp_path: Path) -> None:
    rule = allow("example.com", ports=[80, 443], upgrade=UpgradeTls())
    async with opened(tmp_path, rule) as world:
        for port, gone in ((80, GONE), (443, None)):
            facts = Connect(ME, HOST, port)
            assert withdrawn(world.egress, standing(world), facts, LOOKED) == gone


async def test_an_asker_who_is_another_now(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        assert disowned(standing(world), ME) is None
        assert disowned(standing(world), Principal("other")) == GONE
        refused = disowned(standing(world, b"Bearer spt_x"), ME)
        assert refused is not None
        assert refused.reason == "identity-unknown"
