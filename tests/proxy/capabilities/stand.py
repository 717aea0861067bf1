"""Everything about capability tokens over real parts: files, rules, attestations and keys."""

import base64
import datetime as dt
import hashlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlencode

import msgspec
from msgspec import structs

from certs.domain import ensure_domain, load_domain
from certs.known_domain import read_record
from certs.known_jwks import jwt_jwks
from proxy.agent_api.api import AgentApi
from proxy.agent_api.asked import ADMIN, FORM, Answer, Asked, Caller
from proxy.agent_api.issuing import RESULT
from proxy.attested.binding import Binding, Kind, of_key
from proxy.attested.known import Attestations
from proxy.attested.result import Result
from proxy.capabilities.exchange import Exchange
from proxy.capabilities.form import ACCESS_TOKEN, EXCHANGE, JWT
from proxy.capabilities.live import FILE_NAME, LiveCapabilities
from proxy.capabilities.parts import Parts
from proxy.certificates.svid import Svid
from proxy.channel import SignedClaims
from proxy.flow import Plane
from proxy.limits import Limits
from proxy.metrics import ExchangeOutcome, Metrics
from rules.decision import Reason, Verdict
from rules.facts import Evidence, Level, Principal
from rules.freshness import thresholds
from rules.ruleset import App, Capability, IdentityLine, Requirements, Ruleset

DOMAIN = "example.internal"
DOCS = "https://docs.example"
SERVED = "sallyport:app:documents"  # the audience that is an app
SCOPES = frozenset({"documents:read", "documents:write"})
SOFTWARE = Requirements(attested=Level.SOFTWARE, max_age_s=300)


def spiffe(app: str) -> str:
    return f"spiffe://{DOMAIN}/{app}"


def entry(audience: str = DOCS, **more: Any) -> Capability:
    made: dict[str, Any] = {
        "id": "rules.yaml:7", "audience": audience, "scopes": SCOPES, "ttl_s": 60,
        "require": SOFTWARE, **more,
    }  # fmt: skip
    return Capability(**made)


def lines(app: str) -> tuple[IdentityLine, ...]:
    """Return lines that name the app by each of the two."""
    return (IdentityLine("f:1", spiffe=spiffe(app)), IdentityLine("f:2", lease=app))


def rules(**capabilities: tuple[Capability, ...]) -> Ruleset:
    """Return rules of these apps with these capabilities, known by certificate and by lease."""
    apps = {name: App(name, lines(name), capabilities=each) for name, each in capabilities.items()}
    return Ruleset(1, apps)


RULES = rules(
    coder=(entry(), entry(SERVED)),
    helper=(entry(on_behalf_of=frozenset({"coder"})),),
    third=(entry(on_behalf_of=frozenset({"coder", "helper"})),),
    documents=(),
    box=(entry(),),
)


def svid_of(app: str, key: str = "", serial: str = "") -> Svid:
    """Return a certificate of `app` with the key `key`."""
    name = key or app
    return Svid(
        spiffe_id=spiffe(app), serial=serial or hashlib.sha256(app.encode()).hexdigest()[:8],
        not_before=0, not_after=1 << 40, sha256=hashlib.sha256(f"der {name}".encode()).hexdigest(),
        spki_sha256=hashlib.sha256(name.encode()).hexdigest(),
    )  # fmt: skip


def by_certificate(app: str, key: str = "", serial: str = "") -> Caller:
    svid = svid_of(app, key, serial)
    principal = Principal(app, (Evidence.CERTIFICATE,))
    return Caller(principal, Plane.DNS, "127.0.0.1:8443", svid, of_key(svid))


def by_lease(app: str, lease: str) -> Caller:
    principal = Principal(app, (Evidence.LEASE,))
    return Caller(principal, Plane.HTTP, "lease", None, Binding(Kind.LEASE, lease))


def on_plain_port(app: str) -> Caller:
    return Caller(Principal(app, (Evidence.TOKEN,)), Plane.HTTP, "127.0.0.1:3128")


ADMINS = Caller(ADMIN, Plane.CONTROL, "control", is_admin=True)


class Signing:
    """Signs with the real keys in this process; `meanwhile` runs before it answers."""

    def __init__(self, folder: Path, wall: Callable[[], float]) -> None:
        self.problem = ""
        self.apps: list[str] = []
        self.meanwhile: Callable[[], object] = lambda: None
        self.before: Callable[[], Awaitable[object]] | None = None
        self._wall = wall
        self._folder = folder
        ensure_domain(folder, DOMAIN, self.now(), None)
        self.domain = load_domain(folder, None)

    async def sign_claims(self, claims: bytes, typ: str, app: str = "") -> SignedClaims:
        if self.before is not None:
            await self.before()
        self.meanwhile()
        self.apps.append(app)
        if self.problem:
            return SignedClaims(1, problem=self.problem)
        return SignedClaims(1, self.domain.sign_claims(claims, typ, self.now()))

    def jwks(self) -> bytes:
        record = read_record(self._folder)
        assert record is not None
        return jwt_jwks(record)

    def now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._wall(), dt.UTC)


