"""Which listeners show the server's certificate, and when they ask for the client's."""

import datetime as dt
import ssl
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from certs.authority import ensure
from certs.domain import ensure_domain
from proxy.audit import AuditSettings
from proxy.certificates.trust import TrustBundles
from proxy.config import Listen, Settings
from proxy.errors import BindError
from proxy.renewal import certificate_folder, certificate_names
from proxy.tls_listeners import TlsListeners

NOW = dt.datetime.now(dt.UTC)
HERE = ("127.0.0.1:0",)


def settings(folder: Path) -> Settings:
    return Settings(
        state=str(folder),
        rules=(),
        audit=AuditSettings(str(folder / "audit.jsonl")),
        listen=Listen(do53=(), dot=HERE, doh=HERE, proxy=(), proxy_tls=HERE, control_tls=HERE),
    )


@pytest.fixture
def told(tmp_path: Path) -> Settings:
    made = settings(tmp_path)
    ensure(certificate_folder(made), certificate_names(made), NOW)
    return made


def trusted(folder: Path) -> TrustBundles:
    ensure_domain(folder / "identity", "a.example", NOW, None)
    trust = TrustBundles()
    trust.use({"a.example": (folder / "identity" / "bundle.pem").read_text()})
    return trust


def test_without_a_tls_listener_no_certificate_is_needed(tmp_path: Path) -> None:
    silent = replace(settings(tmp_path), listen=Listen())
    tls = TlsListeners(silent, TrustBundles(), lambda: True, time.time)
    assert (tls.contexts, tls.control, tls.renewal, tls.leaf) == ({}, None, None, None)
    assert tls.problem == ""


def test_without_a_certificate_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(BindError, match=r"server\.pem"):
        TlsListeners(settings(tmp_path), TrustBundles(), lambda: False, time.time)


def test_agents_are_asked_only_while_rules_use_certificates(tmp_path: Path, told: Settings) -> None:
    asks = False
    tls = TlsListeners(told, trusted(tmp_path), lambda: asks, time.time)
    assert sorted(tls.contexts) == ["doh", "dot", "proxy_tls"]
    assert not any(each.asks for each in tls.contexts.values())
    asks = True
    tls.ask()
    assert all(each.asks for each in tls.contexts.values())
    modes = {each.current.verify_mode for each in tls.contexts.values()}
    assert modes == {ssl.CERT_OPTIONAL}
    asks = False
    tls.ask()
    assert not any(each.asks for each in tls.contexts.values())


def test_admins_are_always_asked(tmp_path: Path, told: Settings) -> None:
    tls = TlsListeners(told, trusted(tmp_path), lambda: False, time.time)
    assert tls.control is not None
    assert tls.control.current.verify_mode == ssl.CERT_REQUIRED


def test_other_anchors_make_other_contexts(tmp_path: Path, told: Settings) -> None:
    trust = trusted(tmp_path)
    tls = TlsListeners(told, trust, lambda: True, time.time)
    before = {kind: each.current for kind, each in tls.contexts.items()}
    ensure_domain(tmp_path / "other", "b.example", NOW, None)
    trust.use({"b.example": (tmp_path / "other" / "bundle.pem").read_text()})
    assert all(each.current is not before[kind] for kind, each in tls.contexts.items())


def test_a_certificate_that_is_gone_leaves_the_listeners_as_they_were(
    tmp_path: Path, told: Settings
) -> None:
    asks = False
    tls = TlsListeners(told, trusted(tmp_path), lambda: asks, time.time)
    (certificate_folder(told) / "server.pem").unlink()
    asks = True
    tls.ask()
    assert not any(each.asks for each in tls.contexts.values())
    assert "server.pem" in tls.problem
