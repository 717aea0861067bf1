"""The attester: asks for a nonce, signs what is ours, and brings the evidence (RFC 9334).

What the appliance gives to sign is never signed blindly.  The message is made here, of our own
key and the nonce; where the appliance's is another, somebody stands between us and it, and his
connection would be the one that is attested (a relay).
"""

import re
from typing import Final, override

import msgspec
from msgspec import UNSET, Struct, UnsetType, structs

from proxy.attested.binding import NONCE_OCTETS, Binding, message
from proxy.attester.api import Api, printable
from proxy.attester.certificate import OwnCertificate, Stamp
from proxy.attester.errors import RefusedError, RelayError, UnreachableError
from proxy.attester.evidence import Evidence, b64url, unb64url
from proxy.attester.place import Place

TOKEN = re.compile(r"[A-Za-z0-9_.~+/=-]{1,16384}", re.ASCII)  # RFC 6750, section 2.1: b64token
_ENROL: Final = "/attest/enrol"
"""What a refusal for want of enrolment names as its cure."""
_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:"  # noqa: S105 - RFC 8693, section 3


class Claimed(Struct, frozen=True, omit_defaults=True):
    """What the agent says of itself; it is recorded, and believed by nobody."""

    agent_hash: str = ""
    version: str = ""


class Attested(Struct, frozen=True):
    """An attestation result, as POST /attest answers it; times in whole seconds.

    Another is due in `renew_in`; 0: the appliance does not say.
    """

    token: str
    expires_in: int
    level: str | int
    id: str
    token_type: str = "N_A"  # noqa: S105 - RFC 8693, section 2.2.1
    binding: str = ""
    attested_at: int = 0
    renew_in: int = 0

    @override
    def __repr__(self) -> str:
        """Return what may stand in a traceback."""
        return f"Attested({self.id!r}, ...)"


class Capability(Struct, frozen=True):
    """A capability token, as POST /token answers it (RFC 8693, section 2.2.1)."""

    access_token: str
    expires_in: int
    issued_token_type: str = ""
    token_type: str = "Bearer"  # noqa: S105 - RFC 6750
    scope: str | UnsetType = UNSET

    @override
    def __repr__(self) -> str:
        """Return what may stand in a traceback."""
        return f"Capability({self.scope!r}, ...)"


class Heard(Struct, frozen=True):
    """The answer to a heartbeat; the next one is due in `next_s` seconds."""

    attested: tuple[object, ...] = ()
    revoked: bool = False
    next_s: float = 60.0


class Wanted(Struct, frozen=True):
    """What a capability token is to be good for; `subject` and `actor` are tokens."""

    audience: str
    scope: str
    subject: str = ""
    actor: str = ""

    def for_tokens(self, own: str, subject: str | None) -> "Wanted":
        """Return this for our own result; or for another's, where we act on his behalf."""
        if subject is None:
            return structs.replace(self, subject=own, actor="")
        return structs.replace(self, subject=subject, actor=own)  # RFC 8693, section 1.1

    @override
    def __repr__(self) -> str:
        """Return what may stand in a traceback."""
        return f"Wanted({self.audience!r}, {self.scope!r}, ...)"


class _Nonce(Struct):
    nonce: str
    message: str = ""
    evidence: tuple[str, ...] = ()


class _Header(Struct):
    typ: str = ""


