"""Content of requests to values: JSON, and forms as OAuth has them (RFC 6749, appendix B).

What does not fit is refused, and no value of it stands in the text: it may be a secret.
"""

from typing import Any
from urllib.parse import parse_qsl

import msgspec
from msgspec import structs

from proxy.agent_api.asked import OAuthError, ProblemError
from proxy.limits import Limits
from rules.decision import Reason

_ENUM = "Invalid enum value "
_SHOWN_CHARACTERS = 200  # of an unknown key: it is the client's own


def read_content(content: bytes, kind: type, limits: Limits, *, is_form: bool) -> Any:
    """Return `content` as a `kind`, which is a Struct where it is a form.

    Raises:
        OAuthError: it is a form, and not that one.
        ProblemError: it is not that JSON.
    """
    if is_form:
        return _read_form(content, kind, limits)
    try:
        return msgspec.json.decode(content, type=kind)
    except (ValueError, RecursionError) as error:
        text = f"the content is not what is wanted: {_said(error)}"
        raise ProblemError(400, Reason.REQUEST_MALFORMED, text) from None


def _read_form(content: bytes, kind: type, limits: Limits) -> Any:
    """RFC 6749, section 3.2: unknown parameters are ignored, empty ones are as if they were not."""
    try:
        pairs = parse_qsl(
            content.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=limits.agent_api_form_parameters,
        )
    except ValueError:
        raise _unfit("the content is no form of parameters in UTF-8") from None
    known = {each.encode_name for each in structs.fields(kind)}
    found: dict[str, str] = {}
    seen: set[str] = set()
    for name, value in pairs:
        if name in seen:  # RFC 6749, section 3.2
            raise _unfit("a parameter is there twice")
        seen.add(name)
        if value and name in known:
            found[name] = value
    try:
        return msgspec.convert(found, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _unfit(f"the content is not what is wanted: {_said(error)}") from None


def _unfit(text: str) -> OAuthError:
    return OAuthError("invalid_request", text)


def _said(error: Exception) -> str:
    """Return what msgspec says of content, without the one value that it would show."""
    if not isinstance(error, msgspec.MsgspecError):
        return "it is not UTF-8, or nested too deep"
    text = str(error)
    if text.startswith(_ENUM):
        _, at, where = text.rpartition(" - at ")
        text = f"a value that is not one of those it may be{at}{where if at else ''}"
    shown = "".join(each if each.isprintable() else "?" for each in text)
    return shown[:_SHOWN_CHARACTERS]
