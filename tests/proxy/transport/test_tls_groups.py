"""The groups that a context agrees keys in, and what happens where OpenSSL cannot be asked."""

import ctypes
import datetime as dt
import ssl
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from certs.ephemeral import ephemeral_server
from proxy.transport import tls_groups
from proxy.transport.tls_groups import limit_groups

REFUSED = ("ffdhe2048", "ffdhe8192", "secp384r1", "secp521r1", "X448")


def serving(folder: Path) -> ssl.SSLContext:
    server = ephemeral_server(("localhost",), dt.datetime.now(dt.UTC))
    for name, text in (("pem", server.chain), ("key", server.key)):
        (folder / name).write_text(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 1
    context.load_cert_chain(folder / "pem", folder / "key")
    return context


@pytest.fixture
def context(tmp_path: Path) -> ssl.SSLContext:
    return serving(tmp_path)


def is_agreed(context: ssl.SSLContext, group: str) -> bool:
    """Return whether the server answers a share of this group, which is all that it is offered."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    asking.set_ecdh_curve(group)
    client = asking.wrap_bio(down, up, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    with pytest.raises(ssl.SSLError) as caught:
        context.wrap_bio(up, down, server_side=True).do_handshake()
    assert caught.value.reason in (None, "NO_SUITABLE_KEY_SHARE")
    return isinstance(caught.value, ssl.SSLWantReadError)  # it waits for the client's Finished


def test_the_two_groups_are_agreed_and_no_other(context: ssl.SSLContext) -> None:
    assert limit_groups(context)
    assert is_agreed(context, "X25519")
    assert is_agreed(context, "prime256v1")
    assert [group for group in REFUSED if is_agreed(context, group)] == []
    assert context.num_tickets == 1


def test_where_openssl_cannot_be_asked_its_own_bound_of_a_chain_stands(
    context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tls_groups.limit_chains(context)
    monkeypatch.setattr(sys, "implementation", SimpleNamespace(name="another"))
    assert not tls_groups.limit_chains(context)


def test_a_context_can_be_told_to_keep_no_sessions(
    context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tls_groups.keep_no_sessions(context)
    monkeypatch.setattr(sys, "implementation", SimpleNamespace(name="another"))
    assert not tls_groups.keep_no_sessions(context)


def hidden(_name: str | None) -> ctypes.CDLL:
    raise OSError("no such library")


def without_names(_name: str | None) -> ctypes.CDLL:
    return ctypes.CDLL("libc.so.6")


@pytest.mark.parametrize("library", [hidden, without_names])
def test_x25519_stands_alone_where_openssl_cannot_be_asked(
    context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, library: object
) -> None:
    monkeypatch.setattr(tls_groups, "ctypes", SimpleNamespace(CDLL=library))
    check_alone(context)


def test_x25519_stands_alone_on_another_python(
    context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "implementation", SimpleNamespace(name="another"))
    check_alone(context)


def test_a_pointer_that_is_not_the_contexts_is_never_written_through(
    context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The proof fails on another context's: nothing is set there."""
    other = serving(tmp_path)
    monkeypatch.setattr(tls_groups, "id", lambda _context: id(other), raising=False)
    check_alone(context)
    assert is_agreed(other, "ffdhe2048")


def check_alone(context: ssl.SSLContext) -> None:
    assert not limit_groups(context)
    assert is_agreed(context, "X25519")
    assert [group for group in ("prime256v1", *REFUSED) if is_agreed(context, group)] == []
    assert context.num_tickets == 1
