"""Outcomes are the labels of a metric."""

from proxy.metrics import Metrics
from proxy.verifier.parts import Outcome


def test_each_outcome_has_its_series() -> None:
    labels = Metrics().attestations.row.labels
    assert {*labels["outcome"]} == {str(each) for each in Outcome}
