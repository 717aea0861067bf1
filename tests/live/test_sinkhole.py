"""The sinkhole on its own ports as curl, OpenSSL and kdig see it: alone, and in an appliance."""

import asyncio
import os
import re
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from proxy.config_sinkhole import SinkholeSettings
from proxy.identify import Identifier
from proxy.limits import Limits
from proxy.resolver.do53 import Do53Tcp, Do53Udp
from proxy.resolver.query import Resolver
from proxy.sinkhole.listen import Sinkhole
from proxy.sinkhole.visits import Desk
from proxy.transport.listen import Listener, bind_tcp, bind_udp
from proxy.transport.peer import PeerTable
from rules.decision import Refuse
from rules.match import index_rules
from rules.ruleset import App, DenyRule, IdentityLine, Ruleset
from tests.internet import Internet, Namespace, ip, until
from tests.live.appliance import Appliance, Folders, running
from tests.live.shell import DENIED_S, Shell, Told
from tests.proxy.composed import SUFFIXES, Composed, composed, exact

pytestmark = pytest.mark.live

V4, V6 = IPv4Address("127.53.53.53"), IPv6Address("fd53::53")
DNS = "127.0.0.1:53"


class Stand(Struct):
    """A resolver and its sinkhole in a namespace."""

    namespace: Namespace
    parts: Composed
    sinkhole: Sinkhole

    async def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a client in the namespace to its end."""
        return await asyncio.to_thread(self.namespace.run, argv)

    async def dig(self, *arguments: str) -> str:
        """Return what kdig says."""
        ended = await self.run("kdig", "@127.0.0.1", "+timeout=1", "+retry=0", *arguments)
        return ended.stdout + ended.stderr

    async def curl(self, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Let curl reach the sinkhole by the name of `url`, as its look-up says."""
        host = url.split("/")[2]
        port = 443 if url.startswith("https") else 80
        where = await self.dig("+short", host)
        resolved = f"{host}:{port}:{where.strip()}"
        return await self.run("curl", "-sS", "--resolve", resolved, *arguments, url)


def rules(refuse: Refuse) -> Ruleset:
    deny = DenyRule("bad.yaml:4", (exact("bad.example.com"),), text="known bad")
    app = App("agent", (IdentityLine("a.yaml:3", listener=DNS),), refuse=refuse, denies=(deny,))
    return Ruleset(1, {"agent": app})


@asynccontextmanager
async def opened(namespace: Namespace, folder: Path) -> AsyncIterator[Stand]:
    ruleset = rules(Refuse.SINKHOLE)
    async with composed(ruleset, "udp://127.0.0.1:9", folder) as parts:
        limits = Limits()
        peers = PeerTable(limits, time.time, lambda _: None)
        identifier = Identifier(ruleset, peers)
        desk = Desk(identifier, parts.audit, limits, parts.metrics, lambda: 1, time.time)
        sinkhole = Sinkhole(SinkholeSettings(str(V4), str(V6)), (DNS,), desk)
        resolver = Resolver(
            parts.authorizer, parts.lookup, parts.refusals, SUFFIXES, limits, parts.metrics,
            wall=time.time, entropy=os.urandom, sinkhole=sinkhole,
        )  # fmt: skip
        with namespace.entered():
            sinkhole.bind()
            udp = Do53Udp(bind_udp("127.0.0.1", 53), DNS, resolver, identifier, limits)
            tcp = Listener(
                bind_tcp("127.0.0.1", 53),
                lambda listener: Do53Tcp(listener, resolver, identifier, limits),
                64,
                lambda: None,
            )
        udp.start()
        await tcp.start()
        await sinkhole.start()
        try:
            yield Stand(namespace, parts, sinkhole)
        finally:
            udp.close()
            await tcp.close()
            await sinkhole.close()
            peers.close()


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    with Namespace.made("sink") as namespace:
        ip("-n", namespace.name, "address", "add", f"{V6}/128", "dev", "lo", "nodad")
        async with opened(namespace, tmp_path) as made:
            yield made


