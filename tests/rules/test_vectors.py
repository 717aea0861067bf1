"""The decision vectors: rule files as text, facts and what must come of them.

Another implementation can run them: tests/vectors/decisions/*.yaml, one rule file
each, and the deny lists that it names.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rules import rtype
from rules.decide import decide
from rules.decision import (
    ClientCertificate,
    Decision,
    FileCertificate,
    Obligation,
    OnlyReadable,
    PeekTls,
    Resolve,
    SvidCertificate,
    TunnelUnread,
    UpgradeTls,
    Watch,
)
from rules.facts import Attestation, Evidence, Facts, Level, Principal
from rules.match import index_rules
from rules.path import normal_path
from rules.suffix import read_suffixes
from rules.syntax import load
from rules.text import SourceText
from tests.rules.lists.reading import table
from tests.rules.written import connect, endpoint, question, request

FOLDER = Path(__file__).parent.parent / "vectors" / "decisions"
SUFFIXES = read_suffixes(["com", "net", "org", "example"])


def cases() -> Iterator[Any]:
    for path in sorted(FOLDER.glob("*.yaml")):
        vector = yaml.safe_load(path.read_text())
        for number, case in enumerate(vector["cases"], 1):
            yield pytest.param(vector, case, id=f"{path.stem}-{number}")


def fact_of(fact: dict[str, Any]) -> Facts:
    proven = fact.get("attested", {})
    attested = tuple(Attestation(Level[each.upper()], proven[each]) for each in proven)
    who = Principal(fact["app"], tuple(map(Evidence, fact.get("evidence", ()))), attested)
    match fact["kind"]:
        case "question":
            asked = rtype.number(fact["type"])
            assert asked is not None
            return question(fact["name"], asked, fact.get("via"), who)
        case "connect":
            return connect(fact["host"], fact["port"], who)
        case "endpoint":
            own = {key: fact.get(key, False) for key in ("own_listener", "own_interface")}
            asked = fact.get("asked")
            ports = fact.get("port"), who
            return endpoint(fact.get("name"), fact["address"], *ports, **own, asked=asked)
        case _:
            path = normal_path(fact["path"])
            return request(fact["host"], path, fact["method"], fact["port"], who)


def in_words(obligation: Obligation) -> str:
    match obligation:
        case Resolve(types):
            return " ".join(["resolve", *map(rtype.mnemonic, sorted(types))])
        case PeekTls(accept_ech):
            return "peek-tls accept-ech" if accept_ech else "peek-tls"
        case TunnelUnread():
            return "tunnel-unread"
        case OnlyReadable():
            return "only-readable"
        case Watch():
            return "watch"
        case UpgradeTls(certificate):
            return f"upgrade-tls {shown(certificate)}".strip()


def shown(certificate: ClientCertificate | None) -> str:
    match certificate:
        case None:
            return ""
        case SvidCertificate(spiffe):
            return spiffe
        case FileCertificate(cert, key):
            return f"{cert} {key}"


def seen(decision: Decision) -> dict[str, Any]:
    return {
        "verdict": decision.verdict.value,
        "reason": decision.reason.value,
        "rule": decision.rule,
        "text": decision.text,
        "empty": decision.empty,
        "refuse": decision.refuse.value,
        "obligations": [in_words(one) for one in decision.obligations],
    }


@pytest.mark.parametrize(("vector", "case"), list(cases()))
def test_decides_as_the_vector_says(vector: dict[str, Any], case: dict[str, Any]) -> None:
    loaded = load([SourceText("rules.yaml", vector["rules"])], SUFFIXES, 1, {})
    texts = vector.get("lists", {})
    lists = table(*((source, texts[source.shown]) for source in loaded.ruleset.lists))
    decided = seen(decide(index_rules(loaded.ruleset, lists), fact_of(case["fact"])))
    expected = {"rule": None} | case["expect"]
    if "rule" not in case["expect"] and decided["verdict"] == "allow":
        expected["rule"] = decided["rule"]
    assert {key: decided[key] for key in expected} == expected


def test_every_vector_says_what_it_is_about() -> None:
    vectors = [yaml.safe_load(path.read_text()) for path in FOLDER.glob("*.yaml")]
    assert len(vectors) >= 10
    assert all(vector.keys() - {"lists"} == {"about", "rules", "cases"} for vector in vectors)
