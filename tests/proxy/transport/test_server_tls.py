"""What our listeners speak, asked by handshakes in memory."""

import datetime as dt
import ssl
from pathlib import Path

import pytest

from certs.authority import init
from certs.names import server_names
from proxy.errors import BindError, ConfigError
from proxy.transport.server_tls import ServerTls, load, server_context
from tests.certs.forgery import TRUST_DOMAIN, Forger

NAMES = server_names(["127.0.0.1"])
ALPN = ("h2", "http/1.1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("state") / "ca"
    init(path, NAMES, dt.datetime.now(dt.UTC))
    return path


@pytest.fixture
def context(folder: Path) -> ssl.SSLContext:
    return server_context(folder / "server.pem", folder / "server.key", ALPN)


def client(folder: Path, *alpn: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=folder / "root.pem")
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


class Pair:
    """A client and a server in memory, after their handshake."""

    def __init__(
        self,
        client_context: ssl.SSLContext,
        server_context: ssl.SSLContext,
        name: str = "localhost",
        session: ssl.SSLSession | None = None,
    ) -> None:
        up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client_context.wrap_bio(down, up, server_hostname=name, session=session)
        self.server = server_context.wrap_bio(up, down, server_side=True)
        waiting = [self.client, self.server]
        while waiting:
            side = waiting.pop(0)
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                waiting.append(side)

    def exchange(self) -> bytes:
        """Send octets both ways; the client gets its tickets with them."""
        self.client.write(b"ping")
        assert self.server.read() == b"ping"
        self.server.write(b"pong")
        return self.client.read()


@pytest.mark.parametrize("name", NAMES)
def test_a_client_that_trusts_the_root_gets_in_by_each_name(
    folder: Path, context: ssl.SSLContext, name: str
) -> None:
    pair = Pair(client(folder), context, name)
    assert pair.exchange() == b"pong"
    assert pair.client.version() == "TLSv1.3"


def test_a_client_that_trusts_others_only_does_not(context: ssl.SSLContext) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        Pair(ssl.create_default_context(), context)


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (("h2", "http/1.1"), "h2"),
        (("http/1.1", "h2"), "h2"),
        (("http/1.1",), "http/1.1"),
        (("dot",), None),
        ((), None),
    ],
)
def test_the_protocol_is_ours_to_choose(
    folder: Path, context: ssl.SSLContext, offered: tuple[str, ...], chosen: str | None
) -> None:
    assert Pair(client(folder, *offered), context).server.selected_alpn_protocol() == chosen


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_nothing_older_than_tls_1_2_is_spoken(
    folder: Path, context: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    old = client(folder)
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = version
    with pytest.raises(ssl.SSLError):
        Pair(old, context)


@pytest.mark.parametrize(
    ("cipher", "works"),
    [
        ("ECDHE-ECDSA-AES128-GCM-SHA256", True),
        ("ECDHE-ECDSA-AES256-GCM-SHA384", True),
        ("ECDHE-ECDSA-CHACHA20-POLY1305", True),
        ("ECDHE-ECDSA-AES128-SHA256", False),
        ("ECDHE-ECDSA-AES256-SHA", False),
        ("ECDHE-ECDSA-AES128-CCM", False),
        ("DHE-RSA-AES256-GCM-SHA384", False),
        ("AES128-GCM-SHA256", False),
    ],
)
def test_tls_1_2_has_forward_secrecy_and_authenticated_encryption_only(
    folder: Path, context: ssl.SSLContext, cipher: str, works: bool
) -> None:
    """RFC 9325, section 4: no CBC, no key transport by RSA, no DHE."""
    old = client(folder)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.set_ciphers(cipher)
    if works:
        used = Pair(old, context).client.cipher()
        assert used is not None
        assert used[0] == cipher
    else:
        with pytest.raises(ssl.SSLError):
            Pair(old, context)


@pytest.mark.parametrize(
    "group", ["ffdhe2048", "ffdhe4096", "ffdhe8192", "X448", "secp384r1", "secp521r1"]
)
def test_a_peer_cannot_choose_a_group_that_holds_the_loop(
    folder: Path, context: ssl.SSLContext, group: str
) -> None:
    """threats.md, "Parser, transport, cache": one ffdhe8192 handshake costs 190 ms."""
    asking = client(folder)
    asking.set_ecdh_curve(group)
    with pytest.raises(ssl.SSLError, match=r"HANDSHAKE_FAILURE|NO_SUITABLE"):
        Pair(asking, context)


@pytest.mark.parametrize("group", ["X25519", "prime256v1"])
def test_the_two_groups_that_every_client_has_are_spoken(
    folder: Path, context: ssl.SSLContext, group: str
) -> None:
    asking = client(folder)
    asking.set_ecdh_curve(group)
    assert Pair(asking, context).exchange() == b"pong"


def test_no_offered_cipher_is_weaker_than_that(context: ssl.SSLContext) -> None:
    for cipher in context.get_ciphers():
        assert cipher["aead"]
        assert cipher["kea"] in ("kx-ecdhe", "kx-any")
        assert cipher["strength_bits"] >= 128


def test_there_is_no_compression_and_no_renegotiation(context: ssl.SSLContext) -> None:
    wanted = ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    assert context.options & wanted == wanted
    assert context.verify_mode == ssl.CERT_NONE


def test_a_session_is_taken_up_again(folder: Path, context: ssl.SSLContext) -> None:
    """One ticket a handshake: what a client asks for once, it gets once."""
    trusting = client(folder)
    first = Pair(trusting, context)
    assert first.exchange() == b"pong"
    assert first.client.session is not None
    again = Pair(trusting, context, session=first.client.session)
    assert again.client.session_reused


def test_secrets_go_nowhere(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "secrets"))
    context = server_context(folder / "server.pem", folder / "server.key", ALPN)
    assert not context.keylog_filename
    assert not (tmp_path / "secrets").exists()


