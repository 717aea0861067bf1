"""The tunnels against the rules of others, and what all of them say of the ordinary half."""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from rules.name import DomainName
from rules.suffix import PublicSuffixes
from scripts.benches.compared import RULES, Domains, Rule
from scripts.benches.detect_tunnels import APP, NOW, Run, Unit, parsed
from scripts.benches.exfil_tools import Tunnel
from scripts.benches.intervals import wilson


class Alarm(Struct, frozen=True):
    """When the first alarm was: octets of the unit that were gone, and queries."""

    octets: int
    queries: int


class Score(Struct, frozen=True):
    """A rule: tunnels found of all, domains wrongly found of all, octets gone at the alarm."""

    name: str
    found: int
    tunnels: int
    in_time: int
    wrong: int
    domains: int
    octets: list[int]

    @property
    def recall(self) -> float:
        """Return the share of tunnels that it stopped, or told of, in time."""
        return self.in_time / self.tunnels

    @property
    def precision(self) -> float:
        """Return the share of its findings that are tunnels."""
        return self.in_time / (self.in_time + self.wrong) if self.in_time else 0.0

    def bounds(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return Wilson's intervals of recall and precision at 95 %."""
        return wilson(self.in_time, self.tunnels), wilson(self.in_time, self.in_time + self.wrong)


def first_alarm(rule: Rule, domains: Domains, tunnel: Tunnel, seed: int) -> Alarm | None:
    """Return when `rule` first tells of the tunnel; None: never."""
    unit, octets = Unit(), 0
    for number, sent in enumerate(tunnel.queries(seed)):
        name = parsed(sent.name)
        if name is None:
            continue
        octets += unit.cost(name)
        if rule.alarms(APP, name, domains.of(name), sent.rtype, NOW + sent.at_s):
            return Alarm(octets, number + 1)
    return None


def ours(runs: Iterable[Run], wrong: int, domains: int) -> Score:
    """Return the score of the detector."""
    all_runs = list(runs)
    caught = [each for each in all_runs if each.is_caught]
    octets = [each.before.octets for each in all_runs if each.is_stopped]
    return Score("sallyport", len(octets), len(all_runs), len(caught), wrong, domains, octets)


def theirs(
    tunnels: Iterable[Tunnel],
    seeds: range,
    suffixes: PublicSuffixes,
    alarmed: Mapping[str, set[DomainName]],
    domains: int,
) -> list[Score]:
    """Return the scores of the rules of others; in time is an alarm within 1 KiB."""
    known, scores = Domains(suffixes), list[Score]()
    runs = [(tunnel, seed) for tunnel in tunnels for seed in seeds]
    for title, make in RULES.items():
        alarms = [first_alarm(make(), known, tunnel, seed) for tunnel, seed in runs]
        octets = [alarm.octets for alarm in alarms if alarm]
        in_time = sum(gone <= 1024 for gone in octets)
        wrong = len(alarmed[title])
        scores.append(Score(title, len(octets), len(runs), in_time, wrong, domains, octets))
    return scores
