"""What Envoy asks is decided by the same rules, on the same canonical values, as at our proxy."""

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy.audit import Audit, AuditSettings
from proxy.authorize import Authorizer
from proxy.channel import Judge, Judged
from proxy.identify import Identifier
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.refusals import Refusals
from proxy.transport.own import OwnSockets
from proxy.transport.peer import PeerTable
from proxy.workload.events import Clock
from proxy.workload.judge import Judging, judge
from rules.address import parse_address
from rules.decision import Decision, Reason, Verdict
from rules.facts import Principal
from rules.match import index_rules
from rules.ruleset import Ruleset
from rules.syntax import load
from rules.text import SourceText
from tests.proxy.composed import SUFFIXES

ID = "spiffe://sallyport.internal/coder"
RULES = f"""
apps:
  coder:
    identity:
      - {{spiffe: "{ID}"}}
    allow:
      - {{host: [a.example, b.example], ports: [80, 443, 8080], name: sites}}
      - {{host: m.example, ports: [80, 443], methods: [GET], paths: ["/a/**"]}}
      - {{host: ssh.example, ports: [22], tls: false}}
      - {{addresses: [192.0.2.7/32, 127.0.0.0/8, "2001:db8::/32"], ports: [443, 3128], tls: false}}
    deny:
      - {{host: b.example, reason: out of bounds}}
"""
OURS = (parse_address("127.0.0.1"), 3128)


def rules(text: str = RULES) -> Ruleset:
    return load([SourceText("a.yaml", text)], SUFFIXES, 1, {}).ruleset


class Desk:
    """A judgement over the real parts."""

    def __init__(self, folder: Path, text: str = RULES) -> None:
        limits, metrics = Limits(), Metrics()
        self.metrics = metrics
        self.file = folder / "audit.jsonl"
        self.audit = Audit(AuditSettings(str(self.file)), limits, metrics, time.time, os.urandom)
        self.audit.start()
        refusals = Refusals(limits, metrics)
        written = rules(text)
        self.peers = PeerTable(limits, time.time, metrics.bounds.add)
        self.judging = Judging(
            Identifier(written, self.peers),
            Authorizer(index_rules(written), self.audit, refusals, metrics),
            OwnSockets({OURS}, set()),
            Clock(time.time, os.urandom),
        )

    def ask(self, method: str, url: str, spiffe_id: str = ID) -> Judged:
        """Ask for `scheme://authority/path`; of CONNECT the authority alone."""
        scheme, _, rest = url.rpartition("://")
        authority, slash, path = rest.partition("/")
        return judge(self.judging, Judge(9, spiffe_id, method, scheme, authority, f"{slash}{path}"))

    async def lines(self) -> list[dict[str, Any]]:
        await self.audit.close()
        return [msgspec.json.decode(line) for line in self.file.read_bytes().splitlines()]

    async def close(self) -> None:
        await self.audit.close()
        self.peers.close()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path)
    yield made
    await made.close()


