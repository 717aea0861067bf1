"""Tokens as the planes see them: a secret comes in, what it stands for comes out.

A secret is `spt_` and 32 random octets in base64url.  Only its SHA-256 is kept, here and in the
file (`proxy.tokens.file`): 256 random bits cannot be guessed, so that a slow hash would protect
nothing and cost each request.  A look-up is by digest, in a table whose hash has a random key:
its time tells nothing of a digest, and a digest tells nothing of the secret.
"""

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from enum import StrEnum
from math import inf
from typing import Annotated, Literal, override

from msgspec import Meta, Struct

from proxy.errors import ConfigError, ProxyError
from rules.decision import Reason

PREFIX = "spt_"
SECRET_OCTETS = 32
_NAME_CHARACTERS = 64
_MOST_UID = 2**32 - 2  # -1 is no user: chown(2)

type State = Literal["valid", "expired", "revoked", "used"]


class Purpose(StrEnum):
    """What a token is good for; one for apps opens no metrics, one for scraping is no app.

    One to join is good for one certificate of its app (`sallyport enroll`) and names nobody.
    """

    APP = "app"
    SCRAPE = "scrape"
    JOIN = "join"


class Token(Struct, frozen=True, kw_only=True):
    """A token without its secret; times are Unix time in seconds.

    `name` is what `identity: [{token: NAME}]` says; `id` is `NAME.NUMBER` and never used twice.
    `bind_uid` is the only uid whose processes may use it.  `rotated` is when a newer secret took
    its place: it is then good until `expires`, the end of the grace.  `used` is when one to join
    was redeemed: it is good for nothing from then on.
    """

    id: str
    name: str
    created: float
    expires: float
    purpose: Purpose = Purpose.APP
    bind_uid: int | None = None
    rotated: float | None = None
    revoked: float | None = None
    used: float | None = None

    def state(self, now: float) -> State:
        """Return what it is worth at `now`: revoked stays revoked after it has expired."""
        if self.revoked is not None:
            return "revoked"
        if self.used is not None:
            return "used"
        return "valid" if now < self.expires else "expired"


class Wanted(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token that is asked for; a `ttl_s` of None is the default, `limits.token_ttl_s`."""

    name: Annotated[str, Meta(pattern=r"^[a-z0-9-]+\Z", max_length=_NAME_CHARACTERS)]
    purpose: Purpose = Purpose.APP
    ttl_s: float | None = None
    bind_uid: Annotated[int, Meta(ge=0, le=_MOST_UID)] | None = None


class Issued(Struct, frozen=True):
    """A new token and its secret, which is told here and nowhere again; no `repr` shows it."""

    token: Token
    secret: str
    replaced: Token | None = None

    @override
    def __repr__(self) -> str:
        """Return what may stand in a log."""
        return f"Issued({self.token!r}, ..., {self.replaced!r})"


class JoinError(ProxyError):
    """A secret that opens no enrolment; the text says why, and is for who showed it."""


class UnknownTokenError(ConfigError):
    """No token, or more than one, is meant by what was written."""


def new_secret(entropy: bytes) -> str:
    """Return a new secret of `SECRET_OCTETS` random octets."""
    return PREFIX + urlsafe_b64encode(entropy[:SECRET_OCTETS]).rstrip(b"=").decode("ascii")


def digest(secret: str) -> bytes:
    """Return what is kept of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


class Tokens:
    """Every token that is remembered, by digest; ask it from the loop's thread only.

    `wall` returns Unix time in seconds and stands as `now`.  `epoch` changes with everything
    that may change an answer of `find`: who keeps an answer asks again when it has changed.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        self.now = wall
        self.epoch = 0
        self.names: frozenset[str] = frozenset()  # that a valid token for apps stands for
        self._known: dict[bytes, Token] = {}
        self._standing: dict[str, Token] = {}  # by id, those that were valid at the last look
        self._next = inf  # when the first of them expires
        self._looked = -inf
        self._voided: list[Callable[[Token], object]] = []

    @property
    def any_for_apps(self) -> bool:
        """Whether a valid token for an app exists."""
        return bool(self.names)

    def find(self, secret: str, now: float) -> Token | Reason:
        """Return the valid token of `secret`, else REVOKED, or IDENTITY_UNKNOWN (also: expired)."""
        wanted = digest(secret)
        token = self._known.get(wanted)
        if token is None:
            return Reason.IDENTITY_UNKNOWN
        if token.revoked is not None:
            return Reason.REVOKED
        return token if token.state(now) == "valid" else Reason.IDENTITY_UNKNOWN

    def explain(self, secret: str, now: float) -> str:
        """Return what there is to say of a secret that was refused; never the secret itself."""
        token = self._known.get(digest(secret))
        if token is None:
            return "no such token; ask the admin for one"
        state = token.state(now)
        if state == "revoked":
            return f"the token {token.id} was revoked; ask the admin for another"
        if state == "used":
            return f"the token {token.id} was used to enrol, and is good for once"
        if token.purpose is Purpose.JOIN:
            return f"the token {token.id} is for `sallyport enroll` alone"
        if state == "valid":
            return f"the token {token.id} is not for this app, listener or user"
        if token.rotated is not None:
            return f"the token {token.id} was replaced by a newer one; use that"
        return f"the token {token.id} has expired; ask the admin to rotate it"

    def use(self, known: Mapping[bytes, Token], now: float) -> None:
        """Know exactly these from now on; tell of each that was valid and is no more."""
        self._known = dict(known)
        self.epoch += 1
        self._settle(now)

    def look(self, now: float) -> None:
        """Notice what has expired meanwhile; to be called about once a second.

        Where the clock was set back, what had expired may be valid again.
        """
        if now >= self._next or now < self._looked:
            self.epoch += 1
            self._settle(now)
        self._looked = now

    def on_void(self, callback: Callable[[Token], object]) -> None:
        """Call `callback` with each token that is void from then on: revoked, expired, gone."""
        self._voided.append(callback)

    def all(self) -> tuple[Token, ...]:
        """Return every token that is remembered, valid or not, the oldest first."""
        return tuple(sorted(self._known.values(), key=lambda token: (token.created, token.id)))

    def _settle(self, now: float) -> None:
        before = self._standing
        valid = [token for token in self._known.values() if token.state(now) == "valid"]
        self._standing = {token.id: token for token in valid}
        self._next = min((token.expires for token in valid), default=inf)
        self.names = frozenset(token.name for token in valid if token.purpose is Purpose.APP)
        for gone in before.keys() - self._standing.keys():
            for callback in self._voided:
                callback(before[gone])
