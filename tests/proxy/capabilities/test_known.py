"""The table of tokens: bounded, with lineage, and nothing in it comes back."""

import pytest

from proxy.attested.binding import Binding, Kind
from proxy.capabilities.known import Capabilities, FullError
from proxy.capabilities.token import CapabilityToken, digest, party_of
from proxy.limits import Limits
from rules.facts import Level

NOW = 1_790_000_000


def lease(name: str) -> Binding:
    return Binding(Kind.LEASE, name)


def token(
    name: str, parent: str = "", expires: int = NOW + 60, app: str = "coder", of: str = "lease"
) -> CapabilityToken:
    return CapabilityToken(
        id=name, token_sha256=digest(f"text of {name}"), parties=(party_of(app, ""),),
        audience="docs", scopes=("a",), level=Level.TPM, least=Level.SOFTWARE,
        binding=lease(of), attester="ak", result="1", rule="a.yaml:1",
        at=NOW, expires=expires, parent=parent,
    )  # fmt: skip


def table(*tokens: CapabilityToken, **limits: int) -> Capabilities:
    made = Capabilities(Limits(**limits), lambda _: None)
    for each in tokens:
        made.add(each)
    return made


def test_a_token_is_found_by_its_text_its_digest_and_its_id() -> None:
    known = table(token("a"))
    assert known.find("text of a") == known.get("a") == known.get(digest("text of a")) == token("a")
    assert known.find("a") is None
    assert known.all() == (token("a"),)
    known.add(token("a", expires=NOW + 1))
    assert len(known) == 1


def test_a_token_stands_between_its_times() -> None:
    known = table(token("a"))
    assert [known.stands(token("a"), NOW + each) for each in (-61, -60, 0, 59, 60)] == [
        False, True, True, True, False,
    ]  # fmt: skip
    assert not known.stands(token("b"), NOW)


def test_what_was_made_of_a_void_token_is_void_too() -> None:
    known = table(token("a"), token("b", "a"), token("c", "b"), token("d", "a"), token("e"))
    voided = known.void(["b"], NOW, "why")
    assert {each.id for each in voided} == {"b", "c"}
    assert {each.id for each in known.void(["a", "a", "x"], NOW + 1, "again")} == {"a", "d"}
    kept = known.get("b")
    assert kept is not None
    assert (kept.void_at, kept.why) == (NOW, "why")
    assert (len(known), known.current) == (5, 1)


def test_lineage_ends_where_nothing_is_known() -> None:
    a, b, c = token("a"), token("b", "a"), token("c", "b")
    assert table(a, b, c).lineage(c) == (c, b, a)
    assert table(b, c).lineage(c) == (c, b, None)


def test_what_has_expired_is_forgotten_with_its_links() -> None:
    known = table(token("a", expires=NOW + 9), token("b", "a", NOW + 5), token("c", "a", NOW + 7))
    known.void(["c"], NOW, "")
    known.look(NOW + 4)
    assert (len(known), known.current) == (3, 2)
    known.look(NOW + 7)
    assert known.all() == (token("a", expires=NOW + 9),)
    known.look(NOW + 9)
    assert (len(known), known.current, known.find("text of a")) == (0, 0, None)


def test_a_child_that_outlives_its_parent_in_the_table_is_forgotten_as_well() -> None:
    known = table(token("a", expires=NOW + 5), token("b", "a", NOW + 5), token("c", "x"))
    known.look(NOW + 60)
    assert len(known) == 0


def test_room_is_kept_while_a_token_is_made_and_given_back() -> None:
    hit: list[str] = []
    known = Capabilities(Limits(capabilities=2, capabilities_per_app=1), hit.append)
    with known.room("coder", lease("coder")):
        with pytest.raises(FullError), known.room("coder", lease("coder")):
            pass
        with (
            known.room("box", lease("box")),
            pytest.raises(FullError),
            known.room("third", lease("third")),
        ):
            pass
    with known.room("coder", lease("coder")):
        known.add(token("a"))
    with pytest.raises(FullError), known.room("coder", lease("coder")):
        pass
    assert hit == ["capabilities_per_app", "capabilities", "capabilities_per_app"]
    known.look(NOW + 60)
    with known.room("coder", lease("coder")):
        pass


def test_one_binding_has_a_share_of_its_apps_room() -> None:
    hit: list[str] = []
    known = Capabilities(Limits(capabilities_per_app=3, capabilities_per_binding=1), hit.append)
    with known.room("coder", lease("one")):
        with pytest.raises(FullError), known.room("coder", lease("one")):
            pass
        with known.room("coder", lease("two")):
            pass
    known.add(token("a", of="one"))
    with pytest.raises(FullError, match="capabilities_per_binding"):
        known.room("coder", lease("one")).__enter__()
    assert hit == ["capabilities_per_binding"] * 2
    known.look(NOW + 60)
    with known.room("coder", lease("one")):
        pass
