"""Entries of `capabilities` become what the reference says, or say why not."""

import pytest

from rules.facts import Level
from rules.ruleset import Capability, Requirements
from tests.rules.files import app_of, errors_of, me, problems_of, warnings_of

ATTESTED = Requirements(attested=Level.SOFTWARE, max_age_s=300)


def body(*entries: str) -> str:
    return "capabilities:\n" + "\n".join(f"  - {entry}" for entry in entries)


def capabilities(*entries: str) -> tuple[Capability, ...]:
    return app_of(me(body(*entries)), "apps: {planner: {}, you: {}}").capabilities


def errors_in(*entries: str) -> list[str]:
    """Return the errors of entries; the first begins in line 4, column 9."""
    return errors_of(me(body(*entries)), "apps: {planner: {}, you: {}}")


def test_a_capability_holds_what_is_written() -> None:
    assert capabilities(
        "{audience: 'https://api.example.com/', scopes: ['read-project-x:documents', write], "
        "ttl: 5m, on_behalf_of: [planner, you], require: [mtls, {attested: {level: tpm, "
        "max_age: 10m}}]}"
    ) == (
        Capability(
            "a.yaml:4",
            "https://api.example.com/",
            frozenset({"read-project-x:documents", "write"}),
            300,
            frozenset({"planner", "you"}),
            Requirements(mtls=True, attested=Level.TPM, max_age_s=600),
        ),
    )


def test_without_more_it_is_for_a_minute_and_wants_an_attestation() -> None:
    (one,) = capabilities("{audience: 'urn:example:x', scopes: [read]}")
    assert one == Capability("a.yaml:4", "urn:example:x", frozenset({"read"}), 60)
    assert one.require == ATTESTED


def test_a_token_without_an_attestation_cannot_be_asked_for() -> None:
    (one,) = capabilities("{audience: 'urn:x:y', scopes: [read], require: [mtls]}")
    assert one.require == Requirements(mtls=True, attested=Level.SOFTWARE, max_age_s=300)


def test_capabilities_add_up_over_files() -> None:
    one = body("{audience: 'urn:x:y', scopes: [read]}")
    two = body("{audience: 'urn:x:y', scopes: [write]}", "{audience: 'urn:x:z', scopes: [read]}")
    found = app_of(me(one), me(two)).capabilities
    assert [each.id for each in found] == ["a.yaml:4", "b.yaml:4", "b.yaml:5"]


@pytest.mark.parametrize(
    "audience",
    [
        "https://api.example.com", "https://api.example.com:8443/v1/?a=%20b", "https://[::1]/x",
        "https://a",
        "spiffe://desk.example/api", "urn:example:documents", "api://documents", "tag:a@b.c,2026:x",
    ],
)  # fmt: skip
def test_audiences_are_absolute_uris_and_spiffe_ids(audience: str) -> None:
    (one,) = capabilities(f"{{audience: '{audience}', scopes: [read]}}")
    assert one.audience == audience


@pytest.mark.parametrize(
    "audience",
    [
        "documents", "/documents", "https://", "https:///path", "https://a b/", "http", "HTTPS://a/",
        "https://a/#f", "https://a/%zz", "https:/a", "urn:", "*", "https://é.example/", "1a:b",
        "https://a/" + "x" * 2048,
    ],
)  # fmt: skip
def test_what_names_nobody_is_an_error_with_a_cure(audience: str) -> None:
    (found,) = problems_of(me(body(f"{{audience: '{audience}', scopes: [read]}}")))
    assert str(found.place) == "a.yaml:4:20"
    assert "names no audience" in found.message
    assert found.cure == "write an absolute URI such as https://api.example.com/, or a SPIFFE ID"


def test_an_audience_that_is_nearly_a_spiffe_id_is_an_error() -> None:
    for audience in ("spiffe://desk.example", "spiffe:desk", "spiffe://desk.example/a/../b"):
        (problem,) = errors_in(f"{{audience: '{audience}', scopes: [read]}}")
        assert problem == f"a.yaml:4:20 '{audience}' is no SPIFFE ID"


@pytest.mark.parametrize("scope", ["a b", 'a"b', "a\\b", "", "é", "x" * 129])
def test_a_scope_has_the_characters_of_the_rfc(scope: str) -> None:
    """RFC 6749, section 3.3."""
    (found,) = problems_of(me(body(f"{{audience: 'urn:x:y', scopes: ['{scope}']}}")))
    assert str(found.place) == "a.yaml:4:40"
    assert "is no scope" in found.message
    assert "128" in found.cure


def test_every_character_of_the_rfc_is_taken() -> None:
    known = [chr(code) for code in range(0x21, 0x7F) if chr(code) not in "\"\\'"]
    (one,) = capabilities(f"{{audience: 'urn:x:y', scopes: ['{''.join(known)}', '{'x' * 128}']}}")
    assert "".join(known) in one.scopes


@pytest.mark.parametrize(("ttl", "seconds"), [("1", 1), ("1s", 1), ("60m", 3600), ("1h", 3600)])
def test_a_token_lives_from_a_second_to_an_hour(ttl: str, seconds: int) -> None:
    (one,) = capabilities(f"{{audience: 'urn:x:y', scopes: [a], ttl: {ttl}}}")
    assert one.ttl_s == seconds


