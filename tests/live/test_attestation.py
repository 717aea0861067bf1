"""The gate, with real clients: what is refused before `sallyport attest`, and passes after it.

By app, host, method and path; on DoT, DoH and the proxy over TLS; never on a plain port.
"""

import json
from collections.abc import Iterator

import pytest

from tests.internet import Internet
from tests.live.appliance import Folders
from tests.live.attestation_stand import (
    COM,
    PAGE,
    PLAIN,
    PROXY,
    TRUST,
    WHERE,
    Agent,
    Json,
    Stand,
    standing,
)

pytestmark = pytest.mark.live

RULES = f"""
apps:
  whole:
    identity:
      - {{spiffe: "{TRUST}/whole"}}
      - {{listener: "127.0.0.1:3128"}}
      - {{listener: "127.0.0.1:5300"}}
    require: [attested]
    allow: [{{host: [example.com, "*.example.com"], ports: [80, 443]}}]
  parts:
    identity: [{{spiffe: "{TRUST}/parts"}}]
    allow:
      - {{name: open, host: example.org, ports: [80, 443]}}
      - {{name: host, host: [example.com, git.example.com], ports: [80, 443], require: [attested]}}
      - {{name: read, host: www.example.com, ports: [80], methods: [GET]}}
      - {{name: write, host: www.example.com, ports: [80], methods: [PUT], require: [attested]}}
      - {{name: echo, host: api.example.com, ports: [80], paths: [/echo]}}
      - name: files
        host: api.example.com
        ports: [80]
        paths: ["/files/**"]
        require: [attested]
  strict:
    identity: [{{spiffe: "{TRUST}/strict"}}]
    require: [{{attested: {{level: tpm, max_age: 60s}}}}]
    allow: [{{host: example.com, ports: [80]}}]
    reference_values: {{pcrs: {{16: "{"0" * 64}"}}}}
"""
NEEDED = "nothing fresh is proven, level software is needed; run `sallyport attest`"
REFUSED = "attestation-required"
GIT = "git/project.git"
# What passes without an attestation and what does not, by rule: method and URL.
OPEN = {
    "host": ("GET", "http://example.org/echo"),
    "method": ("GET", "http://www.example.com/echo"),
    "path": ("GET", "http://api.example.com/echo"),
}
GATED = {
    "host": ("GET", "http://example.com/echo"),
    "method": ("PUT", "http://www.example.com/echo"),
    "path": ("GET", "http://api.example.com/files/one.txt"),
}


