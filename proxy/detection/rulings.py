"""What is made of the findings of the detector, fast flux and cloaking: lines, counts, refusals.

Imported with the tables, when the first look-up is counted.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from importlib import resources

from msgspec import Struct

from proxy.detection.hold import HeldSuffix
from proxy.detection.lines import SAMPLES, Told
from proxy.metrics import DetectDirection, DetectOutcome, Metrics
from proxy.resolver.answer import Answer, Rcode
from proxy.resolver.response import Response
from proxy.resolver.walk import Walked
from rules.cloaking import Known, cloaked, read_known
from rules.decision import Decision, Reason, Verdict, Watch
from rules.detector import Detector, Finding, Outcome
from rules.facts import Question
from rules.flux import Flux
from rules.name import DomainName
from rules.rtype import A
from rules.suffix import PublicSuffixes
from rules.tiers import Tiers, read_tiers
from rules.watch import Mode

_REASON = {
    Outcome.RATE: Reason.RATE,
    Outcome.BUDGET: Reason.BUDGET,
    Outcome.BLOCK: Reason.TUNNEL_DETECTED,
}
_CHANGE = {
    Outcome.ALERT: "tunnel-alert",
    Outcome.RATE: "tunnel-rate",
    Outcome.BUDGET: "tunnel-budget",
    Outcome.BLOCK: "tunnel-blocked",
}
_OUTCOME: dict[Outcome, DetectOutcome] = {
    Outcome.ALERT: "alert",
    Outcome.RATE: "rate",
    Outcome.BUDGET: "budget",
    Outcome.BLOCK: "block",
}
_SAID: dict[DetectDirection, str] = {
    "flux": "its addresses change as those of a fast-flux network do",
    "cloaking": "it is an alias into another's domain",
}
_CLOAKS = 4096  # names that were told of; as many as an app may have pins


class Ruling(Struct, frozen=True):
    """A look-up is refused; `hold` is the suffix that is held from now on."""

    refusal: Decision
    hold: HeldSuffix | None = None


class Rulings:
    """The tables, and what follows from them; for the loop's thread only.

    `still` decides without counting; `tell` writes an audit line and returns its id.
    """

    def __init__(
        self,
        suffixes: PublicSuffixes,
        metrics: Metrics,
        still: Callable[[Question], Decision],
        tell: Callable[[Told], str],
    ) -> None:
        self._suffixes = suffixes
        self._metrics = metrics
        self._still = still
        self._tell = tell
        self._detector = Detector(suffixes, _tiers())
        self._flux = Flux()
        self._known = _known()
        self._cloaks: set[tuple[str, DomainName]] = set()  # that were told of
        self._counted: Counter[str] = Counter()
        self.state = self._detector.state
        self.states = self._detector.states
        self.changed = self._detector.changed
        self.restore = self._detector.restore
        self.connected = self._detector.connected

    def asked(self, question: Question, watch: Watch, now: float) -> Ruling | None:
        """Count a question that is about to be asked."""
        finding = self._detector.ask(
            question.principal.app,
            question.name,
            question.rtype,
            is_named=watch.is_named,
            mode=watch.detect.mode,
            now=now,
        )
        return None if finding is None else self._ruled(finding, now)

    def answered(
        self, question: Question, watch: Watch, response: Response, walked: Walked, now: float
    ) -> Ruling | None:
        """Count an answer that is about to be handed on, and look at where it leads."""
        answer, detect = walked.answer, watch.detect
        ruling: Ruling | None = None
        if answer is None:
            return None
        if detect.mode is not Mode.OFF:
            finding = self._detector.answered(
                question.principal.app,
                question.name,
                question.rtype,
                rdata=[each.rdata for each in answer.records if each.rtype != A],
                is_nxdomain=answer.rcode == Rcode.NXDOMAIN,
                mode=detect.mode,
                now=now,
            )
            ruling = None if finding is None else self._ruled(finding, now)
        if ruling is None and detect.flux is not Mode.OFF and answer.addresses:
            ruling = self._of_flux(question, detect.flux, answer, response, now)
        if ruling is None and detect.cloaking is not Mode.OFF and walked.chain:
            ruling = self._of_cloaking(question, detect.cloaking, walked.chain)
        return ruling

    def clear(self, app: str, suffix: DomainName, now: float) -> bool:
        """Forget what was counted of a suffix; return whether there was anything."""
        return self._detector.clear(app, suffix, now) | self._flux.clear(app, suffix)

    def count(self) -> None:
        """Add what the tables counted since the last time to the metrics."""
        flux = {f"flux_{name}": value for name, value in self._flux.bounds.items()}
        for name, value in {**self._detector.bounds, **flux}.items():
            self._metrics.detect_bounds.add(name, n=value - self._counted[name])
            self._counted[name] = value
        for direction, octets in self._detector.counted.items():
            more = octets - self._counted[direction]
            if more:
                self._metrics.detect_octets.add(direction, n=more)
                self._counted[direction] = octets

    def _ruled(self, finding: Finding, now: float) -> Ruling | None:
        self._metrics.detect_findings.add(_OUTCOME[finding.outcome], finding.direction)
        rule = f"tunnel:{finding.direction}:{finding.window}"
        is_held = finding.outcome is Outcome.BLOCK
        unique = self._told(finding, rule) if finding.is_first or is_held else ""
        if finding.outcome is Outcome.ALERT:
            return None
        text = f"{finding.octets} octets in {finding.window}, at most {finding.limit}"
        refusal = Decision(Verdict.DENY, _REASON[finding.outcome], rule, text=text)
        return Ruling(refusal, _hold(finding, rule, unique, now) if is_held else None)

    def _told(self, finding: Finding, rule: str) -> str:
        is_alert = finding.outcome is Outcome.ALERT
        told = Told(
            app=finding.app,
            target=finding.suffix,
            change=_CHANGE[finding.outcome],
            rule=rule,
            detail={
                "window": finding.window,
                "octets": finding.octets,
                "limit": finding.limit,
                "tier": finding.tier,
                "measured": finding.evidence,
                "samples": finding.samples[:SAMPLES],
            },
            verdict=Verdict.ALLOW if is_alert else Verdict.DENY,
            reason=Reason.LOCAL if is_alert else _REASON[finding.outcome],
        )
        return self._tell(told)

    def _of_flux(
        self, question: Question, mode: Mode, answer: Answer, response: Response, now: float
    ) -> Ruling | None:
        app, name = question.principal.app, question.name
        # What the upstream said, not what we make of it: a short TTL is a sign.
        ttl_s = min((each.ttl for each in response.records), default=answer.ttl)
        finding = self._flux.answered(app, name, answer.addresses, ttl_s, now)
        if finding is None:
            return None
        detail = {"measured": finding.evidence, "samples": finding.samples}
        return self._of_answer(question, mode, "flux", detail, is_first=finding.is_first)

    def _of_cloaking(
        self, question: Question, mode: Mode, chain: tuple[DomainName, ...]
    ) -> Ruling | None:
        if cloaked(question.name, chain, self._suffixes, self._known) is None:
            return None
        # A target that the rules allow by itself is the admin's choice.
        others = [each for each in chain if not self._allows(question, each)]
        finding = cloaked(question.name, others, self._suffixes, self._known)
        if finding is None:
            return None
        detail = {"measured": finding.evidence, "suffix": finding.suffix, "to": finding.target}
        is_first = self._is_first_cloak(question.principal.app, question.name)
        return self._of_answer(question, mode, "cloaking", detail, is_first=is_first)

    def _is_first_cloak(self, app: str, name: DomainName) -> bool:
        """Return whether nothing was told of it yet; at the bound each is told once more."""
        key = app, name
        if key in self._cloaks:
            return False
        if len(self._cloaks) >= _CLOAKS:
            self._cloaks.clear()
        self._cloaks.add(key)
        return True

    def _of_answer(
        self,
        question: Question,
        mode: Mode,
        rule: DetectDirection,
        detail: Mapping[str, object],
        *,
        is_first: bool,
    ) -> Ruling | None:
        is_refused = mode is Mode.BLOCK
        self._metrics.detect_findings.add("block" if is_refused else "alert", rule)
        if is_first and mode >= Mode.ALERT:
            app, change = question.principal.app, f"{rule}-{'blocked' if is_refused else 'alert'}"
            verdict = Verdict.DENY if is_refused else Verdict.ALLOW
            reason = Reason.TUNNEL_DETECTED if is_refused else Reason.LOCAL
            self._tell(Told(app, question.name, change, rule, detail, verdict, reason))
        refusal = Decision(Verdict.DENY, Reason.TUNNEL_DETECTED, rule, text=_SAID[rule])
        return Ruling(refusal) if is_refused else None

    def _allows(self, question: Question, target: DomainName) -> bool:
        own = Question(question.principal, target, question.rtype)
        return self._still(own).verdict is Verdict.ALLOW


def _hold(finding: Finding, rule: str, unique: str, now: float) -> HeldSuffix:
    return HeldSuffix(
        app=finding.app,
        suffix=finding.suffix,
        at=now,
        id=unique,
        rule=rule,
        octets=finding.octets,
        limit=finding.limit,
        tier=finding.tier,
        evidence=finding.evidence,
        samples=finding.samples[:SAMPLES],
    )


def _tiers() -> Tiers:
    folder = resources.files("rules") / "tiers"
    files = sorted(folder.iterdir(), key=lambda each: each.name)
    texts = {
        each.name.removesuffix(".txt"): each.read_text(encoding="utf-8")
        for each in files
        if each.name.endswith(".txt")
    }
    return read_tiers(texts)


def _known() -> Known:
    folder = resources.files("rules") / "known"
    lists = (
        (folder / name).read_text(encoding="utf-8") for name in ("hosting.txt", "trackers.txt")
    )
    return read_known(*(text.splitlines() for text in lists))