async def visits(stand: Stand) -> list[dict[str, Any]]:
    return [line for line in await stand.parts.lines() if "sinkhole" in line]


async def test_from_the_look_up_to_the_page_under_one_id(stand: Stand) -> None:
    assert stand.sinkhole.problem == ""
    answer = await stand.dig("+edns", "bad.example.com", "A")
    assert "status: NOERROR" in answer
    assert f"bad.example.com.    \t5\tIN\tA\t{V4}" in answer
    assert "sallyport rule " in answer
    assert str(V6) in await stand.dig("+tcp", "bad.example.com", "AAAA")
    assert "ANSWER: 0" in await stand.dig("bad.example.com", "TXT")
    ended = await stand.curl("http://bad.example.com/x", "--fail-with-body")
    assert ended.returncode == 22
    said = msgspec.json.decode(ended.stdout)
    assert (said["reason"], said["how"]) == ("rule", "known bad; ask the admin, with the id")
    (line,) = await visits(stand)
    assert line["refusal"] == str(said["instance"]).removeprefix("urn:uuid:").replace("-", "")
    assert (line["target"], line["asked_by"]) == ("bad.example.com:80", "agent")


async def test_a_browser_is_shown_a_page(stand: Stand) -> None:
    ended = await stand.curl("http://bad.example.com/", "-i", "-H", "Accept: text/html,*/*")
    assert ended.stdout.startswith("HTTP/1.1 403 sallyport rule ")
    assert "<h1>bad.example.com is refused here</h1>" in ended.stdout


async def test_by_tls_the_refusal_is_an_alert_and_no_certificate_is_shown(stand: Stand) -> None:
    ended = await stand.curl("https://bad.example.com/")
    assert ended.returncode == 35
    assert "access denied" in ended.stderr
    for version in ("-tls1_2", "-tls1_3"):
        where = ("-connect", f"[{V6}]:443", "-servername", "bad.example.com")
        said = await stand.run("openssl", "s_client", version, *where)
        assert "alert access denied" in said.stderr
        assert "no peer certificate available" in said.stdout
    lines = await visits(stand)
    assert {line["sinkhole"] for line in lines} == {"tls"}
    assert sum(line["count"] for line in lines) == 3
    assert all(line["refusal"] for line in lines)


async def test_a_dropped_name_is_silence_by_udp_and_by_tcp(stand: Stand) -> None:
    ruleset = msgspec.structs.replace(rules(Refuse.DROP), generation=2)
    stand.parts.authorizer.use(index_rules(ruleset))
    for transport in ("+notcp", "+tcp"):
        said = await stand.dig(transport, "bad.example.com")
        assert "status:" not in said
    assert "bad.example.com A" in {line["target"] for line in await stand.parts.lines()}


async def test_where_the_address_is_not_there_its_family_is_down_alone(
    tmp_path: Path, stand: Stand
) -> None:
    _ = stand
    folder = tmp_path / "other"
    folder.mkdir()
    with Namespace.made("sink6") as namespace:
        async with opened(namespace, folder) as other:
            assert f"`ip address add {V6} dev lo`" in other.sinkhole.problem
            assert "ANSWER: 0" in await other.dig("bad.example.com", "AAAA")
            assert str(V4) in await other.dig("bad.example.com", "A")


SUNK, ABSENT = "sunk.example.net", "absent.example.net"
IN_FORCE = """
apps:
  agent:
    identity: [{process: {uid: 0}}, {listener: "127.0.0.1:5300"}]
    allow: [{host: "*.example.net", types: [A, AAAA], ports: [80, 443]}]
lists:
  - {file: ../sunk.txt, refuse: sinkhole}
  - {file: ../absent.txt}
"""


