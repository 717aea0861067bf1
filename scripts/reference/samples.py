"""Samples of every machine-readable output, made by the code that makes the real ones.

What depends on the moment (ids, times, process ids) is given; `check`, `explain` and `why` are run
as a person runs them, on files of their own.
"""

import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import msgspec

from certs.authority import Described, Shown
from proxy.advice import advise
from proxy.audit_line import Record, encode
from proxy.banner import Ready, ready_json
from proxy.control.identity import Anchor, IdentityState
from proxy.control.status import AppSummary, Status, TokenView, UpstreamState
from proxy.demo import Step
from proxy.flow import Plane
from proxy.problem import problem as problem_of
from rules.decision import Decision, Reason, Verdict
from rules.facts import Evidence

ROOT = Path(__file__).resolve().parent.parent.parent
_ID, _FLOW = "01a200ee31db7a3c897d0c0b7ed48390", "01a200ee31db7f0ab408c57b2259dab8"
_TUNNEL, _TUNNEL_FLOW = "01a200ee31117975b090387dbcc1df9a", "01a200ee30e17232908cf1ba985e2a12"
_TIME, _END = "2026-11-22T01:45:40.059179Z", "2027-02-20T01:45:40.059179Z"
_RULES = """\
apps:
  coder:
    identity:
      - process: {uid: 1000}
    allow:
      - {name: docs, host: "*.example.com", require: [mtls]}
"""


def ready() -> str:
    """Return the ready event of `up --json`."""
    listen = {
        "do53": ["127.0.0.1:5300", "[::1]:5300"],
        "dot": ["127.0.0.1:8853", "[::1]:8853"],
        "doh": ["127.0.0.1:8443", "[::1]:8443"],
        "proxy": ["127.0.0.1:3128", "[::1]:3128"],
        "metrics": ["127.0.0.1:9153"],
    }
    return fenced(ready_json(Ready(4985, 1, "advisory", listen, [], [])))


def check() -> str:
    """Return what `check --json` prints for a file with a warning."""
    return fenced(command("check", "--json"))


def explain() -> str:
    """Return what `explain --json` prints for a name that no rule lists."""
    return fenced(command("explain", "coder", "example.net", "--json"))


def why() -> str:
    """Return what `why --json` prints of the lines below."""
    return fenced(command("why", "--last", "--json"))


def demo() -> str:
    """Return two of the six steps of `demo --json`."""
    text = f"NXDOMAIN  sallyport host-not-listed {_ID} how: ask the admin to list the host"
    steps = [
        Step("DNS", "allowed.example.com A", "allowed", "127.0.0.1"),
        Step("DNS", "refused.example.com A", "refused", f"{text} under apps.demo.allow"),
    ]
    return fenced(msgspec.json.encode(steps).decode())


def audit() -> str:
    """Return a refusal, and both lines of an allowed tunnel, as they stand in the file."""
    return fenced(*(line.decode().rstrip() for line in lines()), layout="lines")


def problem() -> str:
    """Return the body of a refusal, and of `/why/ID`."""
    how = advise(Decision(Verdict.DENY, Reason.HOST_NOT_LISTED), "coder")
    found = problem_of(Reason.HOST_NOT_LISTED, _ID, "coder", "example.net:80", how)
    return fenced(msgspec.json.encode(found).decode())


def index() -> str:
    """Return what `http://sallyport.internal/` says."""
    why_url = "http://sallyport.internal/why/ID"
    found = {"app": "coder", "evidence": ["process"], "generation": 1, "why": why_url}
    return fenced(json.dumps(found))


def readyz() -> str:
    """Return what `/readyz` says while audit cannot be written."""
    return fenced(json.dumps({"ready": False, "problems": {"audit": "No space left on device"}}))


def _trust_domain() -> IdentityState:
    ours = "sallyport.internal"
    anchor = Anchor(trust_domain=ours, sha256="9f2c" * 16, not_after=2082751200)
    return IdentityState(trust_domain=ours, anchors=(anchor,), issuer=True, connections=2)


