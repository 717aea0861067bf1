"""What a question would cost below each of its suffixes, and which limit it would pass."""

from collections.abc import Iterable

from msgspec import Struct

from rules import rtype as types
from rules.account import Account
from rules.budget import Limits, Passed, passed
from rules.common_labels import COMMON_LABELS
from rules.name import ROOT, DomainName
from rules.novelty import KNOWN, NAMED, digest_of, octets_after, thinned
from rules.popularity import Popularity
from rules.subname import Splitter
from rules.tally import ANSWERS, CHOICE, NAMES, Limited, Tally
from rules.tiers import ORDINARY, POPULAR, Tiers
from rules.window import Meter, add, meter

_DAY_TICKS = 8640
_USUAL_TYPES = frozenset({types.A, types.AAAA, types.HTTPS})
_USUAL_BITS, _ANY_BITS = 1, 8  # tell which of three types, or of all
_EMPTY = meter(0)


class Part:
    """A look-up below one of its suffixes: octets of what is new, or bits of a choice.

    `thin` is what the octets are worth in the sum over all suffixes.
    """

    __slots__ = ("bits", "limits", "octets", "reach", "sub", "tally", "thin", "tier")

    def __init__(self, tally: Tally, sub: str, tier: str, limits: Limited) -> None:
        self.tally, self.sub, self.tier, self.limits = tally, sub, tier, limits
        self.octets = self.bits = self.thin = self.reach = 0


class Over(Struct, frozen=True):
    """A limit that would be passed; `bit` says of what."""

    tally: Tally
    tier: str
    bit: int
    passed: Passed