def test_a_certificate_that_is_missing_is_said_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(BindError, match=r"server\.pem cannot be used \(No such file.*ca show"):
        server_context(tmp_path / "server.pem", tmp_path / "server.key", ALPN)


def test_a_key_of_another_certificate_is_said_and_not_shown(folder: Path) -> None:
    with pytest.raises(BindError, match=r"KEY_VALUES_MISMATCH") as caught:
        server_context(folder / "server.pem", folder / "root.key", ALPN)
    assert "PRIVATE KEY" not in str(caught.value)


def test_a_text_that_is_no_certificate_is_said(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "server.pem").write_text("hello")
    with pytest.raises(BindError, match="cannot be used"):
        server_context(tmp_path / "server.pem", folder / "server.key", ALPN)


def test_a_new_certificate_is_for_new_connections(
    folder: Path, tmp_path: Path, context: ssl.SSLContext
) -> None:
    init(tmp_path / "ca", NAMES, dt.datetime.now(dt.UTC))
    before = Pair(client(folder), context)
    load(context, tmp_path / "ca" / "server.pem", tmp_path / "ca" / "server.key")
    assert before.exchange() == b"pong"
    assert Pair(client(tmp_path / "ca"), context).exchange() == b"pong"
    with pytest.raises(ssl.SSLCertVerificationError):
        Pair(client(folder), context)


def made(folder: Path) -> ServerTls:
    return ServerTls(folder / "server.pem", folder / "server.key", ALPN)


def test_a_listener_asks_for_certificates_when_told_to_and_makes_a_context_for_it(
    folder: Path,
) -> None:
    tls = made(folder)
    first = tls.current
    anchors = Forger.loose(TRUST_DOMAIN, dt.datetime.now(dt.UTC)).good().ders[-1:]
    assert [tls.asks, tls.ask(None)] == [False, False]
    assert tls.current is first
    assert tls.ask(anchors)
    assert not tls.ask(anchors)
    asking = tls.current
    assert asking is not first
    assert tls.asks
    assert (first.verify_mode, asking.verify_mode) == (ssl.CERT_NONE, ssl.CERT_OPTIONAL)
    assert (first.num_tickets, asking.num_tickets) == (1, 0)
    assert asking.cert_store_stats()["x509_ca"] == 1
    assert asking.verify_flags & ssl.VERIFY_X509_STRICT
    assert not asking.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN
    assert tls.ask(())  # nobody is believed any more: OpenSSL cannot forget an authority
    assert tls.current.cert_store_stats()["x509"] == 0
    assert tls.ask(None)
    assert tls.current.verify_mode is ssl.CERT_NONE


def test_an_anchor_that_is_none_leaves_all_as_it_was(folder: Path) -> None:
    tls = made(folder)
    before = tls.current
    for bad in (b"", b"no DER"):
        with pytest.raises(ConfigError, match="get the trust bundle again"):
            tls.ask((bad,))
    assert (tls.current, tls.asks) == (before, False)


def test_the_loop_is_not_told_the_texts_of_a_certificate(folder: Path) -> None:
    """They are never used, and to make them has been a way to crash (CVE-2019-5010)."""
    forged = Forger.loose(TRUST_DOMAIN, dt.datetime.now(dt.UTC)).good()
    tls = made(folder)
    tls.ask(forged.ders[-1:])
    asking = client(folder)
    asking.load_cert_chain(*forged.write(folder)[:2])
    server = Pair(asking, tls.current).server
    assert server.getpeercert() is None
    assert server.getpeercert(binary_form=True) == forged.ders[0]


def test_a_client_that_shows_very_many_certificates_is_refused(folder: Path) -> None:
    """Each of up to 100 KiB is read before any is verified: 40 ms of the loop a handshake."""
    forger = Forger.loose(TRUST_DOMAIN, dt.datetime.now(dt.UTC))
    forged = forger.good()
    tls = made(folder)
    tls.ask(forged.ders[-1:])
    chain, key, _ = forged.write(folder)
    begin = "-----BEGIN CERTIFICATE-----"
    others = [begin + forger.good().chain.split(begin)[1] for _ in range(80)]
    for more, is_refused in ((6, False), (80, True)):
        asking = client(folder)
        chain.write_text(forged.chain + "".join(others[:more]))
        asking.load_cert_chain(chain, key)
        if is_refused:
            with pytest.raises(ssl.SSLError, match="EXCESSIVE_MESSAGE_SIZE"):
                Pair(asking, tls.current)
        else:
            Pair(asking, tls.current)


def test_a_new_certificate_of_ours_is_taken_up_by_the_context_of_now(folder: Path) -> None:
    tls = made(folder)
    tls.ask(())
    tls.load()
    assert Pair(client(folder), tls.current).exchange() == b"pong"
