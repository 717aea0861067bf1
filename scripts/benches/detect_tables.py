"""The tables of `scripts/bench detect`, in Markdown, as docs/detection.md holds them."""

import statistics
from collections.abc import Iterable, Sequence

from rules.detector import Outcome
from scripts.benches.detect_benign import Half
from scripts.benches.detect_others import Score
from scripts.benches.detect_tunnels import Run
from scripts.benches.intervals import upper


def _rows(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _duration(seconds: float) -> str:
    if seconds < 600:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6 * 3600 else f"{seconds / 3600:.0f} h"


def tunnel_table(runs: Iterable[Run]) -> str:
    """Return the tunnels, each by its worst run."""
    head = (
        *("tunnel", "pace or source", "outcome", "octets gone", "raw", "payload", "queries"),
        *("after", "worst 2 min", "worst hour", "worst day", "payload an hour", "bar"),
    )
    return _rows(
        head,
        (
            (
                *(run.tunnel.name, run.tunnel.source, run.outcome.name.lower()),
                *(run.before.octets, run.before.raw, f"{run.before.payload:.0f}"),
                *(run.before.queries, _duration(run.before.seconds), *run.worst),
                f"{run.worst_payload:.0f}",
                f"{run.bar} / {'h' if run.tunnel.is_slow else 'stop'}"
                + ("" if run.is_caught else " missed"),
            )
            for run in runs
        ),
    )


def benign_table(halves: Iterable[Half]) -> str:
    """Return what came of the ordinary halves."""
    rows = []
    for half in halves:
        queries, domains = half.counts.queries, len(half.seen)
        held = half.wrong(Outcome.BLOCK)
        rows.append(
            (
                *(half.name, f"{queries:,}", f"{half.counts.misses:,}", f"{domains:,}"),
                *(half.refusals, f"{upper(half.refusals, queries):.1e}"),
                *(held, f"{upper(held, domains):.1e}"),
                *(half.found[Outcome.BUDGET], half.found[Outcome.RATE]),
                half.wrong(Outcome.ALERT),
                f"{half.cpu_s / half.counts.hours * 24:.1f} s",
            )
        )
    head = (
        *("half", "queries", "past the cache", "domains", "refused", "rate, 95 %"),
        *("suffixes held", "of domains, 95 %", "by `budget`", "by `rate`", "alerts", "a day in"),
    )
    return _rows(head, rows)


def compared_table(scores: Iterable[Score]) -> str:
    """Return all rules side by side."""
    rows = []
    for score in scores:
        recall, precision = score.bounds()
        rows.append(
            (
                *(score.name, f"{score.found} of {score.tunnels}", _share(score.recall, recall)),
                *(f"{score.wrong:,} of {score.domains:,}", _share(score.precision, precision)),
                f"{statistics.median(score.octets):.0f}" if score.octets else "never",
                max(score.octets, default="never"),
            )
        )
    head = ("rule", "tunnels found", "in time (recall)", "ordinary domains found", "precision")
    return _rows((*head, "octets gone, median", "most"), rows)


def _share(value: float, bounds: tuple[float, float]) -> str:
    return f"{value:.1%} ({bounds[0]:.1%} to {bounds[1]:.1%})"