async def test_what_a_rule_allows_is_allowed_and_is_one_line(desk: Desk) -> None:
    judged = desk.ask("GET", "https://A.example/x?secret=1")
    (line,) = await desk.lines()
    assert judged == Judged(9, True, "coder", "rule", line["id"], 403, judged.how)
    del line["id"], line["flow"], line["time"]
    assert line == {
        "app": "coder", "evidence": ["certificate"], "plane": "http", "fact": "request",
        "verdict": "allow", "reason": "rule", "rule": "sites", "generation": 1, "count": 1,
        "target": "GET http://a.example:443/x", "method": "GET", "host": "a.example",
        "port": 443, "path": "/x", "via": "ext_authz", "spiffe_id": ID,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "url", "reason", "status"),
    [
        ("GET", "https://other.example/", "host-not-listed", 403),
        ("GET", "https://b.example/", "rule", 403),
        ("GET", "https://a.example:8443/", "port-not-allowed", 403),
        ("POST", "https://m.example/a/b", "method-not-allowed", 403),
        ("GET", "https://m.example/b", "path-not-allowed", 403),
        ("TRACE", "http://a.example/", "method-not-allowed", 403),
        ("GET", "https://198.51.100.1/", "literal-not-allowed", 403),
        ("GET", "http://127.0.0.1:3128/", "address-not-allowed", 403),
        # One name, many spellings: what our own proxy would not take.
        ("GET", "https://a.example@other.example/", "name-malformed", 400),
        ("GET", "https://a.example:0443/", "name-malformed", 400),
        ("GET", "https://a.example\0.other.example/", "name-malformed", 400),
        ("GET", "https://\uff41.example/", "name-malformed", 400),
        ("GET", "https://0x7f.1/", "name-malformed", 400),
        ("GET", "https://[a.example]/", "name-malformed", 400),
        ("GET", "https:///", "name-malformed", 400),
        ("CONNECT", "a.example", "name-malformed", 400),
        ("GET", "ftp://a.example/", "request-malformed", 400),
        ("GET", "://a.example/", "request-malformed", 400),
        ("GE T", "https://a.example/", "request-malformed", 400),
        ("", "https://a.example/", "request-malformed", 400),
        ("G" * 65, "https://a.example/", "request-malformed", 400),
        # Envoy forwards the path as it came.
        ("GET", "https://m.example/a/../b", "request-malformed", 400),
        ("GET", "https://m.example/a/%2E%2e/b", "request-malformed", 400),
        ("GET", "https://m.example/a/%2e/b", "request-malformed", 400),
        ("GET", "https://m.example/a\\b", "request-malformed", 400),
        ("GET", "https://m.example/a%00b", "request-malformed", 400),
        ("GET", "https://m.example/a/..;x/b", "request-malformed", 400),
        # Nobody reads a tunnel of Envoy's.
        ("CONNECT", "a.example:443", "inspection-unavailable", 403),
        ("CONNECT", "m.example:80", "inspection-unavailable", 403),
    ],
)
async def test_what_is_refused_at_our_proxy_is_refused_to_envoy(
    desk: Desk, method: str, url: str, reason: str, status: int
) -> None:
    """threats.md, "One name, many spellings": NUL, userinfo, wide letters, hex, brackets."""
    judged = desk.ask(method, url)
    assert (judged.allowed, judged.reason, judged.status) == (False, reason, status)
    (line,) = await desk.lines()
    assert (line["id"], line["reason"], line["via"]) == (judged.id, reason, "ext_authz")
    assert line["app"] == judged.app == "coder"
    assert "secret" not in line["target"]


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("GET", "http://a.example/"),
        ("GET", "http://a.example:8080"),
        ("GET", "HTTPS://a.example./%7Ex"),
        ("OPTIONS", "https://a.example/"),
        ("GET", "https://m.example/a/b?c=../d"),
        ("CONNECT", "ssh.example:22"),
        ("GET", "https://192.0.2.7/"),
        ("GET", "https://[2001:db8::1]/"),
        ("CONNECT", "192.0.2.7:443"),
    ],
)
async def test_what_our_proxy_would_take_is_allowed(desk: Desk, method: str, url: str) -> None:
    judged = desk.ask(method, url)
    assert (judged.allowed, judged.reason) == (True, "rule")


async def test_our_own_listeners_are_no_destination(desk: Desk) -> None:
    """threats.md, "Between name and address": our own listeners, by Envoy this time."""
    for url in ("127.0.0.1:3128", "127.0.0.9:3128"):
        assert not desk.ask("CONNECT", url).allowed
    assert desk.metrics.decisions.value("endpoint", Verdict.DENY, Reason.ADDRESS_NOT_ALLOWED) == 2


async def test_options_of_a_whole_origin_has_no_path(desk: Desk) -> None:
    asked = Judge(9, ID, "OPTIONS", "https", "a.example", "*")
    assert judge(desk.judging, asked).allowed


async def test_a_spiffe_id_that_names_nobody_is_asked_for_another(desk: Desk) -> None:
    judged = desk.ask("GET", "https://a.example/", "spiffe://sallyport.internal/other")
    assert (judged.allowed, judged.reason, judged.status) == (False, "identity-unknown", 407)
    assert judged.app == "unknown"
    assert desk.ask("GET", "https://\0/", "spiffe://x/other").status == 400
    (line, *_) = await desk.lines()
    assert (line["evidence"], line["fact"]) == (["certificate"], "request")


async def test_what_is_revoked_is_refused(desk: Desk) -> None:
    class Revoked:
        def of_process(self, _: object) -> Principal:
            return Principal("unknown")

        def vouched(self, _: str) -> Decision:
            return Decision(Verdict.DENY, Reason.REVOKED)

    names: Any = Revoked()
    desk.judging = msgspec.structs.replace(desk.judging, names=names)
    judged = desk.ask("GET", "https://a.example/")
    assert (judged.allowed, judged.reason, judged.status) == (False, "revoked", 403)


async def test_a_rule_by_which_we_would_speak_tls_is_not_for_envoy(tmp_path: Path) -> None:
    text = f"""
apps:
  coder:
    identity: [{{spiffe: "{ID}"}}]
    allow: [{{host: a.example, ports: [80], https_upgrade: true}}]
"""
    desk = Desk(tmp_path, text)
    for method, url in (("GET", "http://a.example/"), ("CONNECT", "a.example:80")):
        judged = desk.ask(method, url)
        assert (judged.allowed, judged.reason) == (False, "inspection-unavailable")
    await desk.close()


async def test_a_bug_of_ours_denies_and_logs_nothing_of_what_was_asked(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def of_process(self, _: object) -> Principal:
            raise ZeroDivisionError

        def vouched(self, _: str) -> Principal:
            raise ZeroDivisionError

    desk.judging = msgspec.structs.replace(desk.judging, names=Broken())
    judged = desk.ask("GET", "https://a.example/?token=hidden")
    assert (judged.allowed, judged.reason, judged.status) == (False, "internal-error", 503)
    assert "hidden" not in caplog.text
