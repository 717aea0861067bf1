"""The numbers and names that stand beside a finding."""

from rules.evidence import evidence, samples
from rules.name import parse
from rules.ration import Ration, Room
from rules.tally import Tally


def tally() -> Tally:
    """Return one that knows two names."""
    of = Tally(parse("evil.com"), "ordinary", Room(Ration(0, 9999, 9999)), 0, 0)
    of.known.add("api")
    of.known.add("api.deadbeef01")
    of.queries, of.others, of.nxdomains = 4, 2, 1
    return of


def test_shares_are_of_queries_and_of_names() -> None:
    of = tally()
    numbers = evidence(of)
    assert numbers["other_types_share"] == 0.5
    assert numbers["nxdomain_share"] == 0.25
    assert numbers["never_connected_share"] == 0
    assert numbers["hex_share"] == 0.333
    of.resolved = 1
    of.connect("api")
    assert evidence(of)["never_connected_share"] == 0.5


def test_the_asked_name_is_the_first_sample_then_the_longest() -> None:
    of = tally()
    assert samples(of, "x.evil.com") == ("x.evil.com", "deadbeef01.api.evil.com", "api.evil.com")
    assert samples(of) == ("deadbeef01.api.evil.com", "api.evil.com")
    for number in range(9):
        of.known.add(str(number))
    assert len(samples(of)) == 5
