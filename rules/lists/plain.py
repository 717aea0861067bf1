"""Plain lists: one domain a line, which is denied with all below; or one address or network."""

import re
from collections.abc import Iterator

from rules.lists.layout import Scope
from rules.lists.trigger import Lines, Tally, Trigger, read_subject

_COMMENT = re.compile(r"[#;!].*|//.*", re.DOTALL)  # no domain holds one of these, nor a network


def read_plain(lines: Lines, tally: Tally) -> Iterator[Trigger]:
    """Yield what plain lists deny; `*.` and `.` before a domain say nothing that it does not."""
    for line, text in lines:
        word = _COMMENT.sub("", text).strip()
        if not word:
            continue
        domain = word.removeprefix("*").removeprefix(".") if word[0] in "*." else word
        found = read_subject(line, text, domain, Scope.BOTH, tally)
        if found is not None:
            yield found
