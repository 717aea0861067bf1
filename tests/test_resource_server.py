"""Capability tokens at a resource server that knows nothing of us but the keys."""

import base64
import datetime as dt
import hmac
import json
import ssl
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import load_der_x509_certificate
from msgspec import structs

from tests.authority import PrivateAuthority
from tests.proxy.capabilities.stand import (
    DOCS,
    DOMAIN,
    SERVED,
    Stand,
    by_certificate,
    entry,
    payload,
    rules,
    spiffe,
    standing,
)
from tests.resource_server import MOST_OCTETS, RefusedError, ResourceServer

CODER, SERVER = by_certificate("coder"), by_certificate("documents")


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    async with standing(tmp_path) as made:
        yield made


def server_of(stand: Stand, audience: str = DOCS, **more: Any) -> ResourceServer:
    return ResourceServer(audience, DOMAIN, stand.signing.jwks, stand.wall, **more)


def refused(
    server: ResourceServer, token: str, certificate: bytes | None = None
) -> tuple[int, str]:
    with pytest.raises(RefusedError) as caught:
        server.verify(token, certificate)
    return caught.value.status, str(caught.value)


async def get(server: ResourceServer, token: str, tls: ssl.SSLContext | None = None) -> int:
    scheme = "http" if tls is None else "https"
    url = f"{scheme}://127.0.0.1:{server.port}/documents"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, headers=headers, ssl=tls or False) as response,
    ):
        return response.status


async def test_a_token_opens_what_it_is_for_and_after_its_time_nothing(stand: Stand) -> None:
    server = server_of(stand)
    await server.start()
    try:
        token = await stand.token(CODER)
        assert await get(server, token) == 200
        assert await get(server, "") == 401
        assert await get(server, await stand.token(CODER, scope="documents:write")) == 403
        stand.now += 60
        assert await get(server, token) == 401
    finally:
        await server.close()


async def test_after_it_was_revoked_a_server_that_asks_refuses_it(stand: Stand) -> None:
    stand.ruleset = rules(coder=(entry(SERVED),))

    async def introspect(token: str) -> dict[str, Any]:
        return await stand.introspect(SERVER, token)

    server = server_of(stand, SERVED, introspect=introspect)
    await server.start()
    try:
        token = await stand.token(CODER, audience=SERVED)
        assert await get(server, token) == 200
        assert await stand.ask("/revoke", CODER, token=token) == (200, {})
        assert await get(server, token) == 401
    finally:
        await server.close()


async def test_a_token_for_another_or_of_another_time_is_refused(stand: Stand) -> None:
    """Attacks: wrong aud, expired, clock skew."""
    token = await stand.token(CODER)
    assert server_of(stand).verify(token)["sub"] == spiffe("coder")
    assert refused(server_of(stand, "https://other.example"), token)[0] == 401
    stand.now -= 30  # the clock of the server is behind
    assert "future" in refused(server_of(stand), token)[1]
    stand.now += 90
    assert "expired" in refused(server_of(stand), token)[1]


async def test_what_has_another_type_is_no_access_token(stand: Stand) -> None:
    """Attacks: a JWT-SVID, or an attestation result, of the same key (RFC 8725, section 3.11)."""
    server = server_of(stand, DOMAIN)
    assert "no access token" in refused(server, stand.attest(CODER))[1]
    svid = stand.signing.domain.jwt(spiffe("coder"), (DOMAIN,), stand.signing.now(), 300)
    assert "no access token" in refused(server, svid)[1]


async def test_forged_tokens_are_refused(stand: Stand) -> None:
    """Attacks: alg none, HS256 with the public key, kid tricks, lists of audiences, huge claims."""
    server, token = server_of(stand), await stand.token(CODER)
    header, claims = jwt.get_unverified_header(token), payload(token)

    def made(changed: dict[str, Any], body: dict[str, Any], signature: bytes = b"") -> str:
        parts = [json.dumps(each).encode() for each in ({**header, **changed}, {**claims, **body})]
        return ".".join(
            base64.urlsafe_b64encode(each).rstrip(b"=").decode() for each in (*parts, signature)
        )

    public = json.dumps(json.loads(stand.signing.jwks())["keys"][0]).encode()
    hs256 = made({"alg": "HS256"}, {})[:-1]
    mac = base64.urlsafe_b64encode(hmac.new(public, hs256.encode(), sha256).digest())
    key = ec.generate_private_key(ec.SECP256R1())
    own = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
    forged = [
        made({"alg": "none"}, {}),
        f"{hs256}.{mac.rstrip(b'=').decode()}",
        made({}, {"scope": "documents:read admin"}, b"x" * 64),
        jwt.encode(claims, key, "ES256", headers=header),
        jwt.encode(claims, key, "ES256", headers={**header, "kid": "other"}),
        jwt.encode(claims, key, "ES256", headers={**header, "kid": "other", "jwk": own}),
        token.rpartition(".")[0] + ".",
        "x" * (MOST_OCTETS + 1),
        "a.b.c",
    ]  # fmt: skip
    for each in forged:
        assert refused(server, each)[0] == 401
    for changed in (
        {"aud": [DOCS, "https://other.example"]},
        {"aud": DOCS + "/"},
        {"iss": "other.internal"},
        {"iat": True},
        {"jti": None},
    ):
        body = json.dumps({**claims, **changed}).encode()
        signed = stand.signing.domain.sign_claims(body, "at+jwt", stand.signing.now())
        assert refused(server, signed)[0] == 401, changed


def client_tls(
    stand: Stand, authority: PrivateAuthority, folder: Path
) -> tuple[ssl.SSLContext, Any]:
    """Return how a client comes with a new SVID, and that SVID."""
    now = dt.datetime.fromtimestamp(stand.now, dt.UTC)
    svid = stand.signing.domain.issue(spiffe("coder"), now, 3600)
    chain = folder / f"{svid.serial}.pem"
    chain.write_text(svid.chain_pem + svid.key_pem)
    tls = ssl.create_default_context(cafile=str(authority.certificate))
    tls.load_cert_chain(chain)
    return tls, svid


async def test_a_bound_token_opens_nothing_to_another_certificate(
    stand: Stand, tmp_path: Path
) -> None:
    """threats.md: an attestation token copied to another process: here, what was made of it."""
    authority = PrivateAuthority(tmp_path)
    accepting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    accepting.load_cert_chain(*authority.issue(["127.0.0.1"]))
    anchors = "".join(map(ssl.DER_cert_to_PEM_cert, stand.signing.domain.anchors))
    accepting.load_verify_locations(cadata=anchors)
    accepting.verify_mode = ssl.CERT_REQUIRED
    server = server_of(stand, is_bound=True)
    await server.start(accepting)
    try:
        mine, svid = client_tls(stand, authority, tmp_path)
        other, _ = client_tls(stand, authority, tmp_path)
        assert CODER.svid is not None
        leaf = svid.chain[0]
        assert load_der_x509_certificate(leaf).serial_number == int(svid.serial, 16)
        shown = structs.replace(CODER.svid, sha256=sha256(leaf).hexdigest())
        token = await stand.token(structs.replace(CODER, svid=shown))
        assert await get(server, token, mine) == 200
        assert await get(server, token, other) == 401
        assert "no certificate" in refused(server, token)[1]
    finally:
        await server.close()
