"""What repeats add to the metrics."""

from pathlib import Path

import pytest

from proxy.resolver.tally import Tally
from rules.decision import Decision, Reason, Verdict
from rules.ruleset import App
from tests.proxy.composed import ruleset
from tests.proxy.resolver.still import still


@pytest.mark.parametrize(("is_cached", "is_flood"), [(True, False), (False, True)])
def test_a_repeat_counts_as_its_first_did(
    tmp_path: Path, *, is_cached: bool, is_flood: bool
) -> None:
    it = still(ruleset(me=App("me")), tmp_path)
    decision = Decision(Verdict.DENY, Reason.HOST_NOT_LISTED)
    tally = Tally(it.authorizer, it.metrics, "me", "dot", decision, is_cached, is_flood)
    tally.add(3)
    tally.add(4)
    metrics = it.metrics
    assert metrics.dns_queries.value("dot", "refused") == 7
    assert metrics.decisions.value("question", Verdict.DENY, Reason.HOST_NOT_LISTED) == 7
    assert metrics.cache.value("hit") == 7 * is_cached
    assert metrics.bounds.value("refusals_a_second") == 7 * is_flood
