"""What an attestation opened, and what ends it: time, a change, an admin; and restarts.

Tunnels are held by the test's own ends, so that a reset can be told from an end.
"""

import asyncio
import contextlib
import json
import os
import re
import socket
import ssl
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from tests import swtpm
from tests.internet import Internet, until
from tests.live.appliance import Folders
from tests.live.attestation_stand import (
    COM,
    PAGE,
    PATIENCE_S,
    TRUST,
    TUNNEL_PORT,
    Agent,
    Stand,
    standing,
)
from tests.live.legs import Leg, endings
from tests.swtpm import Swtpm, Vendor

pytestmark = pytest.mark.live

PCR, NO_MEASUREMENT = 16, "0" * 64
DOCUMENTS = f"{TRUST}/documents"
SCOPE = "read-project-x:documents"
REFUSED = "attestation-required"
TUNNELS = f"{{host: example.com, ports: [{TUNNEL_PORT}], tls: false}}"
SITES = "{host: [example.com, example.org], ports: [80, 443]}"


def app(name: str, require: str, *more: str) -> str:
    lines = [
        f'identity: [{{spiffe: "{TRUST}/{name}"}}]',
        f"require: [{require}]",
        f"allow: [{SITES}, {TUNNELS}]",
        f'capabilities: [{{audience: "{DOCUMENTS}", scopes: ["{SCOPE}"], ttl: 10m}}]',
        *more,
    ]
    return f"  {name}:\n" + "".join(f"    {line}\n" for line in lines)


RULES = "apps:\n" + "".join(
    (
        app("brief", "{attested: {max_age: 3s}}"),
        app("filled", "{attested: {max_age: 12s}}"),  # a tunnel fills meanwhile
        app("worker", "attested"),
        app("machine", "{attested: {level: tpm}}", f"reference_values: {{pcrs: {{{PCR}: "
            f'"{NO_MEASUREMENT}"}}}}'),
        f'  documents:\n    identity: [{{spiffe: "{DOCUMENTS}"}}]\n    allow: []\n',
    )
)  # fmt: skip


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swtpm]:
    if why := swtpm.missing():
        pytest.skip(why)
    with Swtpm(tmp_path_factory.mktemp("tpm"), Vendor()) as stand:
        yield stand


def believing(vendor: Vendor, folder: Path) -> str:
    """Return a configuration that believes the TPMs of a vendor; a result lives for 30 s."""
    pems = (ssl.DER_cert_to_PEM_cert(each) for each in (vendor.root, *vendor.above))
    file = folder / "tpm-root.pem"
    file.write_text("".join(pems))
    return f"attestation: {{ttl: 30s, ek_roots: [{file}]}}"


@pytest.fixture(scope="module")
def stand(
    internet: Internet, tmp_path_factory: pytest.TempPathFactory, tpm: Swtpm
) -> Iterator[Stand]:
    root = tmp_path_factory.mktemp("flows")
    with standing(internet, Folders(root), RULES, believing(tpm.vendor, root)) as found:
        yield found


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return re.sub(r"\W", "-", request.node.name)


@asynccontextmanager
async def watched(
    stand: Stand, *agents: Agent, is_saturated: bool
) -> AsyncIterator[tuple["asyncio.Future[list[str]]", list[tuple[Leg, Leg]]]]:
    """Open a tunnel with each; yield how the first one's legs end, and the others."""
    async with stand.tunnels(*agents) as [first, *others]:
        ends = await endings(first, is_saturated=is_saturated)
        ended = asyncio.gather(*ends)
        how = asyncio.ensure_future(_how(ended))
        try:
            yield how, others
        finally:
            how.cancel()
            ended.cancel()
            await asyncio.gather(how, ended, return_exceptions=True)


async def _how(ended: "asyncio.Future[list[tuple[str, float]]]") -> list[str]:
    return [how for how, _ in await ended]


async def carries(leg: Leg, other: Leg) -> bool:
    """Return whether what is written at one end comes out at the other."""
    leg.writer.write(b"still")
    async with asyncio.timeout(PATIENCE_S):
        return await other.reader.readexactly(5) == b"still"


@pytest.mark.parametrize("is_saturated", [False, True])
async def test_a_tunnel_is_cut_when_its_proof_is_too_old_and_its_neighbour_is_not(
    stand: Stand, name: str, *, is_saturated: bool
) -> None:
    """threats.md, "Attestation": a result that ends while a flow is open."""
    who = "filled" if is_saturated else "brief"
    agent, neighbour = stand.agent(who, name), stand.agent("worker", f"{name}-neighbour")
    for each in (neighbour, agent):
        await asyncio.to_thread(each.attest)
    async with watched(stand, agent, neighbour, is_saturated=is_saturated) as (how, [(near, far)]):
        async with asyncio.timeout(PATIENCE_S):
            assert await how == ["reset", "reset"]
        assert await carries(near, far)
        assert await carries(far, near)
    line = await asyncio.to_thread(await_cut, stand, who)
    assert line["reason"] == REFUSED
    assert REFUSED in agent.curl("http://example.com/")


