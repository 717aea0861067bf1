"""Registered secrets as they are known: everything but the value."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, override

from msgspec import Meta, Struct

from proxy.errors import ConfigError
from rules.fingerprint import WeakSecretError, Windows

FILE_NAME = "secrets.sqlite"
"""In the folder of state."""

NAME = r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$"
"""As rules and audit lines name a secret: `secret:NAME`."""


class Kind(StrEnum):
    """What a secret is: one that opens something, or one that nobody uses."""

    SECRET = "secret"  # noqa: S105 - the word, not a secret
    CANARY = "canary"


class UnknownSecretError(ConfigError):
    """No secret is registered under that name."""

    def __init__(self) -> None:
        super().__init__("no such secret; `sallyport secrets list` shows all")


class WantedSecret(Struct, frozen=True, forbid_unknown_fields=True):
    """A secret that is to be registered; in JSON its value stands in base64."""

    name: Annotated[str, Meta(pattern=NAME)]
    value: bytes
    kind: Kind = Kind.SECRET

    @override
    def __repr__(self) -> str:
        """Return what may stand in a log or a traceback."""
        return f"WantedSecret({self.name!r}, ..., {self.kind!r})"


class Secret(Struct, frozen=True):
    """A secret that is registered: `at` is Unix time in seconds; `by_uid` -1: by a certificate."""

    name: str
    kind: Kind
    at: float
    by_uid: int


class Kept(Struct, frozen=True):
    """What the file says, the oldest secret first."""

    key: bytes
    secrets: Mapping[str, Secret]
    windows: Mapping[str, Sequence[Windows]]

    @override
    def __repr__(self) -> str:
        """Return the names alone."""
        return f"Kept(..., {[*self.secrets]}, ...)"


def too_long(most: int) -> ConfigError:
    """Return the refusal of a secret of more than `most` octets."""
    return ConfigError(f"a secret has {most} octets at most (limits.secret_octets)")


def unfit(name: str, error: WeakSecretError) -> ConfigError:
    """Return the refusal of a value that cannot be looked for."""
    return ConfigError(f"{name} is not registered: {error}")
