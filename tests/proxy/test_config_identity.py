"""`identity:` of sallyport.yaml: what is taken, and what is told of each mistake."""

import pytest

from certs.profile import SVID_TTL_S
from proxy.config import Locations, Settings, read_config
from proxy.config_identity import MOST_FEDERATED, Federated, Oidc
from rules.errors import Problem
from rules.text import SourceText

WHERE = Locations("/c", "/s", "/r")


def read(text: str) -> tuple[Settings, list[Problem]]:
    return read_config(SourceText("f", f"identity:\n{text}"), WHERE)


def mistake(text: str) -> Problem:
    (problem,) = read(text)[1]
    assert problem.cure
    return problem


def test_without_a_word_the_trust_domain_is_ours_and_nobody_else_is_believed() -> None:
    identity = read_config(None, WHERE)[0].identity
    assert (identity.trust_domain, identity.svid_ttl_s) == ("sallyport.internal", SVID_TTL_S)
    assert (identity.federation, identity.oidc, identity.workload_api) == ({}, None, None)


def test_reads_every_key() -> None:
    settings, found = read(
        """
  trust_domain: desk.example
  svid_ttl: 5m
  key_file: key
  federation: {partner.example: {url: "https://partner.example/bundle", ca: ca.pem}}
  oidc: {issuer: "https://op.example", client_id: us, apps: {coder: {email: a@b.example}}}
  admins: ["spiffe://desk.example/admin/eve"]
"""
    )
    assert found == []
    identity = settings.identity
    assert (identity.trust_domain, identity.svid_ttl_s) == ("desk.example", 300)
    assert (identity.key_file, identity.workload_api) == ("key", None)
    url = "https://partner.example/bundle"
    assert identity.federation == {"partner.example": Federated(url=url, ca="ca.pem")}
    claims = {"coder": {"email": "a@b.example"}}
    assert identity.oidc == Oidc("https://op.example", "us", claims)
    assert identity.admins == ("spiffe://desk.example/admin/eve",)


@pytest.mark.parametrize("written", ["unix:/run/spire.sock", "/run/spire.sock"])
def test_another_issuer_is_a_socket(written: str) -> None:
    settings, found = read(f"  workload_api: {written}\n")
    assert (settings.identity.workload_api, found) == ("/run/spire.sock", [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("  federation: {a.example: {file: f}}\n  workload_api: /s", "where another one issues"),
        (
            '  oidc: {issuer: "https://a.b", client_id: a, apps: {b: {c: d}}}\n  workload_api: /s',
            "where another one issues",
        ),
        ("  admins: ['spiffe://desk.example']", "a workload has a path"),
        ("  trust_domain: Desk.example", "trust_domain"),
        ("  trust_domain: a/b", "trust_domain"),
        ("  svid_ttl: 4m", "no life of an SVID"),
        ("  svid_ttl: 25h", "no life of an SVID"),
        ("  svid_ttl: soon", "no duration"),
        ("  admins: [eve]", "SPIFFE ID"),
        ("  federation: {sallyport.internal: {file: f}}", "our own"),
        ("  federation: {a.example: {}}", "from a file or from a URL"),
        ('  federation: {a.example: {file: f, url: "https://a.example/"}}', "or from a URL"),
        ('  federation: {a.example: {url: "http://a.example/"}}', "over HTTPS"),
        ('  oidc: {issuer: "http://op.example", client_id: a, apps: {}}', "HTTPS URL"),
        ('  oidc: {issuer: "https://op.example", client_id: a, apps: {coder: {}}}', "no claim"),
    ],
)
def test_a_mistake_is_told_where_it_stands(text: str, said: str) -> None:
    problem = mistake(text)
    assert said in problem.message
    assert problem.place.line == 2


def test_more_trust_domains_than_fit_are_refused() -> None:
    many = ", ".join(f"d{number}.example: {{file: f}}" for number in range(MOST_FEDERATED + 1))
    assert "too many" in mistake(f"  federation: {{{many}}}").message
