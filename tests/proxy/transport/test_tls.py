import contextlib
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.errors import ConfigError
from proxy.transport.tls import DOT_ALPN, UpstreamTlsContext, upstream_context
from tests.authority import LIFE, PrivateAuthority
from tests.proxy.resolver.hostile import TLS_1_1_HELLO

NAME = "dns.example"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> PrivateAuthority:
    return PrivateAuthority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def client(authority: PrivateAuthority) -> UpstreamTlsContext:
    return upstream_context(authority.certificate, DOT_ALPN)


def server_context(chain: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    context.set_alpn_protocols(["h2", "dot"])
    return context


@pytest.fixture
def server(authority: PrivateAuthority) -> ssl.SSLContext:
    return server_context(*authority.issue([NAME, "192.0.2.53"]))


class Wire:
    """Two ends of TLS without a socket between them."""

    def __init__(self, client: ssl.SSLContext, server: ssl.SSLContext, name: str = NAME) -> None:
        up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(down, up, server_hostname=name)
        self.server = server.wrap_bio(up, down, server_side=True)

    def handshake(self) -> None:
        """Shake hands, then say something, so that the client reads the tickets too."""
        for end in (self.client, self.server) * 3:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
        self.server.write(b"x")
        assert self.client.read(1) == b"x"


def test_a_verified_server_is_spoken_to(client: UpstreamTlsContext, server: ssl.SSLContext) -> None:
    wire = Wire(client, server)
    wire.handshake()
    assert wire.client.selected_alpn_protocol() == "dot"
    assert wire.client.version() == "TLSv1.3"


def test_an_address_is_verified_as_an_address(
    client: UpstreamTlsContext, server: ssl.SSLContext
) -> None:
    Wire(client, server, "192.0.2.53").handshake()
    with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
        Wire(client, server, "192.0.2.54").handshake()


def test_another_name_is_refused(client: UpstreamTlsContext, server: ssl.SSLContext) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        Wire(client, server, "ns.dns.example").handshake()


def test_a_name_in_the_subject_alone_is_refused(
    client: UpstreamTlsContext, authority: PrivateAuthority
) -> None:
    """RFC 9525, section 2: the common name says nothing."""
    chain, key = authority.issue(["192.0.2.54", "other.example"])
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        Wire(client, server_context(chain, key), "192.0.2.54.example").handshake()
    assert not client.hostname_checks_common_name


def test_a_stranger_is_refused(server: ssl.SSLContext, tmp_path: Path) -> None:
    stranger = PrivateAuthority(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="issuer"):
        Wire(upstream_context(stranger.certificate), server).handshake()
    with pytest.raises(ssl.SSLCertVerificationError, match="issuer"):
        Wire(upstream_context(), server).handshake()


def test_an_expired_certificate_is_refused(
    client: UpstreamTlsContext, authority: PrivateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authority, "_now", authority._now - 2 * LIFE)
    chain, key = authority.issue([f"expired.{NAME}"])
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        Wire(client, server_context(chain, key), f"expired.{NAME}").handshake()


def test_tls_before_1_2_is_refused(client: UpstreamTlsContext) -> None:
    """RFC 9325, section 3.1.1; a server that insists on TLS 1.1 is left."""
    answer, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    end = client.wrap_bio(answer, sent, server_hostname=NAME)
    with pytest.raises(ssl.SSLWantReadError):
        end.do_handshake()
    assert sent.read()[9:11] == b"\x03\x03"
    answer.write(TLS_1_1_HELLO)
    with pytest.raises(ssl.SSLError, match="unsupported protocol"):
        end.do_handshake()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_kept_session_is_taken_up_once(
    client: UpstreamTlsContext, server: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    """RFC 8446, appendix C.4: a ticket is used once."""
    server.maximum_version = version
    first = Wire(client, server)
    first.handshake()
    assert not first.client.session_reused
    client.keep_session(first.client)
    second, third = Wire(client, server), Wire(client, server)
    second.handshake()
    third.handshake()
    assert second.client.session_reused
    assert not third.client.session_reused


def test_a_session_is_for_the_name_it_was_verified_for(
    client: UpstreamTlsContext, server: ssl.SSLContext
) -> None:
    first = Wire(client, server)
    first.handshake()
    client.keep_session(first.client)
    with pytest.raises(ssl.SSLCertVerificationError):
        Wire(client, server, "other.example").handshake()


def test_a_server_without_tickets_leaves_nothing_to_keep(
    client: UpstreamTlsContext, server: ssl.SSLContext
) -> None:
    server.num_tickets = 0
    first = Wire(client, server)
    first.handshake()
    client.keep_session(first.client)
    second = Wire(client, server)
    second.handshake()
    assert not second.client.session_reused


def test_an_intermediate_may_be_the_anchor(server: ssl.SSLContext, tmp_path: Path) -> None:
    """`upstream_ca` may hold what signed the upstream's certificate, or that certificate."""
    authority = PrivateAuthority(tmp_path)
    chain, key = authority.issue([NAME])
    Wire(upstream_context(chain), server_context(chain, key)).handshake()
    with pytest.raises(ssl.SSLCertVerificationError):
        Wire(upstream_context(chain), server).handshake()


def test_secrets_are_not_logged_for_whoever_sets_a_variable(
    server: ssl.SSLContext,
    authority: PrivateAuthority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    Wire(upstream_context(authority.certificate), server).handshake()
    assert not (tmp_path / "keys").exists()


def absent(folder: Path) -> Path:
    return folder / "absent.pem"


def empty(folder: Path) -> Path:
    (folder / "empty.pem").touch()
    return folder / "empty.pem"


def rubbish(folder: Path) -> Path:
    (folder / "rubbish.pem").write_text("-----BEGIN CERTIFICATE-----\nAA==\n")
    return folder / "rubbish.pem"


@pytest.mark.parametrize("make", [absent, empty, rubbish, Path])
def test_a_file_that_cannot_be_used_is_named(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path)
    with pytest.raises(ConfigError, match="readable file of PEM certificates") as caught:
        upstream_context(path)
    assert str(path) in str(caught.value)