def status() -> str:
    """Return what `status --json` prints of an appliance with one app."""
    found = Status(
        pid=4985,
        version="0.1.0",
        enforcement="advisory",
        time=_TIME,
        uptime_s=3725.1,
        generation=2,
        reload={"time": _TIME, "generation": 2, "outcome": "changed", "problems": []},
        listen={"do53": ["127.0.0.1:5300"], "proxy": ["127.0.0.1:3128"]},
        upstreams=(UpstreamState(name="tls://192.0.2.53:853", state="closed", text="12.3 ms"),),
        apps=(
            AppSummary(
                name="coder",
                evidence=("token",),
                rules=1,
                decisions={"allow": 41, "deny": 2, "fail": 0},
                last_seen=_TIME,
            ),
        ),
        tokens={"valid": 1, "expired": 0, "revoked": 0, "used": 0},
        tokens_expiring=(),
        certificate={"names": ["localhost", "127.0.0.1"], "not_after": _END, "days_left": 179.8},
        identity=_trust_domain(),
        revoked=0,
        audit={
            "file": "$STATE/audit.jsonl",
            "problem": None,
            "written": 43,
            "folded": 7,
            "dropped": 0,
        },
        bounds={},
        problems={},
    )
    return fenced(msgspec.json.encode(found).decode())


def token() -> str:
    """Return what `app token coder --json` prints."""
    made = TokenView(
        id="coder.1",
        name="coder",
        purpose="app",
        state="valid",
        created=_TIME,
        expires=_END,
        bind_uid=None,
        rotated=None,
        revoked=None,
    )
    found = {"token": made, "secret": "spt_...", "replaced": None}
    return fenced(msgspec.json.encode(found).decode())


def authority() -> str:
    """Return what `ca show --json` prints before there is a leaf."""
    begin, end = (dt.datetime(year, 11, 22, tzinfo=dt.UTC) for year in (2026, 2036))
    names = ("localhost", "sallyport.internal", "127.0.0.0/8", "::1/128")
    root = Shown("CN=Sallyport local CA", names, "9f2c...", begin, end)
    return fenced(msgspec.json.encode(Described(root, None)).decode())


def lines() -> list[bytes]:
    """Return audit lines of a refusal and of a tunnel: decided, then ended."""
    connect = {"host": "docs.example.com", "port": 443}
    ended = {"octets_up": 745, "octets_down": 1105, "duration": 0.007}
    return [
        encode(_record(_TUNNEL, "docs.example.com:443", "docs"), connect),
        encode(_record(_TUNNEL, "docs.example.com:443", "docs"), connect | ended),
        encode(_record(_ID, "example.net:80", None), {"host": "example.net", "port": 80}),
    ]


def _record(unique: str, target: str, rule: str | None) -> Record:
    return Record(
        time=_TIME,
        id=unique,
        flow=_TUNNEL_FLOW if rule else _FLOW,
        app="coder",
        evidence=(Evidence.PROCESS,),
        plane=Plane.HTTP,
        fact="connect",
        verdict=Verdict.ALLOW if rule else Verdict.DENY,
        reason=Reason.RULE if rule else Reason.HOST_NOT_LISTED,
        rule=rule,
        generation=1,
        count=1,
        target=target,
    )


@cache
def command(*arguments: str) -> str:
    """Run `sallyport ARGUMENTS` on the files of the samples; return its stdout."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve() / "sallyport"
        (place / "rules").mkdir(parents=True, mode=0o700)
        (place / "rules" / "coder.yaml").write_text(_RULES, encoding="utf-8")
        (place / "audit.jsonl").write_bytes(b"".join(lines()))
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "proxy", *arguments],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "XDG_CONFIG_HOME": folder,
                "XDG_STATE_HOME": folder,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode in {0, 1}, ended.stderr  # noqa: S101 - a broken sample is a bug
        return ended.stdout.replace(str(place), "$CONFIG")


def fenced(*texts: str, layout: str = "tree") -> str:
    """Return JSON texts as a block of a page, each as a tree, or as lines as they are."""
    shown = [json.dumps(json.loads(text), indent=2) if layout == "tree" else text for text in texts]
    return "\n".join(["```json", *shown, "```"])
