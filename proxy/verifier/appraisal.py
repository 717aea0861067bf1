"""From evidence to what it proves: verified by the issuer, appraised by the rules (RFC 9334, 8)."""

from collections.abc import Mapping
from typing import assert_never

from msgspec import Struct
from msgspec.structs import asdict, replace

from proxy.agent_api.issuing import SOFTWARE, TPM
from proxy.attested.attester import Attester
from proxy.channel import Verified
from proxy.sandbox.lease import Measured
from proxy.verifier.callers import Attesting, digest_of
from proxy.verifier.counters import gone_back, is_reset
from proxy.verifier.evidence import Evidence, LaunchedEvidence, SoftwareEvidence, TpmEvidence
from proxy.verifier.parts import Outcome, Parts, RefusedError
from proxy.verifier.refusing import failed, unavailable
from rules.appraise import appraise_key, appraise_launch, appraise_quote
from rules.decision import Reason
from rules.facts import Level
from rules.ruleset import App

_AGAIN = "attest again with a new nonce"
_ADMIN = "ask the admin for `reference_values`, or run what they name"


class Proven(Struct, frozen=True):
    """What was verified, not yet appraised; `attester` is as in `Result`."""

    level: Level
    attester: str
    pcrs: dict[int, str] = {}
    ek_sha256: str = ""
    measured: Measured | None = None
    is_reset: bool = False

    @property
    def measurements(self) -> Mapping[str, object]:
        """The claim that says what was measured."""
        if self.level is Level.TPM:
            return {"pcr": {str(number): value for number, value in sorted(self.pcrs.items())}}
        if self.level is Level.LAUNCHED and self.measured is not None:
            return {name: value for name, value in asdict(self.measured).items() if value}
        return {}

    @property
    def measured_sha256(self) -> str:
        """What a launcher executed, as a digest in hex."""
        return "" if self.measured is None else digest_of(self.measured).hex()


async def verified(attesting: Attesting, evidence: Evidence, nonce: bytes, parts: Parts) -> Proven:
    """Return what `evidence` proves of `attesting` with the nonce that he was given.

    Raises:
        RefusedError: nothing, or that what attests has changed.
    """
    match evidence:
        case SoftwareEvidence():
            return await _software(attesting, evidence, nonce, parts)
        case TpmEvidence():
            return await _tpm(attesting, evidence, nonce, parts)
        case LaunchedEvidence():
            return _launched(attesting)
        case _:
            assert_never(evidence)


def appraise(proven: Proven, app: App) -> None:
    """Hold what was verified against the reference values of `app`.

    Raises:
        RefusedError: it does not fit.
    """
    values = app.reference_values
    match proven.level:
        case Level.SOFTWARE:
            problem, is_change = appraise_key(values, proven.attester), False
        case Level.TPM:
            problem = appraise_quote(values, proven.pcrs, proven.ek_sha256)
            is_change = bool(values.pcrs)
        case Level.LAUNCHED:
            found = proven.measured or Measured("")
            problem = appraise_launch(values, found.file, found.script, found.interpreter)
            is_change = bool(values.launched)
        case _:
            assert_never(proven.level)
    if problem and is_change:
        raise _changed(problem, proven.attester)
    if problem:
        raise failed(problem, _ADMIN)


async def _software(
    attesting: Attesting, evidence: SoftwareEvidence, nonce: bytes, parts: Parts
) -> Proven:
    told = await parts.issuer.verify(
        kind=SOFTWARE,
        message=attesting.message(nonce),
        key=evidence.key,
        signature=evidence.signature,
        app=attesting.app,
    )
    _check(told)
    return Proven(Level.SOFTWARE, told.key_sha256, measured=attesting.measured)


async def _tpm(attesting: Attesting, evidence: TpmEvidence, nonce: bytes, parts: Parts) -> Proven:
    attester = parts.live.attester(evidence.attester, attesting.app)
    if attester is None:
        text = f"the AK {evidence.attester} is not enrolled for {attesting.app}"
        how = "`sallyport attest --tpm TCTI` enrols it, or POST /attest/enrol"
        raise RefusedError(Outcome.UNKNOWN, Reason.ATTESTATION_REQUIRED, text, how)
    told = await parts.issuer.verify(
        kind=TPM,
        message=attesting.message(nonce),
        key=attester.key,
        signature=evidence.signature,
        quote=evidence.quote,
        pcrs=evidence.pcrs,
        app=attesting.app,
    )
    _check(told)
    if told.name != attester.name:
        raise failed("the quote is of another AK", _AGAIN)
    return _counted(attesting, attester, told, parts)


def _counted(attesting: Attesting, known: Attester, told: Verified, parts: Parts) -> Proven:
    """Return what a quote proves once its counters were held against those known before."""
    latest = parts.live.attester(known.name, known.app)
    if latest is None:
        raise failed("the AK was removed meanwhile", "ask the admin, and enrol it again")
    slack_s = parts.limits.attestation_nonce_s
    backs = (gone_back(each, told, slack_s) for each in _comparable(latest, told, parts))
    back = next(filter(None, backs), "")
    if back:
        raise _changed(f"{back}: this is an older state of the TPM", latest.name)
    rose = is_reset(latest, told)
    is_same_boot = told.reset_count == latest.reset_count
    parts.live.note(
        replace(
            latest,
            reset_count=told.reset_count,
            restart_count=told.restart_count,
            clock_ms=max(told.clock_ms, latest.clock_ms) if is_same_boot else told.clock_ms,
            firmware=told.firmware,
            used_at=parts.wall(),
        )
    )
    pcrs = {int(number): value for number, value in told.pcrs.items()}
    measured = attesting.measured
    return Proven(Level.TPM, latest.name, pcrs, latest.ek_sha256, measured, is_reset=rose)


def _comparable(latest: Attester, told: Verified, parts: Parts) -> list[Attester]:
    """Return the AKs whose counters go on in this quote: `latest`, and others of the same TPM.

    Outside of the endorsement hierarchy a TPM obscures the counters and the firmware's version
    for each AK in another way (TPM 2.0, part 1, section 36.7): those with the same version, of 64
    bits, are not obscured.
    """
    names = parts.live.of_tpm(latest.name, latest.app) - {latest.name}
    others = (parts.live.attester(name, latest.app) for name in sorted(names))
    return [
        latest,
        *(
            each
            for each in others
            if each is not None and each.reset_count >= 0 and each.firmware == told.firmware
        ),
    ]


def _launched(attesting: Attesting) -> Proven:
    measured = attesting.measured
    if measured is None:
        text = "no launcher of ours says what runs here"
        raise failed(text, "be started by it: launched evidence is of a lease alone")
    return Proven(Level.LAUNCHED, attesting.binding.value, measured=measured)


def _check(told: Verified) -> None:
    """Raise for what does not hold: then nothing else that was told counts."""
    if told.unanswered:  # nobody looked at the evidence: it says nothing of who attests
        raise unavailable(told.problem)
    if told.problem:
        raise failed(told.problem, _AGAIN)


def _changed(text: str, attester: str) -> RefusedError:
    return RefusedError(Outcome.CHANGED, Reason.ATTESTATION_REQUIRED, text, _ADMIN, attester)
