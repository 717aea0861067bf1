"""Secrets as Envoy asks for them; test_envoy.py asks with a real one."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from grpclib.client import Channel, StreamStreamMethod, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from certs.domain import init_domain, load_domain
from proxy.certificates.revoked import Kind
from proxy.channel import Adopt
from proxy.issuing import messages
from proxy.issuing.adopting import Adopted
from proxy.issuing.sds import SERVICE, Secrets
from proxy.limits import Limits
from tests.proxy.issuing.desk import APP, ID, TRUST_DOMAIN, WAIT_S
from tests.proxy.issuing.stand import Stand, standing

OTHER = f"spiffe://{TRUST_DOMAIN}/agent/other"
PARTNER = "partner.example"


class Client:
    """One client of the stand, on a socket of its own."""

    def __init__(self, stand: Stand, path: Path) -> None:
        self.stand = stand
        self.path = path
        self.channel = Channel(path=str(path))
        self.adopted = Adopted(
            lambda _, caller: (Secrets(stand.issuer, caller),),
            Limits(),
            lambda *_: None,
            lambda _: None,
        )
        self.server: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(self.path))
        self.listening.listen()
        self.listening.setblocking(False)

        async def accept() -> None:
            loop = asyncio.get_running_loop()
            while True:
                accepted, _ = await loop.sock_accept(self.listening)
                adopt = Adopt(1, "workload", APP, (ID, OTHER))
                self.adopted.adopt(adopt, accepted.detach())

        self.server = asyncio.get_running_loop().create_task(accept())

    def stream(self) -> Any:
        method: StreamStreamMethod[Any, Any] = StreamStreamMethod(
            self.channel,
            f"{SERVICE}StreamSecrets",
            messages.DiscoveryRequest,
            messages.DiscoveryResponse,
        )
        return method.open(timeout=WAIT_S)

    async def fetch(self, *names: str, **fields: Any) -> dict[str, Any]:
        method: UnaryUnaryMethod[Any, Any] = UnaryUnaryMethod(
            self.channel,
            f"{SERVICE}FetchSecrets",
            messages.DiscoveryRequest,
            messages.DiscoveryResponse,
        )
        return secrets(await method(asked(names, **fields), timeout=WAIT_S))

    async def close(self) -> None:
        self.channel.close()
        if self.server is not None:
            self.server.cancel()
            await asyncio.gather(self.server, return_exceptions=True)
        self.listening.close()
        self.adopted.close()
        await asyncio.sleep(0)


def asked(names: Sequence[str], **fields: Any) -> Any:
    return messages.DiscoveryRequest(resource_names=names, **fields)


def secrets(response: Any) -> dict[str, Any]:
    assert response.type_url == messages.SDS_TYPE
    found = {}
    for each in response.resources:
        assert each.type_url == messages.SDS_TYPE
        secret = messages.Secret.FromString(each.value)
        found[secret.name] = secret
    return found


def certificate(secret: Any) -> str:
    assert secret.tls_certificate.private_key.inline_bytes.startswith(b"-----BEGIN PRIVATE KEY")
    return str(secret.tls_certificate.certificate_chain.inline_bytes.decode())


async def end_of(client: Client, request: Any, change: Callable[[], object] = bool) -> GRPCError:
    """What ends a stream of one request; `change` comes after its first answer."""

    async def converse() -> None:
        async with client.stream() as stream:
            await stream.send_message(request)
            while await stream.recv_message() is not None:
                change()

    with pytest.raises(GRPCError) as raised:
        await converse()
    return raised.value


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with standing(tmp_path) as stand:
        partner = tmp_path / "partner"
        init_domain(partner, PARTNER, stand.now(), None)
        stand.issuer.bundles.other(PARTNER, load_domain(partner, None).jwks())
        found = Client(stand, tmp_path / "sds.sock")
        await found.open()
        yield found
        await found.close()


async def test_each_name_gets_what_spires_agent_would_give(client: Client) -> None:
    pem = client.stand.issuer.bundles.pem
    found = await client.fetch("default", OTHER, "ROOTCA", f"spiffe://{PARTNER}", "ALL")
    assert certificate(found["default"]) != certificate(found[OTHER])
    roots = found["ROOTCA"].validation_context.trusted_ca.inline_bytes.decode()
    assert roots == pem[TRUST_DOMAIN]
    foreign = found[f"spiffe://{PARTNER}"].validation_context.trusted_ca.inline_bytes.decode()
    assert foreign == pem[PARTNER]
    validator = found["ALL"].validation_context.custom_validator_config
    assert validator.name == "envoy.tls.cert_validator.spiffe"
    assert validator.typed_config.type_url == messages.VALIDATOR_TYPE
    config = messages.ValidatorConfig.FromString(validator.typed_config.value)
    domains = {each.name: each.trust_bundle.inline_bytes.decode() for each in config.trust_domains}
    assert domains == pem


async def test_without_a_name_everything_is_given(client: Client) -> None:
    found = await client.fetch()
    assert set(found) == {f"spiffe://{TRUST_DOMAIN}", f"spiffe://{PARTNER}", ID, OTHER}


@pytest.mark.parametrize(
    "name",
    [
        f"spiffe://{TRUST_DOMAIN}/agent/boss",
        f"spiffe://{TRUST_DOMAIN}/",
        ID + "/",
        ID.upper(),
        "spiffe://unknown.example",
        "rootca",
        "",
    ],
)
async def test_another_ones_secret_is_refused_and_audited(client: Client, name: str) -> None:
    """threats.md, Identity: a name in a request is no credential."""
    with pytest.raises(GRPCError) as raised:
        await client.fetch("ROOTCA", name)
    assert raised.value.status is Status.PERMISSION_DENIED
    (event,) = client.stand.events("refused")
    assert (event.app, event.target, event.allowed) == (APP, name or f"{ID}, {OTHER}", False)


@pytest.mark.parametrize(
    ("names", "fields"),
    [(["default"], {"type_url": "type.googleapis.com/x.Listener"}), (["a"] * 65, {})],
)
async def test_what_is_no_request_for_secrets_is_told_so(
    client: Client, names: list[str], fields: dict[str, str]
) -> None:
    with pytest.raises(GRPCError) as raised:
        await client.fetch(*names, **fields)
    assert raised.value.status is Status.INVALID_ARGUMENT
    assert (await end_of(client, asked(names, **fields))).status is Status.INVALID_ARGUMENT


async def test_a_stream_answers_acks_and_nacks_with_silence_and_changes_with_secrets(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "proxy.issuing.sds")
    async with client.stream() as stream:
        await stream.send_message(asked(["default"], type_url=messages.SDS_TYPE))
        first = await stream.recv_message()
        assert (first.version_info, first.nonce) == ("1", "1")
        ack = asked(["default"], version_info="1", response_nonce="1")
        await stream.send_message(ack)
        await stream.send_message(asked(["ROOTCA"], response_nonce="0"))  # of long ago: ignored
        client.stand.clock.ahead_s = 0.56 * 3600
        client.stand.issuer.bundles.stir()
        second = await stream.recv_message()
        assert second.version_info != first.version_info
        assert certificate(secrets(second)["default"]) != certificate(secrets(first)["default"])
        nack = asked(["default"], version_info="1", response_nonce=second.nonce)
        nack.error_detail.code, nack.error_detail.message = 3, "what\nis\x1b this"
        await stream.send_message(nack)
        both = asked(["default", "ROOTCA"], version_info="1", response_nonce=second.nonce)
        await stream.send_message(both)
        third = await stream.recv_message()
        assert set(secrets(third)) == {"default", "ROOTCA"}
        assert certificate(secrets(third)["default"]) == certificate(secrets(second)["default"])
        await stream.end()
        assert await stream.recv_message() is None
    assert "refuses a secret: 'what\\nis\\x1b this'" in caplog.text
    assert len(client.stand.events("issued")) == 2


async def test_a_stream_ends_when_its_caller_may_no_more(client: Client) -> None:
    def revoke() -> None:
        client.stand.revoke(Kind.APP, APP)
        client.stand.issuer.bundles.stir()

    error = await end_of(client, asked(["default"]), revoke)
    assert error.status is Status.PERMISSION_DENIED
    assert "revoked" in (error.message or "")


async def test_a_message_in_a_stream_that_is_none_ends_it(client: Client) -> None:
    """The wire type of a field is another: resource_names (3) as a number that is cut off."""
    method: StreamStreamMethod[Any, Any] = StreamStreamMethod(
        client.channel, f"{SERVICE}StreamSecrets", messages.X509SVID, messages.DiscoveryResponse
    )
    client.stream = lambda: method.open(timeout=WAIT_S)  # type: ignore[method-assign]  # as above
    error = await end_of(client, messages.X509SVID(x509_svid_key=b"\xff"))  # 3: no UTF-8
    assert error.status is Status.INVALID_ARGUMENT


async def test_a_client_that_asks_much_and_reads_nothing_waits(client: Client) -> None:
    async with client.stream() as stream:
        for number in range(100):
            await stream.send_message(asked(["ROOTCA", "ALL"][: 1 + number % 2]))
        await stream.end()
        answers = [secrets(each) async for each in stream]
    assert set(answers[-1]) == {"ROOTCA", "ALL"}
