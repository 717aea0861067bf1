"""A verifier over a real file, whose issuer is the real code in this process.

async with standing(tmp_path) as stand:
    agent = stand.agent()
    answer = await agent.attest(agent.software(await agent.nonce()))
"""

import base64
import contextlib
import datetime as dt
import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec import Struct, structs

from certs.errors import CertsError
from certs.signed_claims import sign_claims
from proxy.agent_api.api import AgentApi
from proxy.agent_api.asked import JSON, Asked, Caller
from proxy.agent_api.issuing import EvidenceVerifier
from proxy.attested.attester import Attester
from proxy.attested.binding import Binding, Kind, of_key
from proxy.attested.live import FILE_NAME, LiveAttested
from proxy.certificates.revoked import Revocations
from proxy.certificates.svid import Svid
from proxy.channel import Challenge, Challenged, SignedClaims, Verified, Verify
from proxy.errors import BindError
from proxy.flow import Plane
from proxy.issuing.evidence import challenged, verified
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.sandbox.lease import Lease, Measured
from proxy.verifier.parts import Changed, Parts
from proxy.verifier.verifier import Verifier
from rules.decision import Reason, Verdict
from rules.facts import Evidence, Principal
from rules.freshness import thresholds
from rules.ruleset import App, Launched, ReferenceValues, Requirements, Ruleset
from tests.certs.paper_tpm import attest, ecc_key, ecc_public, ecc_signed
from tests.proxy.attested.making import Clock

PCRS = {"0": "aa" * 32, "7": "bb" * 32}
MEASURED = Measured("11" * 32, "22" * 32, "33" * 32)
LAUNCHED = Launched("11" * 32, "22" * 32, "33" * 32)
TRUST_DOMAIN = "sallyport.internal"
_COUNTERS = (4711).to_bytes(8) + (5).to_bytes(4) + (6).to_bytes(4)  # of a quote on paper


