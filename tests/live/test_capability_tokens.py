"""Capability tokens of the running product, and a resource server that takes them.

It verifies them by itself with the keys of `GET /jwks.json`, and may ask about each.
"""

import asyncio
import json
import ssl
import time
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.internet import Internet, until
from tests.live.appliance import Folders
from tests.live.attestation_stand import (
    ACCESS,
    EXCHANGE,
    JWT,
    PLAIN,
    TRUST,
    Agent,
    Json,
    Stand,
    standing,
)
from tests.resource_server import RefusedError, ResourceServer

pytestmark = pytest.mark.live

DOCUMENTS, SCOPE = f"{TRUST}/documents", "read-project-x:documents"
RULES = f"""
apps:
  planner:
    identity: [{{spiffe: "{TRUST}/planner"}}, {{listener: "127.0.0.1:3128"}}]
    allow: [{{host: example.com, ports: [80]}}]
    capabilities:
      - {{audience: "{DOCUMENTS}", scopes: ["{SCOPE}", list], ttl: 10m}}
      - {{audience: "https://brief.example", scopes: [read], ttl: 1s}}
  helper:
    identity: [{{spiffe: "{TRUST}/helper"}}]
    allow: []
    capabilities:
      - {{audience: "{DOCUMENTS}", scopes: ["{SCOPE}", list], ttl: 10m, on_behalf_of: [planner]}}
  stranger:
    identity: [{{spiffe: "{TRUST}/stranger"}}]
    allow: []
    capabilities: [{{audience: "{DOCUMENTS}", scopes: ["{SCOPE}"], ttl: 10m}}]
  documents:
    identity: [{{spiffe: "{DOCUMENTS}"}}]
    allow: []
"""


