"""One visit from its first octet to its end: bounded, recorded once, answered, closed cleanly."""

import asyncio
import ssl
from pathlib import Path

import pytest

from proxy.limits import Limits
from rules.name import parse
from tests.proxy.egress.hellos import client_context, hello
from tests.proxy.lines import until
from tests.proxy.sinkhole.stand import ID, LISTED, US, V4, Stand, get, opened, settled

BAD = parse("bad.example.com")


def told(stand: Stand, app: str = "coder") -> None:
    stand.sinkhole.told(app, BAD, ID, LISTED)


async def until_left(stand: Stand) -> None:
    """Let the loop run until nobody visits."""
    await until(lambda: not stand.sinkhole._visits._seats._seated)


async def settled_in(stand: Stand) -> None:
    """Let the loop run until somebody visits."""
    await until(lambda: bool(stand.sinkhole._visits._seats._seated))


async def test_a_request_is_answered_with_the_refusal_of_the_look_up(tmp_path: Path) -> None:
    async with opened(tmp_path) as stand:
        told(stand)
        reply = await stand.visit(get("bad.example.com"))
        assert stand.counted("http") == 1
        (line,) = await stand.lines()
    assert reply.startswith(f"HTTP/1.1 403 sallyport list {ID}\r\n".encode())
    assert (line["verdict"], line["reason"], line["rule"]) == ("deny", "list", "bad.txt:7")
    assert (line["plane"], line["fact"], line["generation"]) == ("http", None, 3)
    assert line["target"] == f"bad.example.com:{stand.ports[0]}"
    assert (line["sinkhole"], line["refusal"], line["asked_by"]) == ("http", ID, "coder")
    assert (line["app"], line["evidence"]) == ("unknown", [])
    assert line["peer"].startswith("127.")


async def test_who_is_named_by_the_process_is_told_of_its_own_look_ups(tmp_path: Path) -> None:
    async with opened(tmp_path, US) as stand:
        told(stand, "us")
        reply = await stand.visit(get("bad.example.com"))
        (line,) = await stand.lines()
    assert b'"app":"us"' in reply
    assert (line["app"], line["evidence"], line["refusal"]) == ("us", ["process"], ID)


async def test_who_is_named_is_not_told_of_the_look_ups_of_others(tmp_path: Path) -> None:
    """threats.md, "Identity": what one app asks for is not told to another."""
    async with opened(tmp_path, US) as stand:
        told(stand, "coder")
        reply = await stand.visit(get("bad.example.com"))
        (line,) = await stand.lines()
    assert b"HTTP/1.1 403 sallyport special-use " in reply
    assert ID.encode() not in reply
    assert (line["reason"], "refusal" in line) == ("special-use", False)


async def test_a_hello_is_answered_with_a_fatal_alert_and_a_clean_end(tmp_path: Path) -> None:
    async with opened(tmp_path) as stand:
        told(stand)
        assert await stand.visit(hello("bad.example.com"), tls=True) == bytes.fromhex(
            "15030300020231"
        )
        assert stand.counted("tls") == 1
        (line,) = await stand.lines()
    assert (line["sinkhole"], line["refusal"]) == ("tls", ID)
    assert line["target"] == f"bad.example.com:{stand.ports[1]}"


async def test_a_client_of_tls_reads_that_access_is_denied(tmp_path: Path) -> None:
    async with opened(tmp_path) as stand:
        with pytest.raises(ssl.SSLError, match="ACCESS_DENIED"):
            await asyncio.open_connection(
                str(V4), stand.ports[1], ssl=client_context(), server_hostname="bad.example.com"
            )


async def test_octets_behind_the_head_do_not_cost_the_answer(tmp_path: Path) -> None:
    """RFC 9112, section 9.6: unread octets would be answered with a reset."""
    octets = get("bad.example.com", "Content-Length: 1000000", method="POST") + bytes(1_000_000)
    async with opened(tmp_path) as stand:
        reply = await stand.visit(octets)
    assert reply.startswith(b"HTTP/1.1 403 ")


async def test_a_second_request_is_not_answered(tmp_path: Path) -> None:
    async with opened(tmp_path) as stand:
        reply = await stand.visit(get("bad.example.com") * 3)
        assert reply.count(b"HTTP/1.1 ") == 1
        assert stand.counted("http") == 1
        (line,) = await stand.lines()
    assert line["count"] == 1