def await_cut(stand: Stand, who: str) -> dict[str, object]:
    """Wait until audit tells of a tunnel of an app that was cut."""

    def found() -> list[dict[str, object]]:
        lines = stand.desk.lines(app=who, plane="http")
        return [line for line in lines if line["reason"] in {REFUSED, "revoked"}]

    until(lambda: bool(found()), f"a line of a cut of {who}", PATIENCE_S)
    return found()[-1]


async def test_a_tunnel_lives_past_many_ages_while_its_agent_attests_again(
    stand: Stand, name: str
) -> None:
    """A witness of the same age, which does not attest again, is cut twice meanwhile."""
    agent, witness = stand.agent("brief", name), stand.agent("brief", f"{name}-witness")
    going = asyncio.Event()

    async def attesting() -> None:
        while not going.is_set():
            await asyncio.to_thread(agent.attest)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(going.wait(), 0.5)

    await asyncio.to_thread(agent.attest)
    task = asyncio.create_task(attesting())
    async with stand.tunnels(agent) as [(near, far)]:
        await asyncio.to_thread(_lapse_twice, witness)
        assert await carries(near, far)
        assert await carries(far, near)
    going.set()
    await task


def _lapse_twice(witness: Agent) -> None:
    for _ in range(2):
        witness.attest()
        assert PAGE in witness.curl("http://example.com/")
        until(lambda: REFUSED in witness.curl("http://example.com/"), "a lapse", PATIENCE_S)


async def test_a_warm_cache_does_not_answer_after_a_lapse(stand: Stand, name: str) -> None:
    """threats.md, "Attestation": answers that are cached for an app that was attested."""
    agent, neighbour = stand.agent("brief", name), stand.agent("brief", f"{name}-neighbour")
    agent.attest()
    for _ in range(3):
        assert COM in agent.doh()[1]
    until(lambda: "REFUSED" in agent.doh()[1], "refused once the proof is old", PATIENCE_S)
    assert REFUSED in agent.doh()[1]
    for plane in ("dot", "doh"):
        assert REFUSED in agent.kdig(plane)
    neighbour.attest()
    assert COM in neighbour.doh()[1]
    assert "REFUSED" in agent.doh()[1]


async def test_keep_fresh_holds_a_tunnel_past_the_end_of_results(stand: Stand, name: str) -> None:
    """A result lives for 30 s here, and its tunnel with it; `--keep-fresh` attests before that."""
    agent, witness = stand.agent("worker", name), stand.agent("worker", f"{name}-witness")
    token_file = agent.folder / "token"
    with agent.keeping("--heartbeat", "--file", token_file) as keeping:
        await asyncio.to_thread(keeping.until, "attested as software for")
        await asyncio.to_thread(witness.attest)
        first = token_file.read_text()
        async with watched(stand, witness, agent, is_saturated=False) as (how, [(near, far)]):
            async with asyncio.timeout(PATIENCE_S):
                assert await how == ["reset", "reset"]
            await asyncio.to_thread(keeping.until, "attested as software for", 3)
            assert await carries(near, far)
            assert await carries(far, near)
        assert PAGE in agent.curl("http://example.com/")
        assert REFUSED in witness.curl("http://example.com/")
        assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
        assert token_file.read_text() != first
        # The first one has expired; so it is nobody's any more.
        assert agent.doh(first.strip())[0] == 401
        assert COM in agent.doh(token_file.read_text().strip())[1]
        assert keeping.end() == 0
    assert not token_file.exists()


def test_keep_fresh_hands_out_the_token_over_a_descriptor(stand: Stand, name: str) -> None:
    agent = stand.agent("worker", name)
    fd = os.memfd_create("token")
    try:
        with agent.keeping("--fd", str(fd), fds=(fd,)) as keeping:
            until(lambda: os.pread(fd, 65536, 0).endswith(b"\n"), "a line", PATIENCE_S)
            token = os.pread(fd, 65536, 0).decode().strip()
            assert COM in agent.doh(token)[1]
            assert keeping.end() == 0
        assert os.pread(fd, 65536, 0).strip() == b""
    finally:
        os.close(fd)