@pytest.fixture(scope="module")
def stand(internet: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with standing(internet, Folders(tmp_path_factory.mktemp("tokens")), RULES) as found:
        yield found


@pytest.fixture(scope="module")
def planner(stand: Stand) -> Agent:
    return stand.agent("planner")


@pytest.fixture(scope="module")
def documents(stand: Stand) -> Agent:
    return stand.agent("documents")


def granted(agent: Agent, scope: str = SCOPE) -> str:
    """Attest, and exchange that for a token."""
    found = agent.token(agent.attest()["token"], DOCUMENTS, scope).said
    assert found["token_type"] == "Bearer"  # noqa: S105 - RFC 6750
    assert found["scope"] == scope
    token: str = found["access_token"]
    return token


def claims_of(token: str) -> Json:
    claims: Json = json.loads(urlsafe_b64decode(token.split(".")[1] + "=="))
    return claims


def offline(documents: Agent, jwks: bytes | None = None) -> ResourceServer:
    """Return a resource server that asks for nothing but the keys."""
    known = jwks or json.dumps(documents.ask("/jwks.json").said).encode()
    return ResourceServer(DOCUMENTS, "sallyport.internal", lambda: known, time.time, scope=SCOPE)


@asynccontextmanager
async def served(stand: Stand, documents: Agent, *, asks: bool) -> AsyncIterator[str]:
    """Serve by mTLS; yield where.  `asks`: about each token."""

    async def introspect(token: str) -> Json:
        return await asyncio.to_thread(documents.introspect, token)

    known = await asyncio.to_thread(documents.ask, "/jwks.json")
    server = ResourceServer(
        DOCUMENTS,
        "sallyport.internal",
        json.dumps(known.said).encode,
        time.time,
        scope=SCOPE,
        is_bound=True,
        introspect=introspect if asks else None,
    )
    bundle = stand.desk.bundle(stand.folders.config / "bundle.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(bundle))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(*stand.internet.authority.issue(["localhost"]))
    with stand.internet.agent.entered():
        await server.start(context)
    try:
        yield f"https://localhost:{server.port}/documents"
    finally:
        await server.close()


async def shown(agent: Agent, url: str, token: str) -> str:
    """Show a token to a resource server, over the agent's own TLS."""
    tls = ("--cacert", agent.stand.internet.ca, "--cert", agent.chain, "--key", agent.key)
    header = f"Authorization: Bearer {token}"
    return await asyncio.to_thread(agent.run, "curl", "-sSi", *tls, "-H", header, url)


def test_a_token_says_who_may_do_what_and_for_how_long(planner: Agent, documents: Agent) -> None:
    token = granted(planner)
    claims = offline(documents).verify(token)
    assert claims["sub"] == claims["client_id"] == planner.spiffe_id
    assert (claims["aud"], claims["scope"]) == (DOCUMENTS, SCOPE)
    assert claims["exp"] - claims["iat"] <= 600
    assert (claims["level"], claims.get("act")) == ("software", None)


async def test_a_resource_server_takes_it_from_its_owner_alone(
    stand: Stand, planner: Agent, documents: Agent
) -> None:
    """threats.md, "Attestation": a token is copied to another key."""
    token = await asyncio.to_thread(granted, planner)
    thief = stand.agent("planner", "thief")
    async with served(stand, documents, asks=False) as url:
        assert '"documents": ["a"]' in await shown(planner, url, token)
        said = await shown(thief, url, token)
        assert "HTTP/1.1 401" in said
        assert "bound to another certificate" in said
        assert "HTTP/1.1 401" in await shown(planner, url, planner.attest()["token"])
        assert "HTTP/1.1 403" in await shown(planner, url, granted(planner, "list"))


async def test_a_resource_server_that_asks_refuses_what_was_revoked(
    stand: Stand, planner: Agent, documents: Agent
) -> None:
    token = await asyncio.to_thread(granted, planner)
    async with served(stand, documents, asks=True) as url:
        assert "200 OK" in await shown(planner, url, token)
        file = planner.folder / "token"
        file.write_text(token)
        ended = await asyncio.to_thread(planner.sallyport, "exchange", "--revoke", file)
        assert (ended.returncode, "given back" in ended.stderr) == (0, True)
        said = await shown(planner, url, token)
        assert "HTTP/1.1 401" in said
        assert "the token is void" in said


def test_the_command_exchanges(planner: Agent, documents: Agent) -> None:
    token = planner.exchange(DOCUMENTS, SCOPE)
    assert documents.introspect(token)["active"] is True


def test_a_token_is_verified_after_the_keys_were_rotated(
    stand: Stand, planner: Agent, documents: Agent
) -> None:
    """What was signed before stays good; what is signed after is good as well."""
    before = granted(planner)
    for what in ("jwt", "intermediate"):
        stand.desk.cli("ca", "rotate", what)
    offline(documents).verify(before)
    assert documents.introspect(before)["active"] is True
    after = granted(planner)
    offline(documents).verify(after)
    assert documents.introspect(after)["active"] is True


def test_a_key_that_was_stolen_signs_nothing_that_counts(
    stand: Stand, planner: Agent, documents: Agent
) -> None:
    before = granted(planner)
    stand.desk.cli("ca", "rotate", "jwt", "--forget")
    with pytest.raises(RefusedError, match="nobody's key has that kid"):
        offline(documents).verify(before)
    offline(documents).verify(granted(planner))


@pytest.mark.parametrize("who", ["planner", "documents", "stranger"])
def test_those_whom_a_token_concerns_are_told_of_it(stand: Stand, planner: Agent, who: str) -> None:
    token = granted(planner)
    told = stand.agent(who).introspect(token)
    if who == "stranger":
        assert told == {"active": False}
        assert stand.agent(who).ask("/revoke", token=token).content != {"active": True}
        assert planner.introspect(token)["active"] is True
        return
    claims = claims_of(token)
    for name in ("iss", "sub", "aud", "client_id", "scope", "exp", "jti", "cnf"):
        assert told[name] == claims[name]


def test_nobody_is_told_on_a_plain_port(planner: Agent) -> None:
    form = ("--data-urlencode", f"token={granted(planner)}")
    said = planner.curl("http://sallyport.internal/introspect", *form, proxy=PLAIN)
    assert '"active":true' not in said


@pytest.mark.parametrize("by", ["owner", "admin by id", "admin by token"])
def test_a_revocation_is_in_force_at_once(
    stand: Stand, planner: Agent, documents: Agent, by: str
) -> None:
    token, other = granted(planner), granted(planner)
    if by == "owner":
        assert planner.ask("/revoke", token=token).status == 200
    else:
        which = token if by == "admin by token" else claims_of(token)["jti"]
        said = stand.desk.run("capabilities", "revoke", which, "--why", "a test")
        assert said.returncode == 0, said.stderr
        assert token not in said.stdout + said.stderr
    assert documents.introspect(token) == {"active": False}
    assert documents.introspect(other)["active"] is True
    listed = json.loads(stand.desk.cli("capabilities", "list", "--json"))
    states = {each["id"]: each["state"] for each in listed}
    assert states[claims_of(token)["jti"]] == "void"
    assert states[claims_of(other)["jti"]] == "current"
    stand.await_change("token-revoked", why="revoked by planner" if by == "owner" else "a test")
    jti = claims_of(token)["jti"]
    until(lambda: any(jti in each["tokens"] for each in stand.changes("token-revoked")), "a line")


def passed_on(helper: Agent, subject: str, scope: str = SCOPE) -> Json:
    """Exchange somebody else's token for one of our own."""
    own = helper.attest()["token"]
    more = {"subject_token_type": ACCESS, "actor_token": own, "actor_token_type": JWT}
    return helper.token(subject, DOCUMENTS, scope, **more).said


def test_a_token_is_passed_on_with_the_chain_of_those_who_act(
    stand: Stand, planner: Agent, documents: Agent
) -> None:
    helper, subject = stand.agent("helper"), granted(planner)
    token = passed_on(helper, subject)["access_token"]
    claims = offline(documents).verify(token)
    assert (claims["sub"], claims["client_id"]) == (planner.spiffe_id, helper.spiffe_id)
    assert claims["act"]["sub"] == helper.spiffe_id
    assert claims["exp"] <= claims_of(subject)["exp"]
    assert documents.introspect(token)["act"] == claims["act"]
    # What a token was made of takes it along.
    assert planner.ask("/revoke", token=subject).status == 200
    assert documents.introspect(token) == {"active": False}


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("scope", "invalid_scope"),
        ("audience", "invalid_target"),
        ("another's result", "invalid_request"),
        ("another app", "invalid_request"),
    ],
)
def test_what_no_rule_grants_is_refused(
    stand: Stand, planner: Agent, what: str, error: str
) -> None:
    proof = planner.attest()["token"]
    other = stand.agent("planner", "thief")
    answers = {
        "scope": lambda: planner.token(proof, DOCUMENTS, f"{SCOPE} write"),
        "audience": lambda: planner.token(proof, "https://other.example", SCOPE),
        "another's result": lambda: other.token(proof, DOCUMENTS, SCOPE),
        "another app": lambda: stand.agent("stranger").token(
            granted(planner),
            DOCUMENTS,
            SCOPE,
            subject_token_type=ACCESS,
            actor_token=stand.agent("stranger").attest()["token"],
            actor_token_type=JWT,
        ),
    }
    answer = answers[what]()
    assert answer.status == 400
    assert answer.content["error"] in {error, "invalid_target"}
    assert stand.await_change("exchange-refused")["verdict"] == "deny"


