"""What has to be written is told once, and a row that was never written is never deleted."""

from rules.changes import Changes


def test_a_changed_row_is_told_once() -> None:
    changes = Changes()
    changes.put("a", is_stored=False)
    changes.put("a", is_stored=False)
    assert list(changes.take()) == ["a"]
    assert list(changes.take()) == []


def test_what_is_gone_before_it_was_written_is_not_told() -> None:
    changes = Changes()
    changes.put("a", is_stored=False)
    changes.gone("a", is_stored=False)
    assert list(changes.take()) == []


def test_what_was_written_is_told_when_it_is_gone() -> None:
    changes = Changes()
    changes.gone("a", is_stored=True)
    assert list(changes.take()) == ["a"]


def test_what_is_gone_comes_again_and_is_gone_is_still_told() -> None:
    changes = Changes()
    changes.gone("a", is_stored=True)
    changes.put("a", is_stored=False)
    changes.gone("a", is_stored=False)
    assert list(changes.take()) == ["a"]


def test_a_row_that_goes_while_rows_are_taken_is_left_out() -> None:
    changes = Changes()
    changes.put("a", is_stored=False)
    changes.put("b", is_stored=False)
    taken = changes.take()
    assert next(taken) == "a"
    changes.gone("b", is_stored=False)
    assert list(taken) == []
