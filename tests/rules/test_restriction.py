"""What narrows a rule is read strictly, each mistake at its own item."""

from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network

import pytest
from msgspec import UNSET

from rules.document import Attested, AttestedRequirement
from rules.errors import Severity
from rules.facts import Level
from rules.node import MappingNode, MistakeError, Node, Report, ScalarNode, SequenceNode
from rules.path import parse_glob
from rules.restriction import (
    reaches_loopback,
    read_each,
    read_method,
    read_network,
    read_require,
    read_seconds,
    read_type,
    require_of,
)
from rules.ruleset import Requirements


def items(count: int) -> SequenceNode:
    return SequenceNode(1, 1, [ScalarNode(n, 1, "", True) for n in range(1, count + 1)])


@pytest.mark.parametrize(("text", "number"), [("A", 1), ("aaaa", 28), ("TYPE65", 65)])
def test_types_are_mnemonics_or_numbers(text: str, number: int) -> None:
    assert read_type(text) == number


def test_an_unknown_type_suggests_one() -> None:
    with pytest.raises(MistakeError, match="'AAA' is no DNS record type") as caught:
        read_type("AAA")
    assert caught.value.cure.startswith("did you mean `AAAA`?")


@pytest.mark.parametrize(
    "text", ["10.0.0.1/8", "10.1", "010.0.0.1", "::1%eth0", "10.0.0.0/33", "example.com", ""]
)
def test_networks_are_in_canonical_spelling(text: str) -> None:
    with pytest.raises(MistakeError) as caught:
        read_network(text)
    assert "ADDRESS/LENGTH" in caught.value.cure


def test_an_address_is_its_own_network() -> None:
    assert read_network("192.0.2.7") == IPv4Network("192.0.2.7/32")
    assert read_network("2001:db8::/32") == IPv6Network("2001:db8::/32")


def test_methods_are_tokens_in_upper_case() -> None:
    assert read_method("VERSION-CONTROL") == "VERSION-CONTROL"
    with pytest.raises(MistakeError, match="in lower case") as caught:
        read_method("get")
    assert caught.value.cure == "write GET"
    for text in ("", "GET POST", "G\nT", "A" * 65, "GÉT"):
        with pytest.raises(MistakeError, match="is no HTTP method"):
            read_method(text)


@pytest.mark.parametrize(
    ("value", "seconds"), [(300, 300), ("300s", 300), ("5m", 300), ("1h", 3600), ("1d", 86400)]
)
def test_durations_are_seconds_or_have_a_unit(value: int | str, seconds: int) -> None:
    assert read_seconds(value) == seconds


@pytest.mark.parametrize("value", [0, -1, 10**9, "0s", "5", "5 m", "5w", "1.5h", "٣s", ""])
def test_other_durations_are_mistakes(value: int | str) -> None:
    with pytest.raises(MistakeError, match="is no duration"):
        read_seconds(value)


@pytest.mark.parametrize(
    ("network", "reaches"),
    [
        ("127.0.0.1/32", True), ("127.3.0.0/16", True), ("0.0.0.0/0", True), ("0.0.0.0/32", True),
        ("::1/128", True), ("::/0", True), ("::/128", True), ("::ffff:127.0.0.1/128", True),
        ("10.0.0.0/8", False), ("126.0.0.0/8", False), ("fd00::/8", False), ("::2/127", False),
    ],
)  # fmt: skip
def test_what_reaches_this_host_is_known(network: str, reaches: bool) -> None:
    assert reaches_loopback([read_network(network)]) is reaches


@pytest.mark.parametrize(
    ("read", "texts", "problem"),
    [
        (read_type, ["A", "B"], "2 'B' is no DNS record type"),
        (parse_glob, ["/a", "b"], "2 "),
        (read_method, ["GET", "put"], "2 the HTTP method 'put' is in lower case"),
    ],
)
def test_each_mistake_stands_at_its_item(
    read: Callable[[str], object], texts: list[str], problem: str
) -> None:
    report = Report("f", "")
    assert read_each(texts, items(2), read, report) == [read(texts[0])]
    (found,) = report.problems(Severity.ERROR)
    assert f"{found.place.line} {found.message}".startswith(problem)
    assert found.cure


def test_bare_attested_is_level_software_for_300_seconds() -> None:
    report = Report("f", "")
    assert read_require(["attested"], items(1), report) == Requirements(
        attested=Level.SOFTWARE, max_age_s=300
    )
    assert read_require(["mtls"], items(1), report) == Requirements(mtls=True)
    bare = AttestedRequirement(attested=Attested())
    assert read_require([bare], items(1), report) == read_require(["attested"], items(1), report)


def test_requirements_add_up_to_the_highest_level_and_smallest_age() -> None:
    strong = AttestedRequirement(attested=Attested(level="tpm", max_age="1h"))
    total = read_require(["mtls", strong, "attested"], items(3), Report("f", ""))
    assert total == Requirements(mtls=True, attested=Level.TPM, max_age_s=300)


def test_a_wrong_age_is_reported_where_it_stands() -> None:
    age = ScalarNode(7, 9, "soon", True)
    key = ScalarNode(7, 1, "max_age", True)
    terms: Node = MappingNode(6, 1, {"max_age": (key, age)})
    node = MappingNode(5, 1, {"attested": (ScalarNode(5, 1, "attested", True), terms)})
    report = Report("f", "")
    entry = AttestedRequirement(attested=Attested(level=UNSET, max_age="soon"))
    read_require([entry], SequenceNode(1, 1, [node]), report)
    (problem,) = report.problems(Severity.ERROR)
    assert (problem.place.line, problem.place.column) == (7, 9)
    assert problem.message == "'soon' is no duration"


def test_what_says_nothing_requires_nothing() -> None:
    report = Report("f", "")
    node = MappingNode(1, 1, {"require": (ScalarNode(1, 1, "require", True), items(1))})
    assert require_of(UNSET, MappingNode(1, 1, {}), report) == Requirements()
    assert require_of(["mtls"], node, report) == Requirements(mtls=True)