def test_keep_fresh_hands_out_the_token_over_a_socket(stand: Stand, name: str) -> None:
    agent = stand.agent("worker", name)
    place = Path(stand.folders.env["HOME"], "token.sock")
    with agent.keeping("--socket", place) as keeping:
        keeping.until("attested as software for")
        token = read_socket(place)
        assert COM in agent.doh(token)[1]
        # A new certificate is of a new key: it is attested anew, at once.
        agent.renew()
        keeping.until("the certificate is a new one")
        keeping.until("attested as software for", 2)
        until(lambda: read_socket(place) not in {"", token}, "another token", PATIENCE_S)
        assert COM in agent.doh(read_socket(place))[1]
        assert agent.doh(token)[0] == 401
        assert keeping.end() == 0
    assert not place.exists()


def read_socket(place: Path) -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE_S)
        client.connect(str(place))
        with client.makefile() as lines:
            return lines.read().strip()


def changed_pcr(agent: Agent, tpm: Swtpm) -> None:
    """Measure something else, and attest: the evidence shows it."""
    tpm.extend(PCR, b"something else")
    ended = agent.sallyport("attest", *by(tpm))
    assert ended.returncode == 1
    assert f"PCR {PCR}" in ended.stderr, ended.stderr


def by(tpm: Swtpm) -> tuple[str, ...]:
    return ("--tpm", tpm.tcti, "--pcrs", str(PCR))


@pytest.mark.parametrize("is_saturated", [False, True])
@pytest.mark.parametrize("kind", ["pcr", "spiffe-id", "serial", "app"])
async def test_what_ends_the_proof_cuts_at_once_and_voids_all_that_came_of_it(
    stand: Stand, tpm: Swtpm, name: str, kind: str, *, is_saturated: bool
) -> None:
    """threats.md, "Attestation": a changed PCR; and what an admin revokes."""
    agent = stand.agent("machine", name)
    neighbour, documents = stand.agent("worker", f"{name}-n"), stand.agent("documents")
    tpm.restart()
    proof = await asyncio.to_thread(agent.command, *by(tpm))
    assert proof["level"] == "tpm"
    capability = agent.token(proof["token"], DOCUMENTS, SCOPE).said["access_token"]
    assert documents.introspect(capability)["active"] is True
    assert COM in agent.doh()[1]
    await asyncio.to_thread(neighbour.attest)
    async with watched(stand, agent, neighbour, is_saturated=is_saturated) as (how, [(near, far)]):
        with ended(agent, tpm, kind):
            async with asyncio.timeout(PATIENCE_S):
                assert await how == ["reset", "reset"]
            assert await carries(near, far)
            assert documents.introspect(capability) == {"active": False}
            said = agent.doh()[1]
            assert COM not in said
            assert "revoked" in said
            assert "revoked" in agent.curl("http://example.com/")
            states = json.loads(stand.desk.cli("agents", "--json"))
            mine = {each["state"] for each in states if each["agent"] == agent.spiffe_id}
            assert "revoked" in mine
    assert documents.introspect(capability) == {"active": False}  # a token stays void


@contextmanager
def ended(agent: Agent, tpm: Swtpm, kind: str) -> Iterator[None]:
    """Put an end to the proof, as the TPM shows it or an admin says; undone afterwards."""
    desk = agent.stand.desk
    names = {"spiffe-id": agent.spiffe_id, "app": agent.app}
    what, kind_said = names.get(kind, agent.serial), "serial" if kind == "pcr" else kind
    if kind == "pcr":
        changed_pcr(agent, tpm)
    else:
        desk.cli("revoke", what, "--kind", kind, "--why", "a test")
    try:
        listed = json.loads(desk.cli("revoked", "--json"))
        assert (kind_said, what) in [(each["kind"], each["value"]) for each in listed]
        yield
    finally:
        desk.cli("restore", what, "--kind", kind_said)


def test_a_changed_pcr_is_in_audit(stand: Stand, tpm: Swtpm, name: str) -> None:
    """Each of the refusal, the results that are void, the tokens and the certificate."""
    agent = stand.agent("machine", name)
    tpm.restart()
    proof = agent.command(*by(tpm))
    capability = agent.token(proof["token"], DOCUMENTS, SCOPE).said
    assert capability["expires_in"] > 0
    word = f"PCR {PCR} is"
    told = {each: len(stand.changes(each)) for each in ("attest-refused", "tokens-void")}
    with ended(agent, tpm, "pcr"):
        assert stand.await_word("attest-refused", word, told["attest-refused"])["outcome"] == (
            "changed"
        )
        stand.await_word("tokens-void", word, told["tokens-void"])
        line = stand.await_change("revoked", target=agent.serial)
        assert word in line["why"]
        # Earlier ones of the same agent are there already.
        found = stand.await_change("attestation-void", result=proof["id"])
        assert found["target"] == agent.spiffe_id