@pytest.fixture(scope="module")
def stand(internet: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with standing(internet, Folders(tmp_path_factory.mktemp("gate")), RULES) as found:
        yield found


@pytest.fixture
def agent(stand: Stand, request: pytest.FixtureRequest) -> Agent:
    """An agent of `whole` that has not attested: each test has another key."""
    return stand.agent("whole", request.node.name)


@pytest.fixture
def parts(stand: Stand, request: pytest.FixtureRequest) -> Agent:
    return stand.agent("parts", request.node.name)


def fetched(agent: Agent, what: tuple[str, str]) -> str:
    return agent.curl(what[1], "-X", what[0])


@pytest.mark.parametrize("plane", WHERE)
def test_a_name_is_answered_once_the_agent_has_attested(agent: Agent, plane: str) -> None:
    said = agent.kdig(plane)
    assert "status: REFUSED" in said
    assert f"EDE: 18 (Prohibited): 'sallyport {REFUSED}" in said
    assert f"how: {NEEDED}" in said
    agent.command()
    said = agent.kdig(plane)
    assert "status: NOERROR" in said
    assert COM in said


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_page_is_fetched_once_the_agent_has_attested(agent: Agent, scheme: str) -> None:
    said = agent.curl(f"{scheme}://example.com/")
    assert f"HTTP/1.1 403 sallyport {REFUSED}" in said
    assert f"X-Deny-Reason: {REFUSED}" in said
    agent.command()
    assert PAGE in agent.curl(f"{scheme}://example.com/")


def test_a_refusal_says_what_to_do(agent: Agent) -> None:
    told = json.loads(agent.curl("http://example.com/").splitlines()[-1])
    assert (told["status"], told["reason"], told["app"]) == (403, REFUSED, "whole")
    assert told["how"].startswith(NEEDED)
    assert "POST /attest/nonce at sallyport.internal" in told["how"]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_git_clones_once_the_agent_has_attested(parts: Agent, scheme: str) -> None:
    settings = {
        "http.proxy": PROXY,
        "http.proxySSLCAInfo": parts.ca,
        "http.proxySSLCert": parts.chain,
        "http.proxySSLKey": parts.key,
        "http.sslCAInfo": parts.stand.internet.ca,
    }
    words = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
    clone = ["clone", "-q", f"{scheme}://git.example.com/{GIT}"]
    said = parts.run("git", *words, *clone, parts.folder / "before")
    assert "403" in said
    parts.attest()
    parts.run("git", *words, *clone, parts.folder / "after")
    assert (parts.folder / "after" / ".git").is_dir()


@pytest.mark.parametrize("by", GATED)
def test_a_rule_gates_what_it_names_and_nothing_beside_it(parts: Agent, by: str) -> None:
    assert "200 OK" in fetched(parts, OPEN[by])
    said = fetched(parts, GATED[by])
    assert f"403 sallyport {REFUSED}" in said
    assert NEEDED in said
    parts.attest()
    said = fetched(parts, GATED[by])
    assert REFUSED not in said
    assert "HTTP/1.1 200" in said or "HTTP/1.1 405" in said  # nginx has no PUT
    assert "200 OK" in fetched(parts, OPEN[by])


@pytest.mark.parametrize("plane", WHERE)
def test_a_look_up_is_gated_by_host(parts: Agent, plane: str) -> None:
    assert "status: NOERROR" in parts.kdig(plane, "example.org")
    assert REFUSED in parts.kdig(plane, "example.com")
    parts.attest()
    assert COM in parts.kdig(plane, "example.com")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_on_a_plain_port_nothing_counts(agent: Agent, scheme: str) -> None:
    """The same app, attested on its own key: what has no key has no attestation."""
    agent.attest()
    said = agent.curl(f"{scheme}://example.com/", proxy=PLAIN)
    assert f"403 sallyport {REFUSED}" in said
    if scheme == "http":
        assert "on a plain port nothing counts: use proxy_tls" in said


def test_over_plain_dns_nothing_counts(agent: Agent) -> None:
    agent.attest()
    said = agent.run("kdig", "@127.0.0.1", "-p", "5300", "+edns", "+retry=0", "example.com")
    assert "status: REFUSED" in said
    assert "EDE: 18" in said
    assert "on a plain port nothing counts" in said


def test_nobody_attests_on_a_plain_port(agent: Agent) -> None:
    url = "http://sallyport.internal/attest/nonce"
    said = agent.curl(url, "-X", "POST", "--json", "{}", proxy=PLAIN)
    assert "HTTP/1.1 403" in said
    assert json.loads(said.splitlines()[-1])["reason"] == REFUSED


def test_the_proxy_over_tls_takes_evidence_too(agent: Agent) -> None:
    found = agent.stand.desk.run(
        "attest", "--proxy", PROXY, "--folder", agent.folder, "--ca", agent.ca
    )
    assert found.returncode == 0, found.stderr
    assert PAGE in agent.curl("http://example.com/")


def test_an_attestation_is_its_keys_alone(agent: Agent, stand: Stand) -> None:
    """threats.md, "Attestation": another key of the same app has proven nothing."""
    other = stand.agent("whole", f"{agent.folder.name}-other")
    agent.attest()
    assert PAGE in agent.curl("http://example.com/")
    assert REFUSED in other.curl("http://example.com/")
    assert REFUSED in other.kdig("dot")


def test_a_level_that_is_too_low_is_said_to_be(stand: Stand) -> None:
    agent = stand.agent("strict")
    agent.attest()
    for said in (agent.curl("http://example.com/"), agent.kdig("dot")):
        assert REFUSED in said
        assert "proven is level software, needed is tpm" in said


def failing(agent: Agent) -> Json:
    """Return evidence with a nonce that counts, and nothing else that does."""
    nonce = agent.ask("/attest/nonce", {}).said["nonce"]
    return {"nonce": nonce, "evidence": "software", "key": "AAAA", "signature": "AAAA"}


class TestPresented:
    """A result that is presented as well has to be that of the connection."""

    HEADER = "Proxy-Authorization: Bearer"

    def test_passes_on_its_own_key(self, agent: Agent) -> None:
        token = agent.attest()["token"]
        for scheme in ("http", "https"):
            said = agent.curl(
                f"{scheme}://example.com/", "--proxy-header", f"{self.HEADER} {token}"
            )
            assert PAGE in said
        assert COM in agent.doh(token)[1]

    def test_is_refused_on_another_key_of_the_same_app(self, agent: Agent, stand: Stand) -> None:
        """threats.md, "Attestation": a token is copied to another key."""
        other = stand.agent("whole", f"{agent.folder.name}-other")
        token = agent.attest()["token"]
        other.attest()
        said = other.curl("http://example.com/", "--proxy-header", f"{self.HEADER} {token}")
        assert f"403 sallyport {REFUSED}" in said
        assert "the result is bound to another TLS key" in said
        status, text = other.doh(token)
        assert status == 401
        assert "the result is bound to another TLS key" in text
        assert REFUSED in other.curl(
            "https://example.com/", "--proxy-header", f"{self.HEADER} {token}"
        )

    def test_is_refused_on_a_plain_port(self, agent: Agent) -> None:
        token = agent.attest()["token"]
        shown = ("--proxy-header", f"{self.HEADER} {token}")
        said = agent.curl("http://example.com/", *shown, proxy=PLAIN)
        assert f"403 sallyport {REFUSED}" in said
        assert "this connection shows none: use a TLS listener" in said
        said = agent.curl("https://example.com/", *shown, proxy=PLAIN)
        assert f"403 sallyport {REFUSED}" in said

    def test_is_refused_once_it_is_void(self, agent: Agent) -> None:
        """A newer one in its place does it no harm; evidence that fails ends both."""
        old, new = agent.attest()["token"], agent.attest()["token"]
        for token in (old, new):
            assert COM in agent.doh(token)[1]
        assert agent.ask("/attest", failing(agent)).status == 403
        for token in (old, new):
            said = agent.curl("http://example.com/", "--proxy-header", f"{self.HEADER} {token}")
            assert "403 sallyport identity-unknown" in said
            assert "or it has ended: attest again" in said
            assert agent.doh(token)[0] == 401

    @pytest.mark.parametrize("part", [0, 1, 2])
    def test_is_refused_with_any_part_of_it_changed(self, agent: Agent, part: int) -> None:
        """threats.md, "Attestation": the header is never read, nor are the claims."""
        parts = agent.attest()["token"].split(".")
        parts[part] = parts[part][:-1] + ("A" if parts[part][-1] != "A" else "B")
        forged = ".".join(parts)
        said = agent.curl("http://example.com/", "--proxy-header", f"{self.HEADER} {forged}")
        assert "403 sallyport identity-unknown" in said or "407" in said
        assert PAGE not in said
        assert agent.doh(forged)[0] == 401


def test_explain_says_what_an_attestation_would_do(stand: Stand) -> None:
    ended = stand.desk.run("explain", "whole", "http://example.com/", "--evidence", "certificate")
    assert ended.returncode == 1
    assert REFUSED in ended.stdout
    attested = ("--evidence", "certificate", "--attested", "software")
    assert stand.desk.run("explain", "whole", "http://example.com/", *attested).returncode == 0
    assert stand.desk.run("explain", "strict", "http://example.com/", *attested).returncode == 1


def test_why_explains_a_refusal(agent: Agent, stand: Stand) -> None:
    told = json.loads(agent.curl("http://example.com/").splitlines()[-1])
    unique = told["instance"].removeprefix("urn:uuid:").replace("-", "")
    line = json.loads(stand.desk.cli("why", unique, "--json"))
    assert (line["app"], line["reason"]) == ("whole", REFUSED)
    assert REFUSED in stand.desk.cli("why", unique)
    assert REFUSED in stand.desk.cli("why", "--last", "--app", "whole")


def test_what_happened_is_in_audit_and_metrics(agent: Agent, stand: Stand) -> None:
    before = stand.metrics()
    found = agent.command("--agent-hash", "what I say I am", "--version", "1.4")
    line = stand.await_change("attested", agent_hash="what I say I am")
    assert (line["app"], line["verdict"], line["target"]) == ("whole", "allow", agent.spiffe_id)
    assert (line["level"], line["version"]) == ("software", "1.4")
    assert line["binding"] == f"key {found['binding']}"
    assert agent.ask("/attest", failing(agent)).status == 403
    line = stand.await_change("attest-refused", target=agent.spiffe_id, outcome="failed")
    assert (line["verdict"], line["reason"]) == ("deny", REFUSED)
    assert REFUSED in agent.curl("http://example.com/")  # what failed voids what stood
    after = stand.metrics()
    for outcome in ("attested", "failed"):
        name = f'sallyport_attestations_total{{level="software",outcome="{outcome}"}}'
        assert after[name] == before[name] + 1
    count = "sallyport_attestation_seconds_count"
    assert after[count] == before[count] + 1
    assert after["sallyport_attestation_nonces"] == 0
    assert 0 <= after["sallyport_agents_attested_ratio"] <= 1
    assert sum(value for name, value in after.items() if name.startswith("sallyport_agents{")) >= 1


def test_audit_names_the_result(agent: Agent, stand: Stand) -> None:
    """Lines of tokens say which result they were made of: its own line has that id."""
    found = agent.command("--version", "the one to find")
    assert found["id"] in stand.await_change("attested", version="the one to find").values()


def test_what_failed_evidence_voids_is_in_audit(stand: Stand) -> None:
    """Beside the line of the refusal, which folds with its like."""
    agent = stand.agent("strict", "voided")
    agent.attest()
    assert agent.ask("/attest", failing(agent)).status == 403
    assert stand.await_change("attestation-void", target=agent.spiffe_id)["why"]


@pytest.mark.parametrize("case", ["replayed", "another's"])
def test_a_nonce_counts_once_and_for_who_asked(agent: Agent, stand: Stand, case: str) -> None:
    """threats.md, "Attestation": a replayed nonce, and that of another key."""
    other = stand.agent("whole", f"{agent.folder.name}-other")
    sent = failing(agent if case == "replayed" else other)
    if case == "replayed":
        agent.ask("/attest", sent)
    answer = agent.ask("/attest", sent)
    assert answer.status == 403
    assert answer.content["reason"] == REFUSED
    assert "nonce" in answer.content["detail"]


def test_the_api_describes_itself(agent: Agent) -> None:
    paths = agent.ask("/openapi.json").said["paths"]
    assert {"/attest/nonce", "/attest", "/attest/enrol", "/attest/activate"} <= paths.keys()
    assert {"/heartbeat", "/token", "/introspect", "/revoke", "/jwks.json"} <= paths.keys()


def test_agents_shows_who_is_valid(agent: Agent, stand: Stand) -> None:
    agent.attest()
    agent.ask("/heartbeat", {"health": "ok", "version": "1.4"})
    shown = json.loads(stand.desk.cli("agents", "--json"))
    [mine] = [each for each in shown if each["agent"] == agent.spiffe_id and each["claimed"]]
    assert (mine["state"], mine["level"]) == ("valid", "software")
    assert mine["claimed"] == {"health": "ok", "version": "1.4", "detail": ""}
    assert mine["attested_s"] <= 300