class Attester:
    """Attests at `place` by `evidence`; `certificate` is None in a lease, which needs none."""

    def __init__(
        self,
        place: Place,
        certificate: OwnCertificate | None,
        evidence: Evidence,
        claimed: Claimed = Claimed(),  # noqa: B008 - frozen
    ) -> None:
        self._place = place
        self._certificate = certificate
        self._evidence = evidence
        self._claimed = claimed

    def stamp(self) -> Stamp:
        """Return what changes when the certificate is replaced."""
        return () if self._certificate is None else self._certificate.stamp()

    def attest(self) -> Attested:
        """Return a new attestation result.

        Raises:
            RefusedError: the appliance said no; `RelayError` where we did.
            UnusableError: the certificate cannot be used.
            UnreachableError: nobody answered.
        """
        try:
            return self._attest(enrols=False)
        except RefusedError as error:
            if not (self._evidence.enrols and _ENROL in error.how):
                raise
        return self._attest(enrols=True)

    def exchange(self, wanted: Wanted) -> Capability:
        """Return a capability token for the attestation result `wanted.subject`; raises so too."""
        fields = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "requested_token_type": f"{_TOKEN_TYPE}access_token",
            "subject_token": wanted.subject,
            "subject_token_type": _type_of(wanted.subject),
            "audience": wanted.audience,
            "scope": wanted.scope,
        }
        if wanted.actor:
            fields |= {"actor_token": wanted.actor, "actor_token_type": _type_of(wanted.actor)}
        with self._open()[0] as api:
            found = api.post_form("/token", fields, Capability)
        return _with_token(found, found.access_token)

    def revoke(self, token: str) -> None:
        """Give a capability token back (RFC 7009, section 2.1); raises as `attest`."""
        with self._open()[0] as api:
            api.send_form("/revoke", {"token": token, "token_type_hint": "access_token"})

    def beat(self, health: str = "ok") -> Heard:
        """Say that the agent lives, and return how it stands; raises as `attest`."""
        told = {"health": health, "version": self._claimed.version}
        with self._open()[0] as api:
            return api.post("/heartbeat", told, Heard)

    def _attest(self, *, enrols: bool) -> Attested:
        api, binding = self._open()
        with api:
            if enrols:
                self._evidence.enrol(api)
            asked = api.post("/attest/nonce", {}, _Nonce)
            self._check_kind(asked)
            signed = b"" if binding is None else _expected(asked, binding)
            content: dict[str, object] = {
                "nonce": asked.nonce,
                "evidence": self._evidence.kind,
                **self._evidence.of(signed),
                **_said(self._claimed),
            }
            found = api.post("/attest", content, Attested)
        return _with_token(found, found.token)

    def _check_kind(self, asked: _Nonce) -> None:
        """Refuse to bring what would be refused: that would void what stands."""
        kind = self._evidence.kind
        if asked.evidence and kind not in asked.evidence:
            taken = printable(", ".join(asked.evidence))
            text = f"evidence of the kind {kind} cannot be appraised here, only {taken}"
            raise RefusedError(text, how=f"have the admin write `reference_values` for {kind}")

    def _open(self) -> tuple[Api, Binding | None]:
        """Return a connection to be, and the key that it shows."""
        if self._certificate is None:
            return Api(self._place), None
        presented = self._certificate.load()
        return Api(self._place, presented.context), presented.binding


def _expected(asked: _Nonce, binding: Binding) -> bytes:
    """Return what is to be signed: for our nonce and our key, whatever the appliance says."""
    nonce = unb64url(asked.nonce)
    if len(nonce) != NONCE_OCTETS:
        raise UnreachableError("the appliance's nonce is none")
    mine = message(nonce, binding)
    if asked.message and asked.message != b64url(mine):
        text = "the appliance asks us to sign for another key than that of our certificate"
        how = "nothing was signed; see that nothing ends TLS between here and the appliance"
        raise RelayError(text, how=how)
    return mine


def _said(claimed: Claimed) -> dict[str, object]:
    said = {"agent_hash": claimed.agent_hash, "version": claimed.version}
    return {name: value for name, value in said.items() if value}


def _type_of(token: str) -> str:
    """Return what RFC 8693, section 3, calls a token: one of ours tells by its header."""
    try:
        header = msgspec.json.decode(unb64url(token.partition(".")[0]), type=_Header)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, UnreachableError):
        return f"{_TOKEN_TYPE}jwt"
    return f"{_TOKEN_TYPE}{'access_token' if header.typ == 'at+jwt' else 'jwt'}"  # RFC 9068


def _with_token[T](found: T, token: str) -> T:
    """Return `found`, whose token is one: it goes to terminals and into lines."""
    if not TOKEN.fullmatch(token):
        raise UnreachableError("the appliance's answer has no token in it")
    return found
