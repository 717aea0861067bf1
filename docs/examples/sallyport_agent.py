# ruff: noqa: INP001 - a file to copy beside an agent, of no package
"""Attest, exchange and beat, with Python's standard library and the openssl program alone.

agent = Agent("svid.pem", "svid.key", "ca.pem")
agent.attest()  # every four minutes; what connects with svid.pem then is attested
token = agent.exchange("https://projects.example", "read-project-x:documents")
agent.heartbeat()
"""

import base64
import hashlib
import http.client
import json
import ssl
import subprocess
import urllib.parse
from pathlib import Path
from typing import Any


class Agent:
    """An agent with a certificate; `ca` verifies the appliance at `place`."""

    def __init__(
        self, cert: str, key: str, ca: str, place: str = "127.0.0.1:8443", own: str = "attester.key"
    ) -> None:
        """Remember whom to ask, and make the key `own` where there is none."""
        self._place, self._own = place, own
        self._tls = ssl.create_default_context(cafile=ca)
        self._tls.load_cert_chain(cert, key)
        public = _openssl("x509", "-in", cert, "-noout", "-pubkey")
        spki = _openssl("pkey", "-pubin", "-outform", "DER", given=public)
        self._cert_key = hashlib.sha256(spki).digest()
        if not Path(own).exists():  # openssl makes it 0600
            _openssl("ecparam", "-genkey", "-noout", "-name", "prime256v1", "-out", own)

    def attest(self) -> dict[str, Any]:
        """Return a new attestation result: `token`, `expires_in`, `level` and more."""
        nonce = self._ask("/attest/nonce", {})["nonce"]
        signed = b"sallyport-attestation-1\0" + base64.urlsafe_b64decode(nonce + "=") + b"\1"
        signed += self._cert_key + bytes(32)  # for this key alone, whatever the server says
        signature = _openssl("dgst", "-sha256", "-sign", self._own, given=signed)
        key = _openssl("pkey", "-in", self._own, "-pubout", "-outform", "DER")
        evidence = {"evidence": "software", "key": _b64url(key), "signature": _b64url(signature)}
        return self._ask("/attest", {"nonce": nonce, **evidence})

    def exchange(self, audience: str, scope: str) -> str:
        """Return a capability token for `audience`; attests for it."""
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": self.attest()["token"],
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "audience": audience,
            "scope": scope,
        }
        return str(self._ask("/token", form, "x-www-form-urlencoded")["access_token"])

    def heartbeat(self, health: str = "ok") -> dict[str, Any]:
        """Say that the agent lives, and return what the appliance knows of it."""
        return self._ask("/heartbeat", {"health": health})

    def _ask(self, path: str, content: dict[str, Any], kind: str = "json") -> dict[str, Any]:
        sent = json.dumps(content) if kind == "json" else urllib.parse.urlencode(content)
        connection = http.client.HTTPSConnection(self._place, timeout=10, context=self._tls)
        try:
            connection.request("POST", path, sent, {"Content-Type": f"application/{kind}"})
            answer = connection.getresponse()
            text = answer.read(65536).decode()
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise PermissionError(f"{path}: {answer.status} {text}")
        return dict(json.loads(text)) if text else {}


def _openssl(*arguments: str, given: bytes = b"") -> bytes:
    command = ["openssl", *arguments]
    done = subprocess.run(command, input=given, capture_output=True, check=True)  # noqa: S603 - ours
    return done.stdout


def _b64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()
