"""What is made of findings in answers: fast flux and aliases, by the mode of the app."""

from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from proxy.detection.rulings import Ruling, Rulings
from proxy.resolver.answer import Answer, Rcode, Record
from proxy.resolver.response import Response
from proxy.resolver.walk import Walked
from rules.decision import Reason, Verdict, Watch
from rules.facts import Question
from rules.name import DomainName, parse
from rules.rtype import AAAA, TXT, A
from rules.watch import Detect, Mode
from tests.proxy.composed import ME
from tests.proxy.detection.stand import NOW, Stand, standing, suffixes

NAME = parse("www.flux-x.com")
TRACKED = (parse("t.tracker-x.com"),)


class Bench:
    """The tables of one detector, whose lines go to `stand`'s audit."""

    def __init__(self, stand: Stand) -> None:
        self.stand = stand
        still = stand.authorizer.still
        self.rulings = Rulings(suffixes(), stand.metrics, still, stand.tell)

    def answered(
        self,
        detect: Detect,
        records: tuple[Record, ...] = (),
        chain: tuple[DomainName, ...] = (),
        rcode: Rcode = Rcode.NOERROR,
        name: DomainName = NAME,
    ) -> Ruling | None:
        addresses = tuple(IPv4Address(each.rdata) for each in records if each.rtype == A)
        answer = Answer(rcode, records, (), 60, addresses, chain)
        response = Response(rcode, records)
        question = Question(ME, name, A)
        walked = Walked(answer, chain=chain)
        return self.rulings.answered(question, Watch(detect), response, walked, NOW)

    def flux(self, mode: Mode) -> list[Ruling | None]:
        """Answer with ever other addresses from all over the networks."""
        found = []
        for turn in range(12):
            wanted = ((turn * 8 + each) for each in range(8))
            octets = (bytes((1 + at * 2, at * 5 % 250, 7, 9)) for at in wanted)
            records = tuple(Record(NAME, A, 60, each) for each in octets)
            found.append(self.answered(Detect(flux=mode), records))
        return found


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with standing(tmp_path) as stand:
        yield Bench(stand)


async def test_fast_flux_is_refused_where_the_app_blocks_it(bench: Bench) -> None:
    """threats.md, Between name and address: names whose addresses are rented machines'."""
    found = bench.flux(Mode.BLOCK)
    ruling = found[-1]
    assert found[0] is None
    assert ruling is not None
    assert ruling.hold is None
    assert (ruling.refusal.verdict, ruling.refusal.reason, ruling.refusal.rule) == (
        Verdict.DENY, Reason.TUNNEL_DETECTED, "flux",
    )  # fmt: skip
    [line] = await bench.stand.lines()
    assert (line["change"], line["target"], line["verdict"]) == ("flux-blocked", NAME, "deny")
    assert line["measured"]["addresses"] >= line["measured"]["networks"] > 8


@pytest.mark.parametrize(
    ("mode", "changes"), [(Mode.ALERT, ["flux-alert"]), (Mode.OBSERVE, []), (Mode.OFF, [])]
)
async def test_fast_flux_is_told_of_once_or_only_counted(
    bench: Bench, mode: Mode, changes: list[str]
) -> None:
    assert {*bench.flux(mode)} == {None}
    assert (bench.stand.metrics.detect_findings.value("alert", "flux") > 0) is (mode > Mode.OFF)
    assert [each["change"] for each in await bench.stand.lines()] == changes


async def test_an_alias_into_anothers_domain_is_told_of_once(bench: Bench) -> None:
    for _ in range(3):
        assert bench.answered(Detect(cloaking=Mode.ALERT), chain=TRACKED) is None
    [line] = await bench.stand.lines()
    assert (line["change"], line["to"], line["suffix"]) == (
        "cloaking-alert", "t.tracker-x.com", "tracker-x.com",
    )  # fmt: skip


async def test_an_alias_into_anothers_domain_is_refused_where_the_app_blocks_it(
    bench: Bench,
) -> None:
    ruling = bench.answered(Detect(cloaking=Mode.BLOCK), chain=TRACKED)
    assert ruling is not None
    assert (ruling.refusal.rule, ruling.hold) == ("cloaking", None)
    assert bench.answered(Detect(cloaking=Mode.OFF), chain=TRACKED) is None


async def test_an_alias_into_what_the_rules_allow_by_itself_is_the_admins_choice(
    bench: Bench,
) -> None:
    detect = Detect(cloaking=Mode.BLOCK)
    assert bench.answered(detect, chain=(parse("edge.leaky.com"),)) is None
    assert bench.answered(detect, chain=(parse("edge.leaky.com"), *TRACKED)) is not None


async def test_at_the_bound_of_aliases_each_is_told_of_once_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.detection.rulings._CLOAKS", 2)
    for at in (1, 2, 3, 1):
        name = parse(f"m{at}.flux-x.com")
        assert bench.answered(Detect(cloaking=Mode.ALERT), chain=TRACKED, name=name) is None
    assert len(await bench.stand.lines()) == 4


async def test_octets_of_answers_are_counted_but_those_of_ipv4(bench: Bench) -> None:
    records = (
        *(Record(NAME, A, 60, bytes((1, 2, 3, at))) for at in range(200)),
        Record(NAME, AAAA, 60, bytes(16)),
        Record(NAME, TXT, 60, b"\x04text"),
    )
    assert bench.answered(Detect(), records) is None
    assert bench.answered(Detect(), rcode=Rcode.NXDOMAIN) is None
    states = {each.suffix: each for each in bench.rulings.states(NOW)}
    assert 0 < states[parse("flux-x.com")].answers["2m"] <= 30


async def test_what_has_no_answer_is_not_counted(bench: Bench) -> None:
    question, response = Question(ME, NAME, A), Response(Rcode.NOERROR, ())
    for walked in (Walked(None), Walked(Answer(Rcode.NOERROR))):
        watch = Watch(Detect(mode=Mode.OFF, flux=Mode.OFF, cloaking=Mode.OFF))
        assert bench.rulings.answered(question, watch, response, walked, NOW) is None
    assert [*bench.rulings.states(NOW)] == []


async def test_what_met_a_bound_is_counted_once(bench: Bench) -> None:
    bench.rulings.restore([("me", "a.com", b"no row of ours")], NOW)
    for _ in range(2):
        bench.rulings.count()
    assert bench.stand.metrics.detect_bounds.value("rows_unreadable") == 1
