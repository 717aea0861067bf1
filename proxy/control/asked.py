"""A request to the control API, and how one is refused."""

from typing import Any

import msgspec
from msgspec import Struct

from proxy.control.admins import Admin
from proxy.control.place import Caller

type Asker = Caller | Admin
"""Who asks: somebody on this host as the kernel knows him, or an admin by his certificate."""


class Asked(Struct, frozen=True):
    """A request: `path` without the query, in segments; `query` as it stood.

    `media_type` is that of the content, in lower case without parameters.
    """

    method: str
    path: tuple[str, ...]
    query: str
    content: bytes
    caller: Asker
    media_type: str = ""


class RefusedError(Exception):
    """The request cannot be met: the status that says so, and what to do."""

    def __init__(self, status: int, text: str, allow: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.allow = allow


def read_content[T](content: bytes, kind: type[T]) -> T:
    """Return the JSON `content` as a `kind`.

    Raises:
        RefusedError: it is none; no value of it stands in the text.
    """
    try:
        value: Any = msgspec.json.decode(content, type=kind)
    except msgspec.MsgspecError as error:
        raise RefusedError(400, f"the content is not what is wanted: {error}") from None
    return value  # type: ignore[no-any-return]  # msgspec checked it