class Scales:
    """Weighs questions and answers; counts what goes."""

    def __init__(
        self,
        splitter: Splitter,
        tiers: Tiers,
        popularity: Popularity,
        limits: tuple[Limited, Limited, Limited],
    ) -> None:
        self._splitter, self._tiers, self._popularity = splitter, tiers, popularity
        self._ordinary, self._wide, self._whole = limits
        self.counted = {NAMES: 0, ANSWERS: 0, CHOICE: 0}  # octets, and bits of choices

    def parts(self, account: Account, name: DomainName, now: float, tick: int) -> list[Part]:
        """Return the suffixes of `name`, moved to `now`; the one at the ICANN level is first."""
        found, rows = [], self._popularity.rows
        for suffix, sub in self._splitter.split(name):
            tally = account.tally(suffix, self._tiers, now, tick)
            tier = tally.tier
            if tier == ORDINARY:
                asked = rows.get(suffix)
                # What no two apps asked on a day is not popular: nearly everything.
                if asked is not None and asked.days:
                    tier = self.tier(tally, tick)
            limits = self._ordinary if tier == ORDINARY else self._wide
            if tally.told:
                tally.rearm(limits)
            found.append(Part(tally, sub, tier, limits))
        whole = account.whole
        if tick > whole.tick:
            whole.move_to(now, tick)
        if whole.told:
            whole.rearm(self._whole)
        return found

    def tier(self, tally: Tally, tick: int) -> str:
        """Return the list that a suffix stands on, or how else it came by its limits."""
        is_listed = tally.tier != ORDINARY
        if not is_listed and self._popularity.is_popular(tally.suffix, tick // _DAY_TICKS):
            return POPULAR
        return tally.tier

    def weigh(self, account: Account, parts: list[Part], rtype: int, *, is_named: bool) -> bool:
        """Say of each part what a question costs there; what is named was chosen by an admin.

        Return whether it would pass a limit: if not, nobody has to ask which.
        """
        type_bits = _USUAL_BITS if rtype in _USUAL_TYPES else _ANY_BITS
        is_over = False
        for part in parts:
            tally, sub = part.tally, part.sub
            known = tally.known
            reach = part.reach = NAMED if is_named else known.reach(sub)
            if reach < 0:
                part.bits = _choices(len(known.fresh) + len(known.old))
                # Who asks for a name that an admin wrote asks for A and AAAA, one as the other.
                if reach != NAMED or type_bits != _USUAL_BITS:
                    part.bits += type_bits
                of, amount, limits = tally.choice or _EMPTY, part.bits, part.limits.choice
            else:
                _weigh_new(part, known.branch())
                # A limit of alerts is never above the hard one.
                of, amount, limits = tally.names, part.octets, part.limits.alert
            if (
                of[1] + amount > limits.two_minutes
                or of[2] + amount > limits.hour
                or of[3] + amount > limits.day
            ):
                is_over = True
        first = _summed(parts)
        if first is None:
            return is_over
        if not first.tally.queries and not is_named:
            first.thin += 1  # which suffix it is that is asked for the first time
        return is_over or self._is_over_all(account, first)

    def _is_over_all(self, account: Account, first: Part) -> bool:
        whole = account.whole
        if first.reach < 0:
            bits = _bits_of_all(account, first)
            if _is_over(whole.choice or _EMPTY, bits, self._whole.choice):
                return True
        return first.thin > 0 and _is_over(whole.names, first.thin, self._whole.block)

    def over(self, account: Account, parts: list[Part]) -> list[Over]:
        """Return the hard limits that a question would pass; what blocks comes first."""
        found: list[Over] = []
        for part in parts:
            over = part.octets and passed(part.tally.names, part.octets, part.limits.block)
            if over:
                found.append(Over(part.tally, part.tier, NAMES, over))
        for part in parts:
            over = part.bits and passed(part.tally.choice or _EMPTY, part.bits, part.limits.choice)
            if over:
                found.append(Over(part.tally, part.tier, CHOICE, over))
        first = _summed(parts)
        if first is not None:
            self._over_all(found, account, first)
        return found

    def _over_all(self, found: list[Over], account: Account, first: Part) -> None:
        whole, limits = account.whole, self._whole
        if first.reach < 0:
            bits = _bits_of_all(account, first)
            over = passed(whole.choice or _EMPTY, bits, limits.choice)
            if over is not None:
                found.append(Over(whole, ORDINARY, CHOICE, over))
        over = passed(whole.names, first.thin, limits.block) if first.thin else None
        if over is not None:
            found.append(Over(whole, ORDINARY, NAMES, over))

    def loud(self, parts: list[Part]) -> list[Over]:
        """Return the alert limits that a question would pass."""
        found: list[Over] = []
        for part in parts:
            over = part.octets and passed(part.tally.names, part.octets, part.limits.alert)
            if over:
                found.append(Over(part.tally, part.tier, NAMES, over))
        return found

    def count(self, account: Account, parts: list[Part], rtype: int, tick: int) -> None:
        """Count a question that is sent."""
        changed, day = account.changes.keys, tick // _DAY_TICKS
        for part in parts:
            tally = part.tally
            if part.octets:
                add(tally.names, part.octets)
            elif tally.choice is None:
                tally.choice = _more(None, part.bits, tick)
            else:
                add(tally.choice, part.bits)
            if part.reach != KNOWN:
                tally.known.add(part.sub)
            tally.queries += 1
            if rtype not in _USUAL_TYPES:
                tally.others += 1
            if part.reach == NAMED:  # what was chosen of an admin's names may be forgotten
                continue
            changed.setdefault(tally.suffix, tally.is_stored)
            if tally.tier == ORDINARY:
                self._popularity.note(tally.suffix, account.app, day)
        self._count_all(account, parts, tick)

    def _count_all(self, account: Account, parts: list[Part], tick: int) -> None:
        whole, first, summed = account.whole, parts[0], _summed(parts)
        whole.queries += 1
        if first.octets:
            self.counted[NAMES] += first.octets
        else:
            self.counted[CHOICE] += first.bits
        if summed is not None:
            if summed.thin:
                account.spend(summed.tally.suffix, summed.sub, summed.thin, tick)
            if summed.reach < 0:
                whole.choice = _more(whole.choice, _bits_of_all(account, summed), tick)
        if first.reach != NAMED:
            account.changes.keys.setdefault(ROOT, whole.is_stored)

    def answer_over(self, parts: list[Part], *, is_loud: bool) -> list[Over]:
        """Return the limits that an answer would pass, the hard ones or those of alerts."""
        found: list[Over] = []
        for part in parts:
            limits = part.limits.answers_alert if is_loud else part.limits.answers_block
            over = part.octets and passed(part.tally.answers or _EMPTY, part.octets, limits)
            if over:
                found.append(Over(part.tally, part.tier, ANSWERS, over))
        return found

    def count_answer(
        self, account: Account, parts: list[Part], digests: Iterable[bytes], tick: int
    ) -> None:
        """Count an answer that is handed on."""
        self.counted[ANSWERS] += parts[0].octets
        for part in parts:
            if part.octets:
                account.changed(part.tally)
                part.tally.answers = _more(part.tally.answers, part.octets, tick)
            for digest in digests:
                part.tally.records.add(digest)


def weigh_answer(parts: list[Part], rdata: Iterable[bytes]) -> list[bytes]:
    """Say of each part what an answer costs there; return the digests of its records."""
    octets = {digest_of(record): len(record) for record in rdata}
    for part in parts if octets else ():
        known = part.tally.records
        part.octets = sum(most for digest, most in octets.items() if not known.is_known(digest))
    return list(octets)


def _weigh_new(part: Part, branch: int) -> None:
    sub, reach = part.sub, part.reach
    octets = octets_after(sub, reach)
    part.octets = octets + branch
    if "." in sub:
        octets = thinned(sub, reach, COMMON_LABELS)
    elif octets and sub in COMMON_LABELS:
        octets = 1
    part.thin = octets + branch


def _is_over(of: Meter, amount: int, limits: Limits) -> bool:
    """Return whether `amount` more would pass any limit."""
    return (
        of[1] + amount > limits.two_minutes
        or of[2] + amount > limits.hour
        or of[3] + amount > limits.day
    )


def _more(of: Meter | None, amount: int, tick: int) -> Meter:
    more = meter(tick) if of is None else of
    add(more, amount)
    return more


def _bits_of_all(account: Account, first: Part) -> int:
    """Return the bits of a choice among all names of the app: which suffix, and which name."""
    return first.bits + _choices(len(account.table))


def _choices(among: int) -> int:
    """Return the bits that it takes to tell one of so many."""
    return (among - 1).bit_length() if among > 1 else 0


def _summed(parts: list[Part]) -> Part | None:
    """Return the part that counts in the sum over all suffixes: a tenant's, of a popular host."""
    return next((part for part in parts if part.tier == ORDINARY), None)
