"""Keeping fresh: when it attests, what it puts where, and what it says of failures."""

from pathlib import Path
from typing import Any, override

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.attester.attester import Attested, Attester, Heard
from proxy.attester.errors import AttesterError, RefusedError, UnreachableError, UnusableError
from proxy.attester.evidence import Launched
from proxy.attester.keep import Keeper
from proxy.attester.outlet import TokenFile
from proxy.attester.place import Place
from tests.proxy.attester.verifier import LIFE_S, Verifier


class Bench:
    """A keeper with a clock of its own, against a verifier that answers."""

    def __init__(self, attester: Attester, verifier: Verifier, *, beats: bool = False) -> None:
        self.verifier = verifier
        self.now = 1000.0
        self.chance = 1.0
        self.said: list[str] = []
        self.file = verifier.folder / "token"
        self.keeper = Keeper(
            attester,
            TokenFile(self.file),
            lambda: self.now,
            lambda: self.chance,
            self.said.append,
            beats=beats,
        )

    @property
    def token(self) -> str:
        return self.file.read_text().strip()

    def step(self, after_s: float = 0.0) -> float:
        self.now += after_s
        return self.keeper.step()

    def attestations(self) -> int:
        return self.verifier.calls.count("/attest")


@pytest.fixture
def bench(attester: Attester, verifier: Verifier) -> Bench:
    return Bench(attester, verifier)


def test_it_attests_at_once_and_puts_the_token(bench: Bench) -> None:
    assert 0 < bench.step() <= 2
    assert bench.token == bench.verifier.tokens[0]
    assert bench.said == ["attested as software for 300 s"]


def test_without_a_place_for_the_token_the_certificate_is_kept_attested(
    attester: Attester, verifier: Verifier
) -> None:
    clock = [1000.0]
    said: list[str] = []
    keeper = Keeper(attester, None, lambda: clock[0], lambda: 0.0, said.append)
    keeper.step()
    verifier.answers["/attest"] = (403, {"detail": "no"})
    clock[0] += LIFE_S
    keeper.step()
    assert len(verifier.tokens) == 1
    assert said[-1] == "the token is void"


@pytest.mark.parametrize(("chance", "part"), [(0.0, 0.8), (0.5, 0.75), (1.0, 0.7)])
def test_it_attests_anew_before_four_fifths_of_the_life(
    bench: Bench, chance: float, part: float
) -> None:
    bench.chance = chance
    bench.step()
    bench.step(LIFE_S * part - 0.1)
    assert bench.attestations() == 1
    bench.step(0.2)
    assert bench.attestations() == 2
    assert bench.token == bench.verifier.tokens[-1] != bench.verifier.tokens[0]


@pytest.mark.parametrize(("chance", "part"), [(0.0, 1.0), (1.0, 0.875)])
def test_it_attests_anew_when_the_appliance_says(bench: Bench, chance: float, part: float) -> None:
    """A rule may name an age that is less than the life of a result."""
    bench.verifier.renew_in, bench.chance = 48, chance
    bench.step()
    bench.step(48 * part - 0.1)
    assert bench.attestations() == 1
    bench.step(0.2)
    assert bench.attestations() == 2


@pytest.mark.parametrize(("renew_in", "due_s"), [(10_000, LIFE_S * 0.8), (-5, 1.0)])
def test_what_the_appliance_says_has_bounds(bench: Bench, renew_in: int, due_s: float) -> None:
    bench.verifier.renew_in, bench.chance = renew_in, 0.0
    bench.step()
    bench.step(due_s - 0.1)
    assert bench.attestations() == 1
    bench.step(0.2)
    assert bench.attestations() == 2


def test_a_new_certificate_is_attested_at_once(bench: Bench) -> None:
    bench.step()
    bench.verifier.issue()
    bench.step(2.0)
    assert bench.attestations() == 2
    assert "the certificate is a new one" in bench.said


def test_a_certificate_that_is_away_for_a_moment_is_waited_for(bench: Bench) -> None:
    bench.step()
    key = bench.verifier.folder / "svid.key"
    octets = key.read_bytes()
    key.unlink()
    bench.step(2.0)
    assert bench.attestations() == 1
    key.write_bytes(octets)
    bench.step(2.0)
    assert bench.attestations() == 2


def test_a_refusal_at_the_start_ends_it(bench: Bench) -> None:
    bench.verifier.answers["/attest"] = (403, {"detail": "PCR 7"})
    with pytest.raises(RefusedError, match="PCR 7"):
        bench.step()


def test_files_that_cannot_be_used_at_the_start_end_it(bench: Bench) -> None:
    bench.verifier.own.chain.unlink()
    with pytest.raises(UnusableError):
        bench.step()


def test_an_appliance_that_is_not_up_yet_is_waited_for(tmp_path: Path) -> None:
    verifier = Verifier(tmp_path)
    bench = Bench(Attester(Place("127.0.0.1", 1, is_tls=False), None, Launched()), verifier)
    bench.step()
    assert "tried again in 1 s" in bench.said[0]
    assert not bench.file.exists()


