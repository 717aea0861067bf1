"""The document that describes the API."""

import msgspec

from proxy.agent_api.openapi import document
from tests.proxy.agent_api.endpoints import Endpoints


def test_says_what_each_route_takes_and_gives() -> None:
    told = msgspec.json.decode(document(Endpoints().routes()))
    assert told["openapi"].startswith("3.1.")
    echo = told["paths"]["/echo"]["post"]
    taken = echo["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    assert taken == "#/components/schemas/Wanted"
    schema = told["components"]["schemas"]["Wanted"]
    assert (schema["required"], schema["additionalProperties"]) == (["text"], False)
    given = echo["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
    assert given.rpartition("/")[2] == "Echoed"
    assert "requestBody" not in told["paths"]["/state"]["get"]
    assert told["paths"]["/problem"]["post"]["responses"]["200"] == {"description": "done"}


def test_oauth_takes_forms_and_has_its_own_refusals() -> None:
    told = msgspec.json.decode(document(Endpoints().routes()))
    form = told["paths"]["/form"]["post"]
    assert list(form["requestBody"]["content"]) == ["application/x-www-form-urlencoded"]
    assert set(form["responses"]["4XX"]["content"]) == {
        "application/problem+json",
        "application/json",
    }
    echo = told["paths"]["/echo"]["post"]["responses"]
    assert (
        set(echo["4XX"]["content"]) == set(echo["5XX"]["content"]) == {"application/problem+json"}
    )


def test_every_reference_leads_somewhere() -> None:
    octets = document(Endpoints().routes())
    told = msgspec.json.decode(octets)
    named = {each.split(b'"')[0].decode() for each in octets.split(b"#/components/schemas/")[1:]}
    assert named <= set(told["components"]["schemas"])


def test_is_the_same_for_the_same_routes() -> None:
    routes = Endpoints().routes()
    assert document(routes) == document(tuple(reversed(routes)))
    assert document(routes).endswith(b"}\n")