class Stand:
    """What tests look into; `now` is the time of everything but certificates on the wire."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder = folder
        self.now = float(int(time.time()))
        self.limits = limits
        self.metrics = Metrics()
        self.ruleset = RULES
        self.revoked: set[str] = set()
        self.lines: list[dict[str, Any]] = []
        self.barred: Reason | None = None
        self.signing = Signing(folder / "identity", self.wall)
        self.live: LiveCapabilities
        self.parts: Parts
        self.exchange: Exchange
        self.api: AgentApi
        self.attestations: Attestations
        self._results = 0

    def wall(self) -> float:
        return self.now

    async def open(self) -> None:
        """Begin, or begin anew as after a restart: attestations are forgotten."""
        self.attestations = Attestations(self.limits, self.wall, self.metrics.bounds.add)
        self.attestations.use(thresholds(self.ruleset))
        self.live = LiveCapabilities(
            self.folder / FILE_NAME, self.limits, self.wall, self.metrics.bounds.add,
            self.metrics.capabilities.set,
        )  # fmt: skip
        await self.live.open()
        self.parts = Parts(
            live=self.live, attestations=self.attestations, signer=self.signing,
            ruleset=lambda: self.ruleset, is_revoked=self.is_revoked, record=self.record,
            admits=lambda _: self.barred, metrics=self.metrics, limits=self.limits,
            wall=self.wall, entropy=os.urandom, issuer=DOMAIN,
        )  # fmt: skip
        self.exchange = Exchange(self.parts)
        self.api = AgentApi(self.exchange.routes(), self.limits, self.metrics)

    def is_revoked(self, app: str, spiffe_id: str, serial: str) -> bool:
        return not self.revoked.isdisjoint({app, spiffe_id, serial} - {""})

    def record(
        self,
        app: str,
        change: str,
        verdict: Verdict,
        reason: Reason,
        target: str,
        detail: Mapping[str, object],
    ) -> None:
        line = {"app": app, "change": change, "verdict": verdict, "reason": reason}
        self.lines.append({**line, "target": target, **detail})

    def attest(
        self, caller: Caller, level: Level = Level.SOFTWARE, attester: str = "", **more: Any
    ) -> str:
        """Return the text of a new attestation result of `caller`, which counts from now on."""
        assert caller.binding is not None
        self._results += 1
        spiffe_id = "" if caller.svid is None else caller.svid.spiffe_id
        claims = {
            "iss": DOMAIN, "aud": DOMAIN, "sub": spiffe_id, "iat": int(self.now),
            "exp": int(self.now) + 300, "jti": str(self._results),
        }  # fmt: skip
        now = dt.datetime.fromtimestamp(self.now, dt.UTC)
        text = self.signing.domain.sign_claims(msgspec.json.encode(claims), RESULT, now)
        result = Result(
            id=str(self._results), token_sha256=hashlib.sha256(text.encode()).hexdigest(),
            binding=caller.binding, app=caller.principal.app, spiffe_id=spiffe_id, level=level,
            attester=attester or caller.binding.value, at=self.now, expires=self.now + 300,
        )  # fmt: skip
        assert self.attestations.add(structs.replace(result, **more))
        return text

    async def post(self, path: str, caller: Caller, content: bytes) -> Answer:
        return await self.api.answer(Asked("POST", path, caller, FORM, content))

    async def ask(self, path: str, caller: Caller, **form: str) -> tuple[int, Any]:
        """Return the status and the JSON that `caller` gets for a form."""
        answer = await self.post(path, caller, urlencode(form).encode())
        return answer.status, msgspec.json.decode(answer.content)

    async def trade(self, caller: Caller, result: str, **more: str) -> tuple[int, Any]:
        """Return what `caller` gets for an attestation result."""
        form = {
            "grant_type": EXCHANGE, "subject_token": result, "subject_token_type": JWT,
            "audience": DOCS, "scope": "documents:read", **more,
        }  # fmt: skip
        return await self.ask(
            "/token", caller, **{name: each for name, each in form.items() if each}
        )

    async def token(self, caller: Caller, **more: str) -> str:
        """Return a new capability token of `caller`, who attests for it."""
        status, answer = await self.trade(caller, self.attest(caller), **more)
        assert status == 200, answer
        return str(answer["access_token"])

    async def pass_on(self, caller: Caller, token: str, **more: str) -> tuple[int, Any]:
        """Return what `caller` gets for the token of somebody else."""
        form = {
            "subject_token_type": ACCESS_TOKEN, "actor_token": self.attest(caller),
            "actor_token_type": JWT, **more,
        }  # fmt: skip
        return await self.trade(caller, token, **form)

    async def introspect(self, caller: Caller, token: str) -> dict[str, Any]:
        status, answer = await self.ask("/introspect", caller, token=token)
        assert status == 200, answer
        return dict(answer)

    async def is_active(self, token: str) -> bool:
        return bool((await self.introspect(ADMINS, token))["active"])

    def outcomes(self) -> dict[str, int]:
        count = self.metrics.capability_exchanges
        names = get_args(ExchangeOutcome.__value__)
        return {name: count.value(name) for name in names if count.value(name)}


def payload(token: str) -> dict[str, Any]:
    """Return the claims of a token, as they stand in it."""
    text = token.split(".")[1]
    return dict(msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))))


@asynccontextmanager
async def standing(folder: Path, limits: Limits | None = None) -> AsyncIterator[Stand]:
    stand = Stand(folder, limits or Limits())
    await stand.open()
    try:
        yield stand
    finally:
        await stand.live.close()
