"""What stands, for how long, and what is told when it counts for less."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.attested.ages import SKEW_S
from proxy.attested.result import Result
from proxy.limits import Limits
from rules.facts import Attestation, Level
from rules.freshness import within
from tests.proxy.attested.making import KEY, NOW, OTHER, TTL_S, Table, result


@pytest.fixture
def table() -> Table:
    return Table()


def test_a_result_attests_its_app_at_its_binding_alone(table: Table) -> None:
    """threats.md, "Identity": an attestation token copied to another process."""
    assert table.known.of(KEY, "coder") == ()
    assert table.known.add(result("a"))
    assert table.known.of(KEY, "coder") == (Attestation(Level.SOFTWARE, 60),)
    assert table.known.of(KEY, "other") == ()
    assert table.known.of(OTHER, "coder") == ()


def test_a_token_is_found_by_its_text_while_it_stands(table: Table) -> None:
    made = result("a")
    table.known.add(made)
    assert table.known.find("a") == made
    assert table.known.find("A") is None
    assert table.known.find("\udc80") is None
    table.clock.now = made.expires  # before anything looked
    assert table.known.find("a") is None
    assert table.known.current(KEY) == ()


def test_the_newest_of_a_level_takes_the_place_of_the_older(table: Table) -> None:
    table.known.add(result("a"))
    table.known.add(result("b", level=Level.TPM))
    table.known.add(result("c", at=NOW + 1))
    assert [each.id for each in table.known.current(KEY)] == ["b", "c"]
    levels = [each.level for each in table.known.of(KEY, "coder")]
    assert levels == [Level.TPM, Level.SOFTWARE]
    assert table.told == []


def test_a_token_from_before_a_newer_one_is_known_until_it_expires(table: Table) -> None:
    """A worker that presents it still is no stranger because its agent attested anew."""
    for unique, at in (("a", NOW), ("b", NOW + 200)):
        table.at(at - NOW)
        table.known.add(result(unique, at=at))
    found = table.known.find("a")
    assert found is not None
    assert found.id == "a"
    assert [each.id for each in table.known.all()] == ["b"]
    table.clock.now = NOW + TTL_S
    assert table.known.find("a") is None
    assert table.known.find("b") is not None
    table.known.look(table.clock.now)
    assert len(table.known._earlier) == 0


def test_what_is_voided_is_void_with_all_its_tokens(table: Table) -> None:
    table.known.add(result("a"))
    table.known.add(result("b"))
    table.known.add(result("c", attester="ee" * 32))
    before = table.known.epoch
    voided = table.known.void(lambda each: each.attester == "cc" * 32)
    assert [each.id for each in voided] == ["a", "b"]
    assert [table.known.find(each) is None for each in "abc"] == [True, True, False]
    assert table.known.epoch == before + 1
    assert table.told == []  # what is proven at the binding is what it was


def test_ageing_past_a_threshold_moves_the_epoch_and_is_told_once(table: Table) -> None:
    table.known.add(result("a"))
    before = table.known.epoch
    table.at(60)
    assert table.known.epoch == before  # 60 s old meets `max_age: 60`
    table.at(60.5)
    assert table.known.of(KEY, "coder") == (Attestation(Level.SOFTWARE, 300),)
    assert (table.known.epoch, table.told) == (before + 1, [("a",)])
    table.at(200)
    assert (table.known.epoch, table.told) == (before + 1, [("a",)])


def test_a_result_ends_when_it_expires(table: Table) -> None:
    table.known.add(result("a"))
    table.at(100)
    table.at(TTL_S)
    assert table.known.of(KEY, "coder") == ()
    assert table.told == [("a",), ("a",)]
    assert table.voids == [False, False]  # nobody voided it
    assert len(table.known) == 0


def test_an_answer_is_right_before_anybody_has_looked(table: Table) -> None:
    table.known.add(result("a"))
    before = table.known.epoch
    table.clock.now = NOW + 61
    assert table.known.of(KEY, "coder") == (Attestation(Level.SOFTWARE, 300),)
    table.clock.now = NOW + TTL_S
    assert table.known.of(KEY, "coder") == ()
    assert table.known.epoch == before  # `look` moves it
    table.known.look(table.clock.now)
    assert table.known.epoch == before + 1


def test_a_refresh_within_a_threshold_moves_nothing(table: Table) -> None:
    table.known.add(result("a"))
    before = table.known.epoch
    table.at(30)
    table.known.add(result("b", at=NOW + 30))
    assert table.known.epoch == before
    table.at(70)  # when the first would have been too old
    assert table.known.epoch == before
    assert table.told == []


def test_an_app_whose_rules_name_no_age_has_nothing_to_tell(table: Table) -> None:
    before = table.known.epoch
    table.known.add(result("a", app="quiet"))
    assert table.known.of(KEY, "quiet") == ()
    assert table.known.epoch == before
    table.at(TTL_S)
    assert table.told == [("a",)]  # who made something of the result hears of its end all the same


def test_rules_with_other_ages_are_used_at_once(table: Table) -> None:
    table.known.add(result("a"))
    table.at(30)
    before = table.known.epoch
    table.known.use({"coder": (60, 300), "other": (60, 300)})
    assert table.known.epoch == before
    table.known.use({"coder": (20, 300)})
    assert table.known.of(KEY, "coder") == (Attestation(Level.SOFTWARE, 300),)
    assert table.told == [("a",)]
    table.known.use({"coder": (40, 300)})
    assert table.known.of(KEY, "coder") == (Attestation(Level.SOFTWARE, 40),)
    assert table.told == [("a",)]  # better is not worse
    table.at(41)
    assert table.known.of(KEY, "coder") == (Attestation(Level.SOFTWARE, 300),)


def test_what_is_voided_counts_no_more_and_is_told(table: Table) -> None:
    for unique, binding in (("a", KEY), ("b", OTHER)):
        table.known.add(result(unique, binding=binding))
    before = table.known.epoch
    voided = table.known.void(lambda each: each.binding == KEY)
    assert [each.id for each in voided] == ["a"]
    assert table.known.of(KEY, "coder") == ()
    assert table.known.of(OTHER, "coder") != ()
    assert (table.known.epoch, table.told) == (before + 1, [("a",)])
    assert table.known.void(lambda each: each.binding == KEY) == ()
    assert table.known.epoch == before + 1
    assert not table.known.holds(voided[0])


def test_who_is_told_sees_the_new_epoch(table: Table) -> None:
    seen: list[tuple[int, int, bool]] = []

    def hear(results: tuple[Result, ...], *, is_void: bool) -> None:
        seen.append((table.known.epoch, len(results), is_void))

    table.known.add(result("a"))
    before = table.known.epoch
    table.known.on_void(hear)
    table.known.void(lambda _: True)
    assert seen == [(before + 1, 1, True)]


def test_a_result_from_the_future_does_not_count(table: Table) -> None:
    """threats.md, "Identity".

    Clock skew; a clock that was set back does not let results live longer.
    """
    table.known.add(result("a"))
    before = table.known.epoch
    table.at(-SKEW_S - 1)
    assert table.known.of(KEY, "coder") == ()
    assert table.known.find("a") is None
    assert (table.known.epoch, table.told) == (before + 1, [("a",)])
    table.at(-SKEW_S)
    assert table.known.of(KEY, "coder") == (Attestation(Level.SOFTWARE, 60),)


def test_a_clock_set_back_before_anybody_looked_is_noticed_too(table: Table) -> None:
    table.known.add(result("a"))
    table.at(1)
    table.clock.now = NOW - SKEW_S - 1
    assert table.known.of(KEY, "coder") == ()


def test_a_clock_that_is_set_back_lets_no_result_live_longer(table: Table) -> None:
    """threats.md, "Identity": clock skew; set back again and again, a result ends all the same."""
    table.known.add(result("a"))
    table.known.add(result("b", level=Level.TPM, at=NOW - 30))
    table.known.add(result("c", at=NOW))  # what it replaces ends so too
    for seconds in range(1, 300):
        table.monotonic.now = float(seconds)
        table.at(seconds % 50)
        ages = {each.level: each.within_s for each in table.known.of(KEY, "coder")}
        aged = {Level.SOFTWARE: float(seconds), Level.TPM: seconds + 30.0}
        assert ages == {
            level: 60 if age_s <= 60 else 300 for level, age_s in aged.items() if age_s < TTL_S
        }
        assert (table.known.find("a") is None) == (seconds >= 300)
    table.monotonic.now = 300.0
    table.at(0)
    assert table.known.of(KEY, "coder") == ()
    assert [table.known.find(each) for each in "abc"] == [None] * 3
    assert len(table.known) == 0


def test_a_clock_that_is_set_forward_ends_what_is_older_by_it(table: Table) -> None:
    table.known.add(result("a"))
    table.at(TTL_S)
    assert table.known.of(KEY, "coder") == ()


def test_evidence_that_is_older_takes_no_fresher_results_place(table: Table) -> None:
    """RFC 9334, section 10.3: it is younger than its nonce, and no more is known."""
    table.known.add(result("b"))
    epoch = table.known.epoch
    assert table.known.add(result("a", at=NOW - 50))
    assert [each.id for each in table.known.all()] == ["b"]
    assert table.known.find("a") is not None  # its token stands until it expires
    assert (table.known.epoch, table.told) == (epoch, [])
    table.clock.now = NOW + TTL_S - 50
    assert table.known.find("a") is None


def test_what_was_made_before_the_clock_was_set_back_is_replaced(table: Table) -> None:
    table.known.add(result("a"))
    table.monotonic.now = 10.0
    table.at(-30)
    assert table.known.add(result("b", at=NOW - 30))
    assert [each.id for each in table.known.current(KEY)] == ["b"]


def test_nothing_is_known_of_the_age_of_what_is_gone() -> None:
    table = Table(Limits(attestations=2, attestations_per_app=1, attestations_replaced=1))
    assert table.known.add(result("a"))
    for number in range(5):
        table.known.add(result(str(number)))
        table.known.add(result(f"later {number}", level=Level.TPM))
    table.known.add(result("other", app="other"))
    assert not table.known.add(result("third", app="third"))
    table.known.void(lambda _: True)
    assert len(table.known._ages) == 0


def test_an_app_at_its_share_loses_its_own_oldest() -> None:
    table = Table(Limits(attestations=4, attestations_per_app=2))
    for unique, binding in (("a", KEY), ("b", OTHER)):
        assert table.known.add(result(unique, binding=binding))
    assert table.known.add(result("c", level=Level.TPM))
    assert table.bounds == ["attestations_per_app"]
    assert table.told == [("a",)]
    assert sorted(each.id for each in table.known.all()) == ["b", "c"]


def test_a_full_table_takes_from_no_other_app() -> None:
    """threats.md, "Evidence as a weapon".

    One agent stops everyone through a table that is shared.
    """
    table = Table(Limits(attestations=2, attestations_per_app=2))
    table.known.add(result("a"))
    table.known.add(result("b", binding=OTHER))
    assert not table.known.has_room("other")
    assert not table.known.add(result("c", app="other"))
    assert table.bounds == ["attestations"]
    assert sorted(each.id for each in table.known.all()) == ["a", "b"]
    assert table.known.has_room("coder")
    assert table.known.add(result("d", level=Level.TPM))
    assert table.known.add(result("e", level=Level.TPM, at=NOW + 1))  # in the place of d


def test_what_went_before_its_moment_takes_no_room_for_long(table: Table) -> None:
    for number in range(1000):
        binding = type(KEY)(KEY.kind, f"{number:064x}")
        table.known.add(result(str(number), binding=binding))
        table.known.void(lambda _: True)
    table.at(1)
    assert len(table.known._heap) == 0
    table.known.add(result("a"))
    table.at(TTL_S)
    assert len(table.known) == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "void", "wait", "back", "use"]),
            st.integers(0, 400),
            st.sampled_from([Level.SOFTWARE, Level.TPM]),
        ),
        max_size=40,
    )
)
def test_an_answer_is_what_the_results_and_the_clock_say(
    steps: list[tuple[str, int, Level]],
) -> None:
    """Whatever was added, voided and waited for: `of` is as if it were computed anew each time."""
    table = Table()
    ages: tuple[int, ...] = (60, 300)
    held: dict[Level, float] = {}
    for number, (what, value, level) in enumerate(steps):
        answer, epoch = table.known.of(KEY, "coder"), table.known.epoch
        if what == "add":
            held[level] = table.clock.now
            table.known.add(result(str(number), level=level, at=table.clock.now))
        elif what == "void":
            held.clear()
            table.known.void(lambda _: True)
        elif what == "use":
            ages = (value, value + 100)
            table.known.use({"coder": ages})
        else:
            table.clock.now += value if what == "wait" else -value
            table.known.look(table.clock.now)
        held = {each: at for each, at in held.items() if table.clock.now < at + TTL_S}
        expected = {
            each: within(max(0.0, table.clock.now - at), ages)
            for each, at in held.items()
            if at <= table.clock.now + SKEW_S
        }
        found = {each.level: each.within_s for each in table.known.of(KEY, "coder")}
        assert found == {each: age for each, age in expected.items() if age is not None}
        assert table.known.of(KEY, "coder") == answer or table.known.epoch > epoch