def test_an_appliance_that_is_overloaded_at_the_start_is_waited_for(bench: Bench) -> None:
    bench.verifier.answers["/attest"] = (503, {"detail": "busy"})
    bench.step()
    bench.verifier.answers.clear()
    bench.step(1.1)
    assert bench.token == bench.verifier.tokens[0]


def test_failures_are_tried_again_ever_later(bench: Bench) -> None:
    bench.step()
    bench.verifier.answers["/attest"] = (503, {"detail": "busy"})
    waits: list[float] = []
    bench.now += LIFE_S
    for _ in range(9):
        before = bench.attestations()
        start = bench.now
        while bench.attestations() == before:
            bench.now += 0.25
            bench.step()
        waits.append(bench.now - start)
    assert waits == sorted(waits)
    assert 60 <= waits[-1] <= 61


def test_a_token_stays_while_nobody_answers_until_it_ends(bench: Bench) -> None:
    bench.step()
    bench.verifier.answers["/attest"] = (503, {"detail": "busy"})
    bench.step(LIFE_S * 0.8)
    assert bench.token
    bench.step(LIFE_S * 0.2)
    assert bench.token == ""
    assert bench.said[-1] == "the token has ended"


def test_a_refused_attestation_takes_the_token_away(bench: Bench) -> None:
    """A failed attestation voids what stood: nobody is left with what is void."""
    bench.step()
    bench.verifier.answers["/attest"] = (403, {"detail": "PCR 7 changed"})
    bench.step(LIFE_S * 0.8)
    assert bench.token == ""
    assert "PCR 7 changed" in bench.said[-2]
    assert bench.said[-1] == "the token is void"
    bench.verifier.answers.clear()
    bench.step(1.1)
    assert bench.token == bench.verifier.tokens[-1]


def test_heartbeats_come_when_the_appliance_wants_them(
    attester: Attester, verifier: Verifier
) -> None:
    verifier.changes["/heartbeat"] = {"attested": [{}], "next_s": 20.0}
    bench = Bench(attester, verifier, beats=True)
    bench.chance = 0.0
    bench.step()
    assert verifier.calls.count("/heartbeat") == 1
    bench.step(19.0)
    assert verifier.calls.count("/heartbeat") == 1
    bench.step(1.0)
    assert verifier.calls.count("/heartbeat") == 2


def test_a_heartbeat_that_hears_of_no_attestation_has_it_done_anew(
    attester: Attester, verifier: Verifier
) -> None:
    verifier.changes["/heartbeat"] = {"attested": [], "next_s": 60.0}
    bench = Bench(attester, verifier, beats=True)
    assert bench.step() == 0.0
    bench.step()
    assert bench.attestations() == 2
    assert verifier.calls.count("/heartbeat") == 1  # not again at once


def test_heartbeats_that_fail_are_told_of_once(attester: Attester, verifier: Verifier) -> None:
    verifier.answers["/heartbeat"] = (503, {"detail": "busy"})
    bench = Bench(attester, verifier, beats=True)
    for _ in range(3):
        bench.step(60.0)
    del verifier.answers["/heartbeat"]
    verifier.changes["/heartbeat"] = {"attested": [{}]}
    bench.step(60.0)
    told = [each for each in bench.said if "heartbeat" in each]
    assert len(told) == 2
    assert told[1] == "heartbeats are heard again"


class Fate(Attester):
    """An attester to whom happens what was drawn."""

    def __init__(self, fates: list[Any]) -> None:
        super().__init__(Place("127.0.0.1", 1, is_tls=False), None, Launched())
        self.fates = fates

    @override
    def attest(self) -> Attested:
        fate = self.fates.pop() if self.fates else UnreachableError("gone")
        if isinstance(fate, AttesterError):
            raise fate
        return Attested(f"t.{len(self.fates)}.s", fate, "software", "id")

    @override
    def beat(self, health: str = "ok") -> Heard:
        raise UnreachableError(f"gone, though {health}")


class Slate:
    def __init__(self) -> None:
        self.token = ""

    def put(self, token: str) -> None:
        self.token = token

    def close(self) -> None:
        """Nothing is left."""


FATES = st.one_of(
    st.floats(1, 600),
    st.sampled_from(
        [UnreachableError("gone"), RefusedError("no", 403), RefusedError("busy", 503)],
    ),
)


@given(st.lists(FATES, max_size=12), st.floats(0, 1), st.lists(st.floats(0, 400), max_size=20))
def test_whatever_happens_no_ended_token_is_left_and_the_wait_is_bounded(
    fates: list[Any], chance: float, steps: list[float]
) -> None:
    clock = [0.0]
    slate, said = Slate(), list[str]()
    fates.append(60.0)  # the first succeeds
    keeper = Keeper(Fate(fates), slate, lambda: clock[0], lambda: chance, said.append, beats=True)
    for each in steps:
        clock[0] += each
        assert 0 <= keeper.step() <= 2
        assert bool(slate.token) == (keeper._ends is not None)
        assert keeper._ends is None or clock[0] < keeper._ends
