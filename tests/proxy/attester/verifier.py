"""A verifier that speaks the API's JSON: real TLS of both sides, real signatures, no rules."""

import contextlib
import datetime as dt
import hashlib
import http.server
import json
import secrets
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, override
from urllib.parse import parse_qsl, urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from certs.attester_key import spki_of
from certs.domain import init_domain, load_domain
from proxy.attested.binding import Binding, Kind, message
from proxy.attester.certificate import OwnCertificate
from proxy.attester.evidence import b64url, unb64url
from proxy.attester.place import Place
from tests.authority import PrivateAuthority

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
AGENT = "spiffe://desk.example/agent/coder"
LIFE_S = 300


class Verifier:
    """What it was asked, what it issued, and how it is to misbehave."""

    def __init__(self, folder: Path) -> None:
        init_domain(folder / "identity", "desk.example", NOW, None)
        self._domain = load_domain(folder / "identity", None)
        self.folder = folder / "home"
        self.folder.mkdir(mode=0o700)
        self.authority = PrivateAuthority(folder)
        self.server_files = self.authority.issue(["localhost", "127.0.0.1"])
        self.port = 0
        self.calls: list[str] = []
        self.hosts: list[str] = []
        self.contents: list[dict[str, Any]] = []
        self.nonces: set[str] = set()
        self.tokens: list[str] = []
        self.given_back: list[str] = []
        self.attesters: set[str] = set()
        self.answers: dict[str, tuple[int, Any]] = {}
        """By path: what is answered instead."""
        self.changes: dict[str, dict[str, Any]] = {}
        """By path: members of the answer that are others."""
        self.expires_in = LIFE_S
        self.renew_in = 0
        self.issue()

    @property
    def own(self) -> OwnCertificate:
        return OwnCertificate(
            self.folder / "svid.pem", self.folder / "svid.key", self.authority.certificate
        )

    @property
    def place(self) -> Place:
        return Place("localhost", self.port, is_tls=True)

    def issue(self) -> None:
        """Give the agent a certificate, and a key that it has not had."""
        issued = self._domain.issue(AGENT, NOW, 3600)
        assert issued.key is not None
        (self.folder / "svid.key").write_text(issued.key_pem)
        (self.folder / "svid.key").chmod(0o600)
        (self.folder / "svid.pem").write_text(issued.chain_pem)
        (self.folder / "ca.pem").write_bytes(self.authority.certificate.read_bytes())

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.server_files)
        for anchor in self._domain.anchors:
            context.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(anchor))
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def binding(self) -> Binding:
        spki = spki_of((self.folder / "svid.pem").read_bytes())
        return Binding(Kind.KEY, hashlib.sha256(spki).hexdigest())

    def answer(self, path: str, content: bytes, binding: Binding) -> tuple[int, Any]:
        self.calls.append(path)
        if path in self.answers:
            return self.answers[path]
        is_form = path in {"/token", "/revoke"}
        asked = dict(parse_qsl(content.decode())) if is_form else json.loads(content)
        self.contents.append(asked)
        status, answer = {
            "/attest/nonce": self._nonce,
            "/attest": self._attest,
            "/attest/enrol": self._enrol,
            "/attest/activate": self._activate,
            "/token": self._token,
            "/revoke": self._revoke,
            "/heartbeat": self._beat,
        }[path](asked, binding)
        if isinstance(answer, dict):
            answer |= self.changes.get(path, {})
        return status, answer

    def _nonce(self, _asked: dict[str, Any], binding: Binding) -> tuple[int, Any]:
        nonce = secrets.token_bytes(32)
        self.nonces.add(b64url(nonce))
        answer = {
            "nonce": b64url(nonce),
            "expires_in": 60,
            "binding": binding.value,
            "message": b64url(message(nonce, binding)),
            "evidence": ["software", "tpm"],
        }
        return 200, answer

    def _attest(self, asked: dict[str, Any], binding: Binding) -> tuple[int, Any]:
        if asked["nonce"] not in self.nonces:
            return _refusal("this nonce is not known, or was used")
        self.nonces.discard(asked["nonce"])
        signed = message(unb64url(asked["nonce"]), binding)
        if asked["evidence"] == "tpm" and asked["attester"] not in self.attesters:
            return _refusal("this attestation key is not enrolled", "POST /attest/enrol first")
        if asked["evidence"] == "software" and not is_signed(asked, signed):
            return _refusal("the signature is not of this key and nonce")
        if asked["evidence"] == "tpm" and unb64url(asked["quote"]) != signed:
            return _refusal("the quote is not of this nonce")
        token = f"h.{secrets.token_hex(16)}.s"
        self.tokens.append(token)
        return 200, {
            "token": token,
            "token_type": "N_A",
            "expires_in": self.expires_in,
            "renew_in": self.renew_in,
            "level": asked["evidence"],
            "id": secrets.token_hex(8),
            "binding": binding.value,
            "attested_at": int(NOW.timestamp()),
        }

    def _enrol(self, asked: dict[str, Any], _binding: Binding) -> tuple[int, Any]:
        self._enrolling = unb64url(asked["ak"])
        return 200, {"handle": "h1", "credential": b64url(b"c"), "seed": b64url(b"s")}

    def _activate(self, asked: dict[str, Any], _binding: Binding) -> tuple[int, Any]:
        if unb64url(asked["secret"]) != b"c+s":
            return _refusal("that is not the secret")
        name = b"\x00\x0b" + hashlib.sha256(self._enrolling).digest()
        self.attesters.add(name.hex())
        return 200, {"attester": name.hex()}

    def _token(self, asked: dict[str, Any], _binding: Binding) -> tuple[int, Any]:
        if asked["subject_token"] not in self.tokens:
            return 400, {"error": "invalid_request", "error_description": "unknown subject_token"}
        return 200, {
            "access_token": f"c.{secrets.token_hex(16)}.s",
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "token_type": "Bearer",
            "expires_in": 60,
            "scope": asked["scope"],
        }

    def _revoke(self, asked: dict[str, Any], _binding: Binding) -> tuple[int, Any]:
        self.given_back.append(asked["token"])
        return 200, b""

    def _beat(self, _asked: dict[str, Any], _binding: Binding) -> tuple[int, Any]:
        standing = {"level": "software", "expires_in": LIFE_S}
        return 200, {"app": "coder", "attested": [standing], "revoked": False, "next_s": 60.0}


