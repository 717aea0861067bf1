"""Deciding and loading, in this process, held against the bars that were set for them."""

import statistics
import time

from proxy.reload.files import public_suffixes
from rules.decide import decide
from rules.facts import Connect, Evidence, Facts, Principal, Question, Request
from rules.match import RuleIndex, index_rules
from rules.name import DomainName
from rules.rtype import A
from rules.syntax import load
from rules.text import SourceText
from scripts.benches.planes import Result

GLOBS = 1_000
HOSTS = 100_000
CALLS = 20_000
PATH_BAR_US, NAME_BAR_US = 30.0, 10.0
LIST_BAR_S, RULES_BAR_S = 1.0, 4.0
APP = "apps:\n  bench:\n    identity: [{token: bench}]\n    allow:\n"
PRINCIPAL = Principal("bench", (Evidence.TOKEN,))


def loaded(text: str) -> RuleIndex:
    """Return the index of one rule file."""
    source = SourceText("bench.yaml", text)
    return index_rules(load([source], public_suffixes(), 1, {}).ruleset)


def load_seconds(text: str) -> float:
    """Return how long a rule file takes from text to index; the best of three."""
    suffixes, source = public_suffixes(), SourceText("bench.yaml", text)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        index_rules(load([source], suffixes, 1, {}).ruleset)
        times.append(time.perf_counter() - started)
    return min(times)


def p99_us(index: RuleIndex, facts: list[Facts]) -> float:
    """Return the 99th percentile of single decisions, in microseconds; the best of three passes."""
    return min(pass_us(index, facts) for _ in range(3))


def pass_us(index: RuleIndex, facts: list[Facts]) -> float:
    """Return it for one pass over the facts."""
    times = []
    for number in range(CALLS):
        fact = facts[number % len(facts)]
        started = time.perf_counter_ns()
        decide(index, fact)
        times.append(time.perf_counter_ns() - started)
    return statistics.quantiles(times, n=100)[98] / 1000


def against(name: str, ours: float, bar: float, unit: str) -> Result:
    """Return a row where less is better."""
    return Result("decision", name, ours, bar, bar / ours, unit)


def measure() -> list[Result]:
    """Decide among many globs and many names; load a hundred thousand hosts both ways."""
    paths = "".join(
        f'      - {{host: api.example.net, paths: ["/repos/org{n}/*/issues/**"]}}\n'
        for n in range(GLOBS)
    )
    requests: list[Facts] = [
        Request(PRINCIPAL, "GET", DomainName("api.example.net"), 443, f"/repos/org{n}/x/issues/1")
        for n in range(0, GLOBS, 7)
    ]
    hosts = [f"h{n}.example{n % 97}.net" for n in range(HOSTS)]
    as_list = APP + "      - host:\n" + "".join(f"          - {host}\n" for host in hosts)
    as_rules = APP + "".join(f"      - {{host: {host}}}\n" for host in hosts)
    names: list[Facts] = [Question(PRINCIPAL, DomainName(host), A) for host in hosts[::101]]
    names += [Connect(PRINCIPAL, DomainName(f"no{n}.example.org"), 443) for n in range(999)]
    return [
        against(
            f"bar: p99 of {GLOBS} globs", p99_us(loaded(APP + paths), requests), PATH_BAR_US, "us"
        ),
        against(f"bar: p99 of {HOSTS} hosts", p99_us(loaded(as_list), names), NAME_BAR_US, "us"),
        against(f"bar: load {HOSTS} in a list", load_seconds(as_list), LIST_BAR_S, "s"),
        against(f"bar: load {HOSTS} rules", load_seconds(as_rules), RULES_BAR_S, "s"),
    ]
