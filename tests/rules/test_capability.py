"""What may be had a token for: nothing that is not listed, and never more than was asked."""

import pytest

from rules.capability import Grant, GrantError, Ungranted, grant
from rules.facts import Attestation, Evidence, Level, Principal
from rules.required import ON_A_PLAIN_PORT
from rules.ruleset import App, Capability, Requirements

API, OTHER = "https://api.example.com/", "https://api.example.com"
FRESH = Principal("me", (Evidence.CERTIFICATE,), (Attestation(Level.SOFTWARE, 300),))
STRONG = Principal("me", (Evidence.CERTIFICATE,), (Attestation(Level.TPM, 60),))


def entry(
    *scopes: str,
    audience: str = API,
    id: str = "f:1",  # noqa: A002 - the name of the field
    ttl_s: int = 60,
    on_behalf_of: frozenset[str] = frozenset(),
    require: Requirements | None = None,
) -> Capability:
    default = Capability("", "", frozenset(), 0).require
    return Capability(id, audience, frozenset(scopes), ttl_s, on_behalf_of, require or default)


def app(*capabilities: Capability, require: Requirements | None = None) -> App:
    return App("me", require=require or Requirements(), capabilities=capabilities)


def granted(
    one: App,
    *scopes: str,
    audience: str = API,
    who: Principal = FRESH,
    subject: str | None = None,
) -> Grant | Ungranted:
    return grant(one, audience, scopes, who, subject)


def refused(one: App, *scopes: str, **asked: object) -> tuple[GrantError, str]:
    found = granted(one, *scopes, **asked)  # type: ignore[arg-type]  # as `granted` has them
    assert isinstance(found, Ungranted)
    return found.error, found.text


def test_what_is_listed_is_granted_as_asked_for() -> None:
    one = app(entry("read", "write"))
    assert granted(one, "read") == Grant(("read",), 60, "f:1")
    assert granted(one, "write", "read", "write") == Grant(("write", "read"), 60, "f:1")


def test_a_token_lives_as_long_as_the_rule_says() -> None:
    assert granted(app(entry("read", ttl_s=30)), "read") == Grant(("read",), 30, "f:1")


@pytest.mark.parametrize("audience", [OTHER, API + "x", API.upper(), "", "*"])
def test_another_audience_is_no_target(audience: str) -> None:
    """The attack "wrong aud": compared octet by octet, as the rules write it."""
    error, text = refused(app(entry("read")), "read", audience=audience)
    assert error is GrantError.INVALID_TARGET
    assert text.startswith(f"no capability of me is for {audience!r}; ask the admin")
    assert refused(app(), "read")[0] is GrantError.INVALID_TARGET


def test_scopes_that_are_not_listed_are_named() -> None:
    error, text = refused(app(entry("read", "write")), "read", "own", "grant")
    assert error is GrantError.INVALID_SCOPE
    assert text.startswith("not listed: 'grant', 'own'; ask the admin")
    assert refused(app(entry("read")), "rea")[0] is GrantError.INVALID_SCOPE


def test_who_names_no_scope_gets_none() -> None:
    one = app(entry("write"), entry("read", id="f:2"), entry("x", audience=OTHER))
    assert refused(one) == (GrantError.INVALID_SCOPE, "name the scopes: 'read', 'write'")


def test_a_text_does_not_repeat_whatever_was_sent() -> None:
    """The attack "huge claims"."""
    scopes = [f"s{number}" + "x" * 10_000 for number in range(1000)]
    assert len(refused(app(entry("read")), *scopes)[1]) < 1000
    assert len(refused(app(entry("read")), "read", audience="a\n" * 10_000)[1]) < 300


def test_entries_of_one_audience_that_hold_all_scopes_add_up() -> None:
    strict = Requirements(attested=Level.TPM, max_age_s=60)
    one = app(
        entry("read", "write", id="f:3", ttl_s=600),
        entry("read", id="f:2", ttl_s=30, require=strict),
        entry("read", audience=OTHER, ttl_s=1),
    )
    assert granted(one, "read", who=STRONG) == Grant(("read",), 30, "f:2")
    assert refused(one, "read") == (
        GrantError.ATTESTATION_REQUIRED,
        "proven is level software, needed is tpm",
    )
    assert granted(one, "read", "write") == Grant(("read", "write"), 600, "f:3")


def test_scopes_of_several_entries_are_not_put_together() -> None:
    error, text = refused(app(entry("read"), entry("write", id="f:2")), "read", "write")
    assert error is GrantError.INVALID_SCOPE
    assert text.startswith("no one entry of `capabilities` has all of them")


def test_what_the_app_requires_is_required_of_its_tokens_too() -> None:
    one = app(entry("read"), require=Requirements(attested=Level.TPM, max_age_s=60))
    assert refused(one, "read")[0] is GrantError.ATTESTATION_REQUIRED
    assert granted(one, "read", who=STRONG) == Grant(("read",), 60, "f:1")


def test_a_certificate_is_asked_for_where_it_is_required() -> None:
    leased = Principal("me", (Evidence.LEASE,), (Attestation(Level.LAUNCHED, 60),))
    mtls = Requirements(mtls=True, attested=Level.SOFTWARE, max_age_s=300)
    error, text = refused(app(entry("read", require=mtls)), "read", who=leased)
    assert error is GrantError.ATTESTATION_REQUIRED
    assert "client certificate" in text
    assert isinstance(granted(app(entry("read")), "read", who=leased), Grant)


def test_without_a_fresh_attestation_there_is_no_token() -> None:
    plain = Principal("me", (Evidence.TOKEN,))
    error = GrantError.ATTESTATION_REQUIRED
    assert refused(app(entry("read")), "read", who=plain) == (error, ON_A_PLAIN_PORT)
    stale = Principal("me", (Evidence.CERTIFICATE,))
    assert refused(app(entry("read")), "read", who=stale)[0] is error


def test_an_app_acts_for_those_only_that_its_rule_names() -> None:
    """Nobody passes on a token of an agent that his rule does not name."""
    one = app(
        entry("read", id="f:1", on_behalf_of=frozenset({"planner"}), ttl_s=30),
        entry("read", "write", id="f:2"),
    )
    assert granted(one, "read", subject="planner") == Grant(("read",), 30, "f:1")
    for scope, subject in (("read", "other"), ("write", "planner")):
        error, text = refused(one, scope, subject=subject)
        assert error is GrantError.INVALID_TARGET
        assert text.startswith(f"me may not act on behalf of {subject} there; ask the admin")


def test_who_acts_for_himself_acts_for_nobody() -> None:
    one = app(entry("read"))
    assert granted(one, "read", subject="me") == granted(one, "read")