class World(Shell):
    """An appliance with a sinkhole, and its audit."""

    appliance: Appliance

    def visits(self) -> list[Told]:
        return [line for line in self.appliance.audit() if "sinkhole" in line]

    def told(self, count: int) -> list[Told]:
        """Return the lines of visits, when there are so many of them."""
        until(lambda: len(self.visits()) >= count, f"audit has {count} visits", DENIED_S)
        return self.visits()

    def visit(self, url: str, *options: str, family: str = "A") -> subprocess.CompletedProcess[str]:
        """Let curl go where its name leads by a look-up."""
        host, port = url.split("/")[2], 443 if url.startswith("https") else 80
        looked_up = ["kdig", "@127.0.0.1", "-p", "5300", "+short", host, family]
        address = self.internet.run(looked_up).stdout.strip()
        return self.internet.run(
            ["curl", "-sS", "-m", "10", "--resolve", f"{host}:{port}:{address}", *options, url]
        )


@pytest.fixture(scope="class")
def world(internet: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(internet, Folders(tmp_path_factory.mktemp("sunk")))
    made.configure(f'sinkhole: {{v4: {V4}, v6: "{V6}"}}\n')
    made.folders.rule(IN_FORCE)
    for name in (SUNK, ABSENT):
        (made.folders.config / f"{name.partition('.')[0]}.txt").write_text(f"{name}\n")
    put = ("-n", internet.agent.name, "address")
    ip(*put, "add", f"{V6}/128", "dev", "lo", "nodad")
    try:
        with running(internet.agent, made.folders) as made.appliance:
            yield made
    finally:
        ip(*put, "delete", f"{V6}/128", "dev", "lo")


class TestAppliance:
    """All of it, as `sallyport up` has it."""

    def test_a_look_up_leads_to_a_page_that_says_why_under_its_id(self, world: World) -> None:
        assert "ANSWER: 0" in world.ask(ABSENT)
        assert f"\tAAAA\t{V6}" in world.ask(SUNK, rtype="AAAA")
        answer = world.ask(SUNK)
        assert f"\tA\t{V4}" in answer
        (refusal,) = re.findall(r"'sallyport list ([0-9a-f]{32}) ", answer)
        where = ("--resolve", f"{SUNK}:80:{V4}")
        get = ["curl", "-sSi", *where, f"http://{SUNK}/x"]
        page = world.internet.run([*get, "-H", "Accept: text/html"]).stdout
        assert page.startswith("HTTP/1.1 403 sallyport list ")
        assert f"<h1>{SUNK} is refused here</h1>" in page
        head, _, content = world.internet.run(get).stdout.partition("\n\n")
        assert "application/problem+json" in head
        problem = msgspec.json.decode(content)
        assert (problem["reason"], problem["app"], problem["target"]) == ("list", "agent", SUNK)
        (line,) = world.told(1)
        assert (line["sinkhole"], line["target"]) == ("http", f"{SUNK}:80")
        assert (line["app"], line["asked_by"], line["refusal"]) == ("agent", "agent", refusal)
        asked = world.control.get(f"/why/{refusal}")
        assert (asked["name"], asked["rule"]) == (SUNK, "../sunk.txt:1")

    def test_tls_is_ended_by_an_alert_over_both_families(self, world: World) -> None:
        before = len(world.visits())
        for family in ("A", "AAAA"):
            ended = world.visit(f"https://{SUNK}/", family=family)
            assert ended.returncode == 35
            assert "access denied" in ended.stderr
        lines = world.told(before + 1)[before:]
        assert {line["sinkhole"] for line in lines} == {"tls"}
        assert {line["target"] for line in lines} == {f"{SUNK}:443"}

    def test_on_the_proxy_plane_the_refusal_answers_and_nothing_is_dialled(
        self, world: World
    ) -> None:
        before = world.metric("sallyport_sinkhole_connections_total")
        for url in (f"https://{SUNK}/", f"http://{SUNK}/"):
            shown = world.fetch(url)
            assert "403 sallyport list" in shown
            assert "X-Deny-Reason: list" in shown
        for address in (str(V4), f"[{V6}]"):
            assert "403 sallyport" in world.fetch(f"http://{address}/")
        assert world.metric("sallyport_sinkhole_connections_total") == before
        assert not [line for line in world.internet.requests() if SUNK in line]
