"""What a secret stands for, at each moment of its life."""

import re
from typing import get_args

import msgspec
import pytest

from proxy.tokens.known import (
    PREFIX,
    Issued,
    Purpose,
    State,
    Token,
    Tokens,
    Wanted,
    digest,
    new_secret,
)
from rules.decision import Reason

SECRET = new_secret(bytes(range(32)))


def token(id: str = "coder.1", **fields: object) -> Token:  # noqa: A002 - the field's own name
    values = {"name": id.partition(".")[0], "created": 0.0, "expires": 100.0, **fields}
    return msgspec.convert({"id": id, **values}, Token)


def knowing(*tokens: tuple[str, Token], now: float = 0.0) -> Tokens:
    found = Tokens(lambda: now)
    found.use({digest(secret): each for secret, each in tokens}, now)
    return found


def test_a_secret_is_32_random_octets_behind_a_prefix_that_scanners_find() -> None:
    assert re.fullmatch(r"spt_[A-Za-z0-9_-]{43}", SECRET)
    assert SECRET.startswith(PREFIX)
    assert len({SECRET, new_secret(bytes(32))}) == 2


def test_only_the_digest_of_a_secret_is_kept() -> None:
    tokens = knowing((SECRET, token()))
    assert SECRET not in repr(vars(tokens))
    assert len(digest(SECRET)) == 32


def test_a_valid_secret_finds_its_token() -> None:
    assert knowing((SECRET, token())).find(SECRET, 99.9) == token()


@pytest.mark.parametrize(
    "secret", ["", "spt_", SECRET[:-1], SECRET + "A", SECRET.lower(), "\ud800"]
)
def test_anything_else_is_unknown(secret: str) -> None:
    assert knowing((SECRET, token())).find(secret, 1.0) is Reason.IDENTITY_UNKNOWN


def test_an_expired_secret_is_unknown_and_a_revoked_one_revoked_until_it_is_forgotten() -> None:
    """threats.md, "Identity": tokens leak; they have a TTL and can be revoked."""
    tokens = knowing((SECRET, token()))
    assert tokens.find(SECRET, 100.0) is Reason.IDENTITY_UNKNOWN
    tokens.use({digest(SECRET): token(revoked=5.0)}, 5.0)
    assert tokens.find(SECRET, 5.0) is Reason.REVOKED
    assert tokens.find(SECRET, 1000.0) is Reason.REVOKED


@pytest.mark.parametrize(
    ("fields", "state"),
    [({}, "valid"), ({"expires": 10.0}, "expired"), ({"revoked": 1.0, "expires": 2.0}, "revoked")],
)
def test_a_token_says_what_it_is_worth(fields: dict[str, object], state: str) -> None:
    assert token("coder.1", **fields).state(10.0) == state
    assert state in get_args(State.__value__)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"revoked": 1.0}, "coder.1 was revoked"),
        ({"expires": 5.0, "rotated": 1.0}, "coder.1 was replaced by a newer one"),
        ({"expires": 5.0}, "coder.1 has expired"),
        ({}, "coder.1 is not for this app, listener or user"),
    ],
)
def test_says_why_a_token_is_worth_nothing(fields: dict[str, object], words: str) -> None:
    said = knowing((SECRET, token("coder.1", **fields))).explain(SECRET, 10.0)
    assert words in said
    assert SECRET not in said


def test_says_of_a_stranger_that_there_is_no_such_token() -> None:
    said = Tokens(lambda: 0.0).explain(SECRET, 0.0)
    assert "no such token" in said
    assert SECRET not in said


def test_the_epoch_changes_with_everything_that_may_change_an_answer() -> None:
    tokens = Tokens(lambda: 0.0)
    epochs = [tokens.epoch]
    tokens.use({digest(SECRET): token()}, 0.0)
    epochs.append(tokens.epoch)
    tokens.look(99.0)
    assert tokens.epoch == epochs[-1]  # nothing happened
    tokens.look(100.0)  # it expired
    epochs.append(tokens.epoch)
    tokens.use({digest(SECRET): token(revoked=1.0)}, 100.0)
    epochs.append(tokens.epoch)
    assert len(set(epochs)) == 4
    tokens.look(200.0)
    assert tokens.epoch == epochs[-1]


def test_a_clock_that_is_set_back_makes_valid_again_what_it_had_ended() -> None:
    tokens = knowing((SECRET, token()))
    tokens.look(1000.0)
    found = [tokens.any_for_apps, isinstance(tokens.find(SECRET, 1000.0), Token)]
    tokens.look(50.0)
    found += [tokens.any_for_apps, isinstance(tokens.find(SECRET, 50.0), Token)]
    tokens.look(100.0)
    assert [*found, tokens.any_for_apps] == [False, False, True, True, False]


def test_tells_of_each_token_that_is_void_from_then_on_once() -> None:
    other = new_secret(bytes(32))
    tokens = knowing((SECRET, token()), (other, token("builder.2", expires=50.0)))
    told: list[str] = []
    tokens.on_void(lambda each: told.append(each.id))
    tokens.look(49.0)
    assert told == []
    tokens.look(50.0)
    assert told == ["builder.2"]
    tokens.use({digest(SECRET): token(revoked=51.0)}, 51.0)
    tokens.use({}, 52.0)
    assert told == ["builder.2", "coder.1"]


def test_only_valid_tokens_for_apps_count_as_such() -> None:
    tokens = knowing((SECRET, token(purpose="scrape")))
    found = [tokens.any_for_apps]
    tokens.use({digest(SECRET): token()}, 0.0)
    found.append(tokens.any_for_apps)
    assert tokens.names == {"coder"}
    tokens.look(100.0)
    assert [*found, tokens.any_for_apps] == [False, True, False]


def test_lists_the_oldest_first() -> None:
    tokens = knowing(("b", token("b.2", created=2.0)), ("a", token("a.1", created=1.0)))
    assert [each.id for each in tokens.all()] == ["a.1", "b.2"]


def test_no_repr_of_a_new_token_shows_its_secret() -> None:
    """threats.md, "Identity": tokens leak through environ, .npmrc and logs."""
    issued = Issued(token(), SECRET)
    assert SECRET not in f"{issued} {issued!r} {[issued]}"
    assert "coder.1" in repr(issued)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "Coder"},
        {"name": "a.b"},
        {"name": ""},
        {"name": "x" * 65},
        {"name": "coder", "bind_uid": -1},
        {"name": "coder", "bind_uid": 2**32 - 1},
        {"name": "coder", "purpose": "admin"},
        {"name": "coder", "more": 1},
    ],
)
def test_what_no_token_can_be_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(fields, Wanted)


def test_a_token_is_for_an_app_unless_it_says_otherwise() -> None:
    assert msgspec.convert({"name": "coder"}, Wanted).purpose is Purpose.APP


def test_a_token_to_join_that_was_used_is_found_no_more_and_says_so() -> None:
    tokens = Tokens(lambda: 0.0)
    join = token(purpose=Purpose.JOIN)
    tokens.use({digest(SECRET): join}, 1.0)
    assert tokens.find(SECRET, 1.0) == join
    assert not tokens.any_for_apps
    assert "for `sallyport enroll` alone" in tokens.explain(SECRET, 1.0)
    tokens.use({digest(SECRET): msgspec.structs.replace(join, used=1.0)}, 1.0)
    assert tokens.find(SECRET, 1.0) is Reason.IDENTITY_UNKNOWN
    assert "was used to enrol" in tokens.explain(SECRET, 1.0)
    assert tokens.all()[0].state(1.0) == "used"