def test_a_token_needs_a_result_that_stands(planner: Agent) -> None:
    old = planner.attest()["token"]
    nonce = planner.ask("/attest/nonce", {}).said["nonce"]
    failing = {"nonce": nonce, "evidence": "software", "key": "AAAA", "signature": "AAAA"}
    assert planner.ask("/attest", failing).status == 403
    assert planner.token(old, DOCUMENTS, SCOPE).content["error"] == "invalid_request"
    form = []
    for each in (
        f"grant_type={EXCHANGE}",
        f"subject_token={planner.attest()['token']}",
        f"subject_token_type={JWT}",
        f"audience={DOCUMENTS}",
        f"scope={SCOPE}",
    ):
        form += ["--data-urlencode", each]
    said = planner.curl("http://sallyport.internal/token", *form, proxy=PLAIN)
    assert '"error":"invalid_client"' in said


def test_the_example_in_python_does_it_all(stand: Stand, planner: Agent, documents: Agent) -> None:
    """docs/examples/sallyport_agent.py, as it stands there."""
    with stand.internet.agent.entered():
        agent = planner.module()
        token = agent.exchange(DOCUMENTS, SCOPE)
        heard = agent.heartbeat("ok")
    assert documents.introspect(token)["active"] is True
    assert heard["attested"]
    assert not heard["revoked"]


def test_the_example_in_shell_does_it_all(stand: Stand, planner: Agent, documents: Agent) -> None:
    """docs/examples/attest.sh, as it stands there: attest, a gated page, a token."""
    script = Path(__file__).parents[2] / "docs" / "examples" / "attest.sh"
    where = ("localhost:8443", "localhost:3129", "http://example.com/", DOCUMENTS, SCOPE)
    ended = stand.internet.run(["sh", "-c", 'cd "$0" && exec "$@"', planner.folder, script, *where])
    assert ended.returncode == 0, ended.stderr
    assert "An example" in ended.stdout
    assert documents.introspect(ended.stdout.splitlines()[-1])["active"] is True
    assert "attested: software" in ended.stderr


def test_what_happened_is_in_audit_and_metrics(
    stand: Stand, planner: Agent, documents: Agent
) -> None:
    before = stand.metrics()
    token = granted(planner)
    documents.introspect(token)
    planner.token("eyJ.a.b", DOCUMENTS, SCOPE)
    planner.ask("/revoke", token=token)
    documents.introspect(token)
    after = stand.metrics()
    for name, more in (
        ('sallyport_capability_exchanges_total{outcome="granted"}', 1),
        ('sallyport_capability_introspections_total{state="active"}', 1),
        ('sallyport_capability_introspections_total{state="inactive"}', 1),
        ("sallyport_capabilities_voided_total", 1),
    ):
        assert after[name] == before[name] + more, name
    assert after["sallyport_capabilities"] >= 0
    refused = "sallyport_capability_exchanges_total"
    assert sum(value for name, value in after.items() if name.startswith(refused)) >= 2 + sum(
        value for name, value in before.items() if name.startswith(refused)
    )
    line = stand.await_change("exchanged", app="planner", target=DOCUMENTS)
    assert line["scope"] == SCOPE


def test_audit_names_the_token(stand: Stand, planner: Agent) -> None:
    """What revokes a token names its id: the line of the exchange has that id as well."""
    jti = claims_of(granted(planner))["jti"]

    def is_named() -> bool:
        return any(jti in each.values() for each in stand.changes("exchanged"))

    until(is_named, "the id in a line")