@pytest.mark.parametrize(
    ("ttl", "problem"),
    [
        ("0", "'0' is no duration"),
        ("-1", "'-1' is no duration"),
        ("0s", "'0s' is no duration"),
        ("soon", "'soon' is no duration"),
        ("3601", "a token for 3601 s long outlives what was proven"),
        ("1d", "a token for 86400 s long outlives what was proven"),
    ],
)
def test_no_shorter_and_no_longer(ttl: str, problem: str) -> None:
    (found,) = errors_in(f"{{audience: 'urn:x:y', scopes: [a], ttl: {ttl}}}")
    assert found == f"a.yaml:4:49 {problem}"


def test_nobody_acts_for_an_app_that_nobody_wrote() -> None:
    entry = "{audience: 'urn:x:y', scopes: [a], on_behalf_of: [planner, planer, no]}"
    found = problems_of(me(body(entry)), "apps: {planner: {}}")
    assert [f"{each.place} {each.message}" for each in found] == [
        "a.yaml:4:68 there is no app 'planer'",
        "a.yaml:4:76 there is no app 'no'",
    ]
    assert found[0].cure.startswith("did you mean `planner`?")


def test_of_files_that_are_not_all_read_no_app_is_missing() -> None:
    entry = "{audience: 'urn:x:y', scopes: [a], on_behalf_of: [planner]}"
    (problem,) = errors_of(me(body(entry)), "apps: {planner: [")
    assert problem.startswith("b.yaml:")


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("{audience: 'urn:x:y', scopes: [a, b, a]}", "a.yaml:4:46 'a' stands twice in `scopes`"),
        (
            "{audience: 'urn:x:y', scopes: [a], on_behalf_of: [you, you]}",
            "a.yaml:4:64 'you' stands twice in `on_behalf_of`",
        ),
        ("{audience: 'urn:x:y', scopes: []}", "a.yaml:4:39 `scopes` wants a list of text, not"),
        ("{audience: 'urn:x:y', scopes: [a], on_behalf_of: []}", "a.yaml:4:58 `on_behalf_of` want"),
        ("{audience: 'urn:x:y', scopes: [a], require: []}", "a.yaml:4:53 `require` wants a list"),
        ("{audience: 'urn:x:y'}", "a.yaml:4:9 an item of `capabilities` lacks the key `scopes`"),
        ("{scopes: [a]}", "a.yaml:4:9 an item of `capabilities` lacks the key `audience`"),
        ("{audience: 5, scopes: [a]}", "a.yaml:4:20 `audience` wants text, found the number 5"),
        ("{audience: 'urn:x:y', scopes: [a], for: 5}", "a.yaml:4:44 'for' is no key of an item of"),
    ],
)
def test_a_mistake_stands_at_its_word(entry: str, problem: str) -> None:
    assert errors_in(entry)[0].startswith(problem)


def test_an_empty_list_of_capabilities_is_an_error() -> None:
    (problem,) = errors_of(me("capabilities: []"))
    assert problem.startswith("a.yaml:3:19 `capabilities` wants a list")


def test_who_serves_an_audience_introspects_its_tokens() -> None:
    found = app_of(
        me("introspects: ['https://api.example.com/', 'spiffe://desk.example/api']"),
        me("introspects: ['sallyport:app:api', 'https://api.example.com/']"),
    ).introspects
    assert found == {
        "https://api.example.com/",
        "spiffe://desk.example/api",
        "sallyport:app:api",
    }
    assert app_of(me("allow: []")).introspects == frozenset()


def test_an_audience_that_nobody_introspects_is_fine() -> None:
    """Its server verifies tokens by itself."""
    spiffe = 'identity: [{spiffe: "spiffe://desk.example/me"}]\n'
    entries = body("{audience: 'https://api.example.com/', scopes: [read]}")
    assert warnings_of(me(spiffe + entries)) == []


def test_two_apps_may_introspect_one_audience() -> None:
    body = "introspects: ['urn:x:y']"
    text = me(body) + me(body).replace("apps:\n", "").replace("me:", "you:")
    assert errors_of(text) == []


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("[]", "a.yaml:3:18 `introspects` wants a list of text, not empty, found an empty list"),
        ("urn:x:y", "a.yaml:3:18 `introspects` wants a list of text"),
        ("[5]", "a.yaml:3:19 an item of `introspects` wants text, found the number 5"),
        ("[api.example.com]", "a.yaml:3:19 'api.example.com' names no audience"),
        ("['spiffe://a']", "a.yaml:3:19 'spiffe://a' is no SPIFFE ID"),
        ("['urn:x:y', 'urn:x:y']", "a.yaml:3:30 'urn:x:y' stands twice in `introspects`"),
    ],
)
def test_what_is_no_audience_is_not_introspected(written: str, problem: str) -> None:
    found = problems_of(me(f"introspects: {written}"))[0]
    assert f"{found.place} {found.message}".startswith(problem)
    assert found.cure


def test_the_same_audience_with_the_same_scopes_twice_is_an_error() -> None:
    one = "{audience: 'urn:x:y', scopes: [a, b]}"
    assert errors_of(me(body(one)), me(body("{audience: 'urn:x:y', scopes: [b, a], ttl: 5}"))) == [
        "b.yaml:4:20 the audience 'urn:x:y' has these scopes at a.yaml:4"
    ]
    assert errors_in(one, "{audience: 'urn:x:y', scopes: [a]}") == []
    assert errors_in(one, "{audience: 'urn:x:z', scopes: [a, b]}") == []
