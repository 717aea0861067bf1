"""What can go wrong while attesting, sorted by who must act.

    AttesterError
    |-- RefusedError      the appliance said no; `how` is its own advice (exit 1)
    |   `-- RelayError    what was to be signed is of another key: somebody stands between (exit 1)
    |-- UnusableError     a file, or what the command line names (exit 3)
    `-- UnreachableError  the appliance does not answer, or is not the one we know (exit 4)

No text holds a token, a key or a part of one.
"""

from proxy.errors import ProxyError


class AttesterError(ProxyError):
    """The root of everything that this package raises on purpose."""


class RefusedError(AttesterError):
    """The appliance said no: `status` of HTTP, 0 where TLS did; `reason` its closed word."""

    def __init__(self, text: str, status: int = 0, reason: str = "", how: str = "") -> None:
        super().__init__(f"{text}; {how}" if how else text)
        self.status = status
        self.reason = reason
        self.how = how

    @property
    def is_final(self) -> bool:
        """Whether what was said stays so: not an appliance that is overloaded or failing."""
        return self.status < 500 and self.status != 429


class RelayError(RefusedError):
    """The message that we were given to sign is not the one for our key and nonce."""


class UnusableError(AttesterError):
    """A file cannot be used, or an address is none; the text says what to do."""


class UnreachableError(AttesterError):
    """Nobody who is the appliance answers; the text says what to do."""
