"""What comes with an ALLOW, read into what a tunnel or a request must obey.  Pure.

An obligation that is not known here is a denial: it does not pass the type checker, and at
run time it yields no `Passage` (XACML 3.0, section 7.18).
"""

from functools import lru_cache
from typing import assert_never

from msgspec import Struct, structs

from rules.decision import (
    Obligation,
    OnlyReadable,
    PeekTls,
    Resolve,
    TunnelUnread,
    UpgradeTls,
    Watch,
)
from rules.rtype import AAAA, A


class Passage(Struct, frozen=True):
    """How an allowed origin may be reached.

    `unread`: tunnel without a look.  `only_readable`: nothing but HTTP that we can read.
    `types`: the record types that the look-up may ask, of A and AAAA.  `upgrade`: a request goes
    on over TLS or not at all; of a Connect, that requests may have to.
    """

    accept_ech: bool = False
    unread: bool = False
    only_readable: bool = False
    types: frozenset[int] = frozenset({A, AAAA})
    upgrade: UpgradeTls | None = None


_DEFAULT = Passage()


@lru_cache(maxsize=1024)  # of few combinations, and as many again as there are certificates
def read(obligations: tuple[Obligation, ...]) -> Passage | None:
    """Return the passage that a decision's obligations leave; None if one is not known."""
    passage = _DEFAULT
    try:
        for obligation in obligations:
            passage = _with(passage, obligation)
    except AssertionError:
        return None
    return passage


def _with(passage: Passage, obligation: Obligation) -> Passage:
    match obligation:
        case PeekTls(accept_ech=accept_ech):
            return structs.replace(passage, accept_ech=accept_ech)
        case TunnelUnread():
            return structs.replace(passage, unread=True)
        case OnlyReadable():
            return structs.replace(passage, only_readable=True)
        case Resolve(types=types):
            return structs.replace(passage, types=types & {A, AAAA})
        case UpgradeTls():
            return structs.replace(passage, upgrade=obligation)
        case Watch():  # of look-ups: `proxy.resolver.lookup` shows them to the detector
            return passage
        case _:
            assert_never(obligation)
