"""How a refusal goes out."""

from pathlib import Path

import pytest
from msgspec import structs

from proxy.egress.asker import Asker
from proxy.egress.denial import answer_for, as_said
from proxy.egress.refusal import Answer
from proxy.wire.head import Body, BodyKind, RequestHead
from rules.decision import Decision, Reason, Verdict
from tests.proxy.egress.world import connect, get, opened, token_app
from tests.rules.written import ME

DENIED = Decision(Verdict.DENY, Reason.HOST_NOT_LISTED)
FAILED = Decision(Verdict.FAIL, Reason.UPSTREAM_TIMEOUT)
CLOSE = frozenset({b"close"})
CONNECT = RequestHead("CONNECT", b"a:1", 1, ())
GET = RequestHead("GET", b"http://a/", 1, ())
HEAD = RequestHead("HEAD", b"http://a/", 1, ())
POST = RequestHead("POST", b"http://a/", 1, (), Body(BodyKind.LENGTH, 2))
LAST = RequestHead("GET", b"http://a/", 1, (), options=CLOSE)
OLD = RequestHead("CONNECT", b"a:1", 0, (), options=frozenset({b"keep-alive"}))


@pytest.mark.parametrize(
    ("head", "decision", "with_tokens", "answer"),
    [
        (CONNECT, DENIED, False, Answer(close=True)),
        (CONNECT, DENIED, True, Answer(challenge=True)),
        (CONNECT, FAILED, True, Answer(close=True)),
        (OLD, DENIED, True, Answer(close=True, challenge=True)),
        (GET, DENIED, False, Answer()),
        (GET, DENIED, True, Answer(challenge=True)),
        (GET, FAILED, True, Answer()),
        (HEAD, DENIED, True, Answer(is_head=True, challenge=True)),
        (POST, DENIED, True, Answer(close=True, challenge=True)),
        (LAST, DENIED, True, Answer(close=True, challenge=True)),
    ],
)
async def test_the_answer_fits_request_and_asker(
    tmp_path: Path,
    head: RequestHead,
    decision: Decision,
    with_tokens: bool,
    answer: Answer,
) -> None:
    async with opened(tmp_path) as world:
        if with_tokens:
            world.use_all(2, world.listener_app(), token_app("coder"))
            world.give_tokens("coder")
        ends = ("127.0.0.1", 1), ("127.0.0.1", 2)
        asker = Asker(world.identifier, *ends, world.where)
        found = answer_for(world.egress, asker, ME, decision, head)
        assert found == structs.replace(answer, is_request=head.method != "CONNECT")


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (RequestHead("CONNECT", b"user:secret@a..b:443", 1, ()), "a..b:443"),
        (RequestHead("GET", b"ftp://u:p@a/b?secret", 1, ()), "GET a/b"),
        (RequestHead("GET", b"/x\x7f", 1, ()), "GET /x\\x7f"),
    ],
)
def test_a_target_is_told_without_its_secrets(head: RequestHead, said: str) -> None:
    assert as_said(head) == said


async def test_a_plain_request_is_counted_as_one_where_its_origin_is_refused(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as world:
        assert (await world.ask(get("example.com"))).status == 403
        client = await world.client()
        client.send(connect("example.com:443"))
        assert (await client.reply()).status == 403
        assert world.metrics.proxy_requests.value("forward", "refused") == 1
        assert world.metrics.proxy_requests.value("connect", "refused") == 1
