"""What the appliance tells an agent about itself."""

from pathlib import Path

import msgspec
import pytest

from tests.proxy.egress.world import get, opened


async def test_the_index_names_the_asker(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        reply = await world.ask(get("sallyport.internal"))
        assert reply.status == 200
        members = msgspec.json.decode(reply.body)
        assert members["app"] == "me"
        assert members["evidence"] == ["listener"]
        assert members["generation"] == 1
        line = (await world.lines())[0]
        assert (line["verdict"], line["reason"]) == ("allow", "local")
        assert world.metrics.proxy_requests.value("internal", "allowed") == 1


async def test_tells_an_app_why_it_was_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        refused = await world.ask(get("example.org"))
        refusal_id = refused.phrase.rpartition(" ")[2]
        reply = await world.ask(get("sallyport.internal", f"/why/{refusal_id}"))
        assert (reply.status, reply.field("content-type")) == (200, "application/problem+json")
        members = msgspec.json.decode(reply.body)
        assert members == msgspec.json.decode(refused.body)
        assert members["reason"] == "host-not-listed"


@pytest.mark.parametrize("path", ["/why/0192f3a0000070008000000000000001", "/why/", "/metrics"])
async def test_there_is_nothing_else(tmp_path: Path, path: str) -> None:
    async with opened(tmp_path) as world:
        reply = await world.ask(get("sallyport.internal", path))
        assert (reply.status, reply.field("content-type")) == (404, "application/json")


async def test_a_refusal_of_another_app_is_not_found(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        reply = await world.ask(get("example.org", "/", "Proxy-Authorization: Basic eDp5"))
        refusal_id = reply.phrase.rpartition(" ")[2]
        assert world.refusals.get("unknown", refusal_id) is not None
        assert (await world.ask(get("sallyport.internal", f"/why/{refusal_id}"))).status == 404


@pytest.mark.parametrize(
    "field",
    ["Origin: https://evil.example", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site"],
)
async def test_web_pages_get_nothing(tmp_path: Path, field: str) -> None:
    """threats.md, "HTTP itself".

    "A web page in the user's browser reaching /dns-query, /metrics or the API on loopback: Host,
    Origin, Sec-Fetch-Site".
    """
    async with opened(tmp_path) as world:
        reply = await world.ask(get("sallyport.internal", "/", field))
        assert reply.status == 403
        assert b"generation" not in reply.body


async def test_a_person_who_types_the_address_is_no_page(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        asked = get("sallyport.internal", "/", "Sec-Fetch-Site: none")
        assert (await world.ask(asked)).status == 200


async def test_only_reads(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        reply = await world.ask(get("sallyport.internal", method="DELETE"))
        assert (reply.status, reply.field("allow")) == (405, "GET, HEAD")
        head = await world.ask(get("sallyport.internal", method="HEAD"), is_head=True)
        assert head.status == 200


async def test_keeps_the_connection_unless_asked_otherwise(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        client = await world.client()
        client.send(get("sallyport.internal"))
        assert (await client.reply()).field("connection") is None
        client.send(get("sallyport.internal", "/", "Connection: close"))
        assert (await client.reply()).field("connection") == "close"
        assert await client.rest() == b""


async def test_other_ports_of_our_host_are_not_answered(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        reply = await world.ask(get("sallyport.internal:8080"))
        assert (reply.status, reply.field("x-deny-reason")) == (403, "special-use")