def _refusal(text: str, how: str = "ask for a new nonce") -> tuple[int, Any]:
    problem = {"type": "about:blank", "title": "no", "status": 403, "detail": text, "how": how}
    return 403, {**problem, "reason": "attestation-required"}


def is_signed(asked: dict[str, Any], signed: bytes) -> bool:
    """Return whether software evidence has a signature of `signed`."""
    key = serialization.load_der_public_key(unb64url(asked["key"]))
    assert isinstance(key, ec.EllipticCurvePublicKey)
    try:
        key.verify(unb64url(asked["signature"]), signed, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


@contextlib.contextmanager
def serving(verifier: Verifier, *, plain: bool = False) -> Iterator[Verifier]:
    """Serve on a free port of the loopback; `plain` as the proxy of a lease does."""

    class Answering(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            binding = Binding(Kind.LEASE, "lease-1")
            if isinstance(self.connection, ssl.SSLSocket):
                der = self.connection.getpeercert(binary_form=True)
                assert der is not None
                binding = _binding_of(der)
            target = urlsplit(self.path)
            verifier.hosts.append(self.headers["Host"])
            content = self.rfile.read(int(self.headers["Content-Length"]))
            status, answer = verifier.answer(target.path, content, binding)
            octets = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(octets)))
            self.end_headers()
            self.wfile.write(octets)

        def do_GET(self) -> None:
            """Answer as a proxy that asks for a certificate, with a page."""
            verifier.calls.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "7")
            self.end_headers()
            self.wfile.write(b"a page\n")

        @override
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Quiet(http.server.ThreadingHTTPServer):
        @override
        def handle_error(self, *_: object) -> None:
            """Say nothing: handshakes are to fail here."""

    server = Quiet(("127.0.0.1", 0), Answering)
    if not plain:
        server.socket = verifier.context().wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    verifier.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield verifier
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _binding_of(der: bytes) -> Binding:
    key = x509.load_der_x509_certificate(der).public_key()
    spki = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return Binding(Kind.KEY, hashlib.sha256(spki).hexdigest())