def b64(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def app(name: str, **values: Any) -> App:
    known: dict[str, Any] = {
        "pcrs": {int(each): frozenset({value}) for each, value in PCRS.items()},
        "launched": (LAUNCHED,),
    }
    return App(
        name,
        require=Requirements(max_age_s=300),
        reference_values=ReferenceValues(**{**known, **values}),
    )


class Told(Struct, frozen=True):
    """One audit line."""

    app: str
    change: str
    verdict: Verdict
    reason: Reason
    target: str
    detail: Mapping[str, object]


class Issuer:
    """The issuer's own code, in this process; `meanwhile` is called while it is at work."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.roots: tuple[bytes, ...] = ()
        self.meanwhile: Callable[[str], object] = lambda _: None
        self.problem = ""
        self.is_gone = False
        self.signed: list[tuple[dict[str, Any], str]] = []
        self._wall = wall

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._wall(), dt.UTC)

    async def verify(
        self,
        *,
        kind: str,
        message: bytes,
        key: bytes,
        signature: bytes,
        quote: bytes = b"",
        pcrs: Mapping[str, str] = {},
        app: str = "",
    ) -> Verified:
        assert app
        self.meanwhile("verify")
        if self.is_gone:
            return Verified(1, problem="the issuer ended; try again", unanswered=True)
        try:
            return verified(Verify(1, kind, message, key, signature, quote, dict(pcrs)))
        except CertsError as error:
            return Verified(1, problem=str(error))

    async def challenge(
        self, *, certificates: tuple[bytes, ...], ak: bytes, secret: bytes, app: str = ""
    ) -> Challenged:
        assert app
        self.meanwhile("challenge")
        if self.is_gone:
            return Challenged(1, problem="the issuer ended; try again", unanswered=True)
        try:
            now = dt.datetime.now(dt.UTC)  # the vendor's certificates are of this moment
            return challenged(Challenge(1, certificates, ak, secret), self.roots, now)
        except CertsError as error:
            return Challenged(1, problem=str(error))

    async def sign_claims(self, claims: bytes, typ: str, app: str = "") -> SignedClaims:
        assert app
        if self.problem:
            return SignedClaims(1, problem=self.problem)
        token = sign_claims(claims, typ, self._now(), "kid", self.key)
        self.signed.append((json.loads(claims), typ))
        self.meanwhile("sign")
        return SignedClaims(1, token)


class Said(Struct, frozen=True):
    """What was answered."""

    status: int
    content: dict[str, Any]
    fields: dict[bytes, bytes]

    def __getitem__(self, name: str) -> Any:
        """Return a member of the content."""
        return self.content[name]


class Stand:
    """A verifier, and all that it touches."""

    def __init__(self, folder: Path, limits: Limits, ttl_s: int) -> None:
        self.clock = Clock()
        self.metrics = Metrics()
        self.limits = limits
        self.live = LiveAttested(folder / FILE_NAME, limits, self.clock, self.metrics.bounds.add)
        self.issuer = Issuer(self.clock)
        self.revocations = Revocations()
        self.leases: dict[str, Lease] = {}
        self.lines: list[Told] = []
        self.drawn: list[bytes] = []
        self.barred: Reason | None = None
        self.is_unwritable = False
        self.changed: list[Changed] = []
        self.failed: list[tuple[Binding, str]] = []
        self.ruleset = Ruleset(1, {})
        self.use(app("coder"), app("other"))
        parts = Parts(
            live=self.live,
            issuer=self.issuer,
            ruleset=lambda: self.ruleset,
            leases=self.leases.get,
            revocations=self.revocations,
            record=lambda *line: self.lines.append(Told(*line)),
            void=self._void,
            failed=self._failed,
            metrics=self.metrics,
            limits=limits,
            wall=self.clock,
            clock=self.clock,
            entropy=self._entropy,
            trust_domain=TRUST_DOMAIN,
            ttl_s=ttl_s,
            admits=lambda _: self.barred,
        )
        self.parts = parts
        self.verifier = Verifier(parts)
        self.api = AgentApi(self.verifier.routes(), limits, self.metrics)

    def ask_issuer(self, issuer: EvidenceVerifier) -> None:
        """Let another one verify and sign from now on."""
        parts = structs.replace(self.parts, issuer=issuer)
        self.api = AgentApi(Verifier(parts).routes(), self.limits, self.metrics)

    @property
    def voided(self) -> list[tuple[tuple[str, ...], str]]:
        """What of each change was void with it, and why."""
        return [(tuple(each.id for each in told.results), told.why) for told in self.changed]

    @property
    def changes(self) -> list[tuple[str, str]]:
        return [(each.app, each.change) for each in self.lines]

    def use(self, *apps: App) -> None:
        self.ruleset = Ruleset(self.ruleset.generation + 1, {each.name: each for each in apps})
        self.live.attestations.use(thresholds(self.ruleset))

    def count(self, level: str, outcome: str) -> int:
        return self.metrics.attestations.value(level, outcome)  # type: ignore[arg-type]  # a kind of evidence

    def _entropy(self, octets: int) -> bytes:
        self.drawn.append(os.urandom(octets))
        return self.drawn[-1]

    async def _void(self, changed: Changed) -> None:
        self.changed.append(changed)
        if self.is_unwritable:
            raise BindError("in force, and not on the disk")

    async def _failed(self, binding: Binding, why: str) -> None:
        self.failed.append((binding, why))
        if self.is_unwritable:
            raise BindError("in force, and not on the disk")

    async def ask(
        self,
        caller: Caller,
        path: str,
        content: object,
        stay: Callable[[], object] = lambda: None,
    ) -> Said:
        octets = content if isinstance(content, bytes) else json.dumps(content).encode()
        answer = await self.api.answer(Asked("POST", path, caller, JSON, octets, stay=stay))
        return Said(answer.status, json.loads(answer.content), dict(answer.fields))

    def agent(self, app_name: str = "coder", key: str = "aa", **svid: Any) -> "Agent":
        known: dict[str, Any] = {
            "spiffe_id": f"spiffe://{TRUST_DOMAIN}/{app_name}",
            "serial": key,
            "not_before": 0,
            "not_after": int(self.clock.now) + 3600,
            "sha256": "99" * 32,
            "spki_sha256": key * 32,
        }
        made = Svid(**{**known, **svid})
        principal = Principal(app_name, (Evidence.CERTIFICATE,))
        return Agent(self, Caller(principal, Plane.DNS, "127.0.0.1:8443", made, of_key(made)))

    def leased(self, unique: str = "lease-1", measured: Measured | None = MEASURED) -> "Agent":
        self.leases[unique] = Lease(unique, "box", measured)
        principal = Principal("coder", (Evidence.LEASE,))
        binding = Binding(Kind.LEASE, unique)
        return Agent(self, Caller(principal, Plane.HTTP, "lease", None, binding))


class Agent:
    """An agent on a connection of its own, with a software key and a TPM on paper."""

    def __init__(self, stand: Stand, caller: Caller) -> None:
        self.stand = stand
        self.caller = caller
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.ak = ecc_key()

    @property
    def binding(self) -> Binding:
        assert self.caller.binding is not None
        return self.caller.binding

    @property
    def name(self) -> str:
        return (b"\x00\x0b" + hashlib.sha256(ecc_public(self.ak)).digest()).hex()

    @property
    def results(self) -> list[str]:
        return [each.id for each in self.stand.live.attestations.current(self.binding)]

    async def ask(self, path: str, content: object) -> Said:
        return await self.stand.ask(self.caller, path, content)

    async def nonce(self) -> Said:
        found = await self.ask("/attest/nonce", {})
        assert found.status == 200, found
        return found

    async def attest(self, content: object) -> Said:
        return await self.ask("/attest", content)

    def software(self, given: Said, **changed: Any) -> dict[str, Any]:
        spki = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        signature = self.key.sign(unb64(given["message"]), ec.ECDSA(hashes.SHA256()))
        known = {
            "nonce": given["nonce"],
            "evidence": "software",
            "key": b64(spki),
            "signature": b64(signature),
        }
        return {**known, **changed}

    def enrolled(self) -> Attester:
        """Know the AK, as if it had been enrolled."""
        made = Attester(
            name=self.name,
            app=self.caller.principal.app,
            spiffe_id="",
            ek_sha256="ee" * 32,
            key=ecc_public(self.ak),
            enrolled_at=self.stand.clock.now,
        )
        assert self.stand.live.enrol(made)
        return made

    def quote(
        self,
        given: Said,
        pcrs: Mapping[str, str] = PCRS,
        counters: tuple[int, int, int] = (4711, 5, 6),
        *,
        safe: int = 1,
        **changed: Any,
    ) -> dict[str, Any]:
        """Evidence of the TPM, whose clock, resetCount and restartCount are `counters`."""
        clock, resets, restarts = counters
        said = clock.to_bytes(8) + resets.to_bytes(4) + restarts.to_bytes(4)
        quote = attest(unb64(given["message"]), pcrs, safe=safe).replace(_COUNTERS, said)
        known = {
            "nonce": given["nonce"],
            "evidence": "tpm",
            "attester": self.name,
            "signature": b64(ecc_signed(self.ak, quote)),
            "quote": b64(quote),
            "pcr": dict(pcrs),
        }
        return {**known, **changed}

    async def attested(self) -> Said:
        """Attest with the software key."""
        found = await self.attest(self.software(await self.nonce()))
        assert found.status == 200, found
        return found

    async def quoted(self, **options: Any) -> Said:
        """Attest with the TPM."""
        return await self.attest(self.quote(await self.nonce(), **options))

    def moved(self, **changed: Any) -> "Agent":
        """Return the same keys on another connection."""
        made = Agent(self.stand, structs.replace(self.caller, **changed))
        made.key, made.ak = self.key, self.ak
        return made


@asynccontextmanager
async def standing(
    folder: Path, limits: Limits | None = None, ttl_s: int = 300
) -> AsyncIterator[Stand]:
    stand = Stand(folder, limits or Limits(), ttl_s)
    await stand.live.open()
    with contextlib.suppress(BindError):
        await stand.live.ready()
    try:
        yield stand
    finally:
        await stand.live.close()
