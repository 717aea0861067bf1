"""Client certificates over real handshakes: what is verified, and what nothing may skip."""

import datetime as dt
import ssl
from pathlib import Path
from types import SimpleNamespace

import pytest

from certs.ephemeral import ephemeral_server
from proxy.transport import tls_groups
from proxy.transport.presented import chain_of
from proxy.transport.server_tls import ServerTls
from tests.certs.forgery import TRUST_DOMAIN, Forged, Forger
from tests.proxy.transport.test_server_tls import Pair

NOW = dt.datetime.now(dt.UTC)


class Transport:
    """What `chain_of` asks of a transport."""

    def __init__(self, connection: object) -> None:
        self.connection = connection

    def get_extra_info(self, name: str) -> object:
        assert name == "ssl_object"
        return self.connection


class Stand:
    """A server, and clients that trust it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.forger = Forger.loose(TRUST_DOMAIN, NOW)
        made = ephemeral_server(("localhost",), NOW)
        for name, text in (("pem", made.chain), ("key", made.key)):
            (folder / name).write_text(text)
        self.tls = ServerTls(folder / "pem", folder / "key", ())

    @property
    def anchors(self) -> tuple[bytes, ...]:
        return (self.forger.good().ders[-1],)

    def client(self, forged: Forged | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.folder / "pem")
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if forged is not None:
            chain, key, _ = forged.write(self.folder)
            context.load_cert_chain(chain, key)
        return context

    def pair(
        self,
        client: ssl.SSLContext | Forged | None = None,
        session: ssl.SSLSession | None = None,
    ) -> Pair:
        context = client if isinstance(client, ssl.SSLContext) else self.client(client)
        return Pair(context, self.tls.current, session=session)


def chain(pair: Pair) -> tuple[bytes, ...]:
    return chain_of(Transport(pair.server))  # type: ignore[arg-type]  # as much of one as is asked


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_verified_chain_goes_from_the_leaf_to_the_anchor(
    stand: Stand, version: ssl.TLSVersion
) -> None:
    stand.tls.ask(stand.anchors)
    forged = stand.forger.good()
    client = stand.client(forged)
    client.minimum_version = client.maximum_version = version
    assert chain(stand.pair(client)) == forged.ders


def test_a_leaf_alone_is_completed_by_an_intermediate_that_we_know(stand: Stand) -> None:
    """Browsers send no more, where a server names no authorities."""
    whole = stand.forger.good()
    leaf, below, root = whole.ders
    alone = Forged(ssl.DER_cert_to_PEM_cert(leaf), whole.key, whole.anchors)
    stand.tls.ask((root, below))
    assert chain(stand.pair(alone)) == (leaf, below, root)
    stand.tls.ask((below,))  # it is no anchor: chains end at a root
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get issuer certificate"):
        stand.pair(whole)


def test_nothing_is_presented_where_nothing_is_asked_for(stand: Stand) -> None:
    assert chain(stand.pair(stand.forger.good())) == ()
    stand.tls.ask(stand.anchors)
    assert chain(stand.pair()) == ()
    assert chain_of(Transport(None)) == ()  # type: ignore[arg-type]  # as above: no TLS


def test_a_certificate_is_not_taken_for_verified_where_none_was_verified(stand: Stand) -> None:
    """OpenSSL gives out an unverified chain under the same name, when it was told not to verify."""
    stand.tls.ask(stand.anchors)
    pair = stand.pair(stand.forger.good())
    pair.server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    assert chain(pair) == ()


def test_an_older_python_tells_the_same(stand: Stand) -> None:
    stand.tls.ask(stand.anchors)
    forged = stand.forger.good()
    server = stand.pair(forged).server
    older = SimpleNamespace(
        context=server.context,
        session_reused=server.session_reused,
        _sslobj=server._sslobj,  # type: ignore[attr-defined]  # where Python 3.12 has it
    )
    assert chain_of(Transport(older)) == forged.ders  # type: ignore[arg-type]  # as above
    older._sslobj = SimpleNamespace(get_verified_chain=lambda: None)
    assert chain_of(Transport(older)) == ()  # type: ignore[arg-type]  # as above


def test_a_resumed_connection_has_presented_nothing(stand: Stand) -> None:
    """Should OpenSSL ever resume one: what was verified in another handshake counts for nothing."""
    stand.tls.ask(stand.anchors)
    resumed = SimpleNamespace(context=stand.tls.current, session_reused=True)
    assert chain_of(Transport(resumed)) == ()  # type: ignore[arg-type]  # as above


def tickets(version: ssl.TLSVersion, stand: Stand) -> tuple[ssl.SSLContext, Pair]:
    client = stand.client(stand.forger.good())
    client.minimum_version = client.maximum_version = version
    pair = stand.pair(client)
    assert pair.exchange() == b"pong"
    return client, pair


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_nothing_is_resumed_while_certificates_are_asked_for(
    stand: Stand, version: ssl.TLSVersion
) -> None:
    """threats.md, "Identity": "TLS session resumption skips client-certificate checks"."""
    stand.tls.ask(stand.anchors)
    client, first = tickets(version, stand)
    second = stand.pair(client, first.client.session)
    assert not second.server.session_reused
    assert len(chain(second)) == 3
    if version is ssl.TLSVersion.TLSv1_3:
        session = first.client.session
        assert session is not None
        assert not session.has_ticket


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_from_before_is_not_resumed_after(stand: Stand, version: ssl.TLSVersion) -> None:
    """threats.md, "Identity": a ticket from before the rules asked would skip all checks."""
    client, first = tickets(version, stand)
    resumed = stand.pair(client, first.client.session)
    assert resumed.server.session_reused
    assert chain(resumed) == ()
    resumed.exchange()
    stand.tls.ask(stand.anchors)
    session = resumed.client.session
    assert session is not None
    after = stand.pair(client, session)
    assert not after.server.session_reused
    assert len(chain(after)) == 3


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_of_one_trust_is_not_resumed_under_another(
    stand: Stand, version: ssl.TLSVersion
) -> None:
    stand.tls.ask(stand.anchors)
    client, first = tickets(version, stand)
    stand.tls.ask(())
    session = first.client.session
    assert session is not None
    with pytest.raises(ssl.SSLCertVerificationError):
        stand.pair(client, session)
    stand.tls.ask(None)
    assert not stand.pair(client, session).server.session_reused


def test_where_openssl_cannot_be_asked_tls_1_2_is_not_spoken(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sessions could be resumed: a certificate that was verified once would stay so."""
    monkeypatch.setattr(tls_groups, "_library", lambda: None)
    stand.tls.ask(stand.anchors)
    old = stand.client(stand.forger.good())
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        stand.pair(old)
    assert len(chain(stand.pair(stand.forger.good()))) == 3
