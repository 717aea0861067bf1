"""A token as it is kept."""

from proxy.capabilities.token import Party, digest, name_of, party_of
from rules.entitled import read_audience
from tests.proxy.capabilities.test_claims import TOKEN


def test_who_has_no_spiffe_id_has_the_name_of_the_app() -> None:
    lent = party_of("box", "")
    assert (lent, lent.spiffe_id) == (Party("box", "sallyport:app:box"), "")
    named = party_of("box", "spiffe://d/box", "1f")
    assert (named, named.spiffe_id) == (Party("box", "spiffe://d/box", "1f"), "spiffe://d/box")


def test_an_app_may_be_an_audience_of_the_rules() -> None:
    assert read_audience(name_of("documents")) == "sallyport:app:documents"


def test_the_first_is_acted_for_and_the_last_holds_it() -> None:
    assert (TOKEN.subject.app, TOKEN.holder.app) == ("a", "b")


def test_any_text_has_a_digest() -> None:
    assert len({digest(each) for each in ("", "a", "\ud800", "é")}) == 4