async def test_what_is_no_request_is_answered_and_recorded(tmp_path: Path) -> None:
    async with opened(tmp_path) as stand:
        assert (await stand.visit(b"\x16\x03\x01")).startswith(b"HTTP/1.1 400 ")
        (line,) = await stand.lines()
    assert (line["reason"], line["sinkhole"]) == ("request-malformed", "malformed")
    assert line["target"] == f"127.53.53.53:{stand.ports[0]}"


async def test_a_head_without_end_is_answered_and_counted(tmp_path: Path) -> None:
    async with opened(tmp_path, limits=Limits(sinkhole_octets=1000)) as stand:
        reply = await stand.visit(get("bad.example.com", f"X: {'x' * 2000}"))
        assert stand.metrics.bounds.value("sinkhole_octets") == 1
    assert reply.startswith(b"HTTP/1.1 400 ")


async def test_what_is_no_hello_is_cut_and_recorded(tmp_path: Path) -> None:
    async with opened(tmp_path) as stand:
        assert await stand.visit(get("bad.example.com"), tls=True) == b""
        assert stand.counted("malformed") == 1
        (line,) = await stand.lines()
    assert line["reason"] == "request-malformed"


async def test_a_visit_without_a_word_is_recorded_too(tmp_path: Path) -> None:
    async with opened(tmp_path) as stand:
        (await stand.client()).end()
        await settled(stand, "silent", 1)
        (line,) = await stand.lines()
    assert (line["reason"], line["sinkhole"]) == ("special-use", "silent")


async def test_who_resets_is_a_visit_without_a_word(tmp_path: Path) -> None:
    async with opened(tmp_path) as stand:
        (await stand.client()).reset()
        await settled(stand, "silent", 1)


async def test_who_sends_slowly_is_cut_after_its_time(tmp_path: Path) -> None:
    async with opened(tmp_path, limits=Limits(sinkhole_s=0.05)) as stand:
        assert await stand.visit(b"GET / HTTP/1.1\r\n") == b""
        assert stand.counted("silent") == 1
        assert stand.metrics.bounds.value("sinkhole_s") == 1


async def test_who_never_closes_is_cut_after_its_time(tmp_path: Path) -> None:
    async with opened(tmp_path, limits=Limits(linger_s=0.05)) as stand:
        client = await stand.client()
        client.send(get("bad.example.com"))
        client.pause()
        await settled(stand, "http", 1)
        await until_left(stand)


async def test_no_app_takes_more_than_its_share(tmp_path: Path) -> None:
    async with opened(tmp_path, limits=Limits(sinkhole_connections_per_app=2)) as stand:
        held = [await stand.client() for _ in range(2)]
        assert await stand.visit(b"") == b""
        assert stand.counted("refused") == 1
        assert stand.metrics.bounds.value("sinkhole_connections_per_app") == 1
        for client in held:
            client.end()
        await settled(stand, "silent", 2)
        await until_left(stand)
        assert (await stand.visit(get("bad.example.com"))).startswith(b"HTTP/1.1 403 ")


async def test_where_every_seat_is_taken_the_one_that_waits_longest_leaves(tmp_path: Path) -> None:
    async with opened(tmp_path, limits=Limits(sinkhole_connections=1)) as stand:
        slow = await stand.client()
        assert (await stand.visit(get("bad.example.com"))).startswith(b"HTTP/1.1 403 ")
        assert await slow.rest() == b""
        assert (stand.counted("silent"), stand.counted("http")) == (1, 1)
        assert stand.metrics.bounds.value("sinkhole_connections") == 1
        assert sum(line["count"] for line in await stand.lines()) == 2


async def test_visits_that_repeat_fold_into_one_line(tmp_path: Path) -> None:
    async with opened(tmp_path) as stand:
        told(stand)
        for _ in range(20):
            await stand.visit(get("bad.example.com"))
        lines = await stand.lines()
    assert len(lines) <= 2  # a second may have ended meanwhile
    assert sum(line["count"] for line in lines) == 20


async def test_a_flood_of_names_keeps_a_few_lines_and_samples(tmp_path: Path) -> None:
    async with opened(tmp_path, limits=Limits(refusals_a_second=3)) as stand:
        for each in range(40):
            await stand.visit(get(f"n{each}.example.com"))
        lines = await stand.lines()
    assert len(lines) < 40
    assert sum(line["count"] for line in lines) == 40


async def test_the_end_of_the_appliance_ends_every_visit(tmp_path: Path) -> None:
    async with opened(tmp_path) as stand:
        client = await stand.client()
        await settled_in(stand)
        await stand.sinkhole.close()
        assert await client.rest() == b""
