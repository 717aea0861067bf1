"""What resource servers read: a real client finds the keys, before and after a rotation."""

import datetime as dt
import json
from pathlib import Path

import jwt
import pytest

from certs.domain import init_domain, load_domain, rotate
from certs.known_domain import DOMAIN_JSON
from proxy.agent_api.api import AgentApi
from proxy.agent_api.asked import Answer, Asked, Caller
from proxy.agent_api.keys import Published
from proxy.flow import Plane
from proxy.limits import Limits
from proxy.metrics import Metrics
from rules.facts import Principal

NOW = dt.datetime(2026, 11, 22, 1, 2, 3, tzinfo=dt.UTC)
TD = "desk.example"
ANYBODY = Caller(Principal("unknown"), Plane.HTTP, "127.0.0.1:3128")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "identity"
    init_domain(path, TD, NOW, None)
    return path


def api(folder: Path | None) -> AgentApi:
    return AgentApi(Published(folder, TD).routes(), Limits(), Metrics())


async def get(found: AgentApi, path: str) -> Answer:
    return await found.answer(Asked("GET", path, ANYBODY))


async def test_a_resource_server_finds_the_key_of_a_token(folder: Path) -> None:
    answer = await get(api(folder), "/jwks.json")
    assert (answer.status, answer.media_type) == (200, "application/jwk-set+json")
    assert dict(answer.fields)[b"cache-control"] == b"public, max-age=300"
    claims = json.dumps({"exp": int(NOW.timestamp()) + 60, "sub": "a"}).encode()
    token = load_domain(folder, None).sign_claims(claims, "at+jwt", NOW)
    keys = jwt.PyJWKSet.from_json(answer.content.decode())
    key = keys[jwt.get_unverified_header(token)["kid"]]
    found = jwt.decode(token, key, ["ES256"], {"verify_exp": False})
    assert found["sub"] == "a"


async def test_a_key_is_published_as_soon_as_it_is_made(folder: Path) -> None:
    served = api(folder)
    before = json.loads((await get(served, "/jwks.json")).content)["keys"]
    assert (await get(served, "/jwks.json")).content == (await get(served, "/jwks.json")).content
    rotate(folder, NOW, None, "jwt")
    after = json.loads((await get(served, "/jwks.json")).content)["keys"]
    assert (len(before), len(after)) == (1, 2)
    assert after[0] == before[0]


async def test_keys_that_cannot_be_read_are_not_there_and_no_file_is_named(folder: Path) -> None:
    served = api(folder)
    for spoilt in (b"{}", None):
        if spoilt is None:
            (folder / DOMAIN_JSON).unlink()
        else:
            (folder / DOMAIN_JSON).write_bytes(spoilt)
        answer = await get(served, "/jwks.json")
        assert answer.status == 503
        assert str(folder).encode() not in answer.content


async def test_where_another_one_issues_there_are_none_of_ours() -> None:
    answer = await get(api(None), "/jwks.json")
    assert (answer.status, b"another one issues" in answer.content) == (404, True)


async def test_the_metadata_is_what_the_standard_asks_for() -> None:
    """RFC 8414, section 2."""
    answer = await get(api(None), "/.well-known/oauth-authorization-server")
    found = json.loads(answer.content)
    assert (answer.status, answer.media_type) == (200, "application/json")
    assert found["issuer"] == TD  # RFC 9068, section 4: what is `iss` in tokens
    assert found["response_types_supported"] == []  # it is required
    assert found["grant_types_supported"] == ["urn:ietf:params:oauth:grant-type:token-exchange"]
    places = {name: value for name, value in found.items() if name.endswith(("point", "_uri"))}
    assert places == {
        "token_endpoint": "http://sallyport.internal/token",
        "introspection_endpoint": "http://sallyport.internal/introspect",
        "revocation_endpoint": "http://sallyport.internal/revoke",
        "jwks_uri": "http://sallyport.internal/jwks.json",
    }


async def test_both_are_described(folder: Path) -> None:
    described = json.loads(api(folder).openapi())
    assert {"/jwks.json", "/.well-known/oauth-authorization-server"} <= set(described["paths"])
