"""What leaks through the look-ups that an app's rules allow, in octets (docs/detection.md).

A name costs what of it was not known before, below the suffix that somebody registered.  A known
name costs the choice of it.  Answers cost the octets of their records.  Each has a budget of two
minutes, an hour and a day, and the look-up that would pass a budget is not sent.

Time is an argument everywhere: `now` is Unix time, in seconds.  A clock that goes back stands still
here, so that nothing is forgotten too early.
"""

from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from typing import Literal

from msgspec import Struct

from rules import rtype as types
from rules.account import Account
from rules.accounts import Accounts
from rules.budget import Limits
from rules.evidence import evidence, samples
from rules.name import ROOT, DomainName
from rules.popularity import Popularity
from rules.ration import Ration
from rules.scales import Over, Scales, weigh_answer
from rules.subname import Splitter
from rules.suffix import PublicSuffixes
from rules.tally import ANSWERS, CHOICE, NAMES, Limited, Tally
from rules.tiers import Tiers
from rules.watch import Mode
from rules.window import TICK_S, WINDOWS, Meter, sums

type Direction = Literal["names", "answers", "choice"]

_DAY_S = 86400
_BITS = 8  # of an octet: choices are counted in bits
_ADDRESSES = frozenset({types.A, types.AAAA})
_DIRECTIONS: dict[int, Direction] = {NAMES: "names", ANSWERS: "answers", CHOICE: "choice"}

_UNITS: dict[int, int] = {CHOICE: _BITS}


class Outcome(IntEnum):
    """What comes of a look-up; a greater one is stricter.  What is above ALERT is not sent."""

    PASS = 0
    ALERT = 1  # it goes, and somebody is told
    RATE = 2  # refused until the window has moved on: known names, chosen too often
    BUDGET = 3  # refused until the window has moved on: the app's sum over its suffixes
    BLOCK = 4  # refused, and the suffix is held


class Finding(Struct, frozen=True):
    """Why a look-up is told of or refused.

    `octets` is what the window would hold with it.  `suffix` "." is the whole app.  `is_first`:
    nothing of the kind was said since the windows were last below half of the limits; only then is
    there evidence, because what is refused again and again has to be cheap.
    """

    outcome: Outcome
    app: str
    suffix: DomainName
    direction: Direction
    window: str
    octets: int
    limit: int
    tier: str
    evidence: dict[str, float]
    samples: tuple[str, ...]
    is_first: bool = True


class State(Struct, frozen=True):
    """What is known of an app's look-ups below a suffix; octets by window ("2m", "1h", "24h")."""

    app: str
    suffix: DomainName
    tier: str
    octets: dict[str, int]
    answers: dict[str, int]
    choice: dict[str, int]
    alerting: bool
    evidence: dict[str, float]
    samples: tuple[str, ...]
    names: int
    queries: int


class Sizes(Struct, frozen=True):
    """Every number of the detector; octets, where nothing else is said."""

    # Nadler, Aminov, Shabtai 2019 leave a tunnel about 1 KB an hour, Paxson et al. 2013 4 kB a day.
    alert: Limits = Limits(256, 512, 3072)
    block: Limits = Limits(512, 1024, 3072)
    # TCSEC calls a covert channel of 100 bit/s high; these are 68, 9 and 6 bit/s.
    choice: Limits = Limits(1024, 4096, 65536)
    app: Limits = Limits(512, 1024, 6144)
    given_back: int = 64  # in a day below a suffix that is connected to: a site has a few hosts
    app_choice: Limits = Limits(4096, 32768, 1 << 20)
    wide_factor: int = 16
    answer_factor: int = 16
    burn_in_s: int = _DAY_S
    # Ozery, Nadler, Shabtai 2024 follow 10,000 heavy hitters of a whole network.
    app_suffixes: int = 4096
    all_suffixes: int = 10_000
    floor_suffixes: int = 16
    app_known_octets: int = 4 << 20
    all_known_octets: int = 8 << 20
    floor_known_octets: int = 64 << 10
    popular_days: int = 7
    app_popular_rows: int = 2048
    all_popular_rows: int = 10_000


SIZES = Sizes()


class Detector:
    """Counts what leaves for each app below each suffix; all that it keeps is bounded (`Sizes`)."""

    def __init__(self, suffixes: PublicSuffixes, tiers: Tiers, sizes: Sizes = SIZES) -> None:
        self._splitter, self._burn_in_s = Splitter(suffixes), sizes.burn_in_s
        self._given_back = sizes.given_back
        popularity = Popularity(sizes.popular_days, sizes.app_popular_rows, sizes.all_popular_rows)
        self._accounts = Accounts(
            Ration(sizes.floor_suffixes, sizes.app_suffixes, sizes.all_suffixes),
            Ration(sizes.floor_known_octets, sizes.app_known_octets, sizes.all_known_octets),
            tiers,
            popularity,
        )
        self._scales = Scales(self._splitter, tiers, popularity, _limited(sizes))

    @property
    def bounds(self) -> dict[str, int]:
        """Return how often each bound was met."""
        return self._accounts.bounds()

    @property
    def counted(self) -> dict[Direction, int]:
        """Return the octets that were let go of, by direction; of a name at the ICANN level."""
        counted = self._scales.counted
        return {name: counted[bit] // _UNITS.get(bit, 1) for bit, name in _DIRECTIONS.items()}

    def ask(
        self, app: str, name: DomainName, rtype: int, *, is_named: bool, mode: Mode, now: float
    ) -> Finding | None:
        """Count a question that is about to leave; None: let it go, there is nothing new to say.

        `is_named`: an admin wrote the name, so that its octets cost nothing, only its choice.
        """
        if mode is Mode.OFF:
            return None
        tick, scales = int(now) // TICK_S, self._scales
        account = self._accounts.open(app, now)
        parts = scales.parts(account, name, now, tick)
        if not scales.weigh(account, parts, rtype, is_named=is_named):
            scales.count(account, parts, rtype, tick)
            return None
        over = scales.over(account, parts)
        if over and mode is Mode.BLOCK:
            return _refusal(account, name, over[0])
        loud = scales.loud(parts)
        scales.count(account, parts, rtype, tick)
        return self._alert(account, name, (over, loud), mode, now)

    def answered(  # noqa: PLR0913 - each argument is a fact of one answer
        self,
        app: str,
        name: DomainName,
        rtype: int,
        *,
        rdata: Sequence[bytes],
        is_nxdomain: bool,
        mode: Mode,
        now: float,
    ) -> Finding | None:
        """Count an answer: `rdata` of all its records but A; None: hand it on."""
        if mode is Mode.OFF:
            return None
        tick, scales = int(now) // TICK_S, self._scales
        account = self._accounts.open(app, now)
        parts = scales.parts(account, name, now, tick)
        digests = weigh_answer(parts, rdata)
        over = scales.answer_over(parts, is_loud=False)
        if over and mode is Mode.BLOCK:
            return _refusal(account, name, over[0])
        loud = scales.answer_over(parts, is_loud=True)
        scales.count_answer(account, parts, digests, tick)
        for part in parts:
            part.tally.nxdomains += is_nxdomain
            part.tally.resolved += rtype in _ADDRESSES and not is_nxdomain
        return self._alert(account, name, (over, loud), mode, now) if over or loud else None

    def connected(self, app: str, name: DomainName, now: float) -> None:
        """Learn that the app reaches for `name`: evidence, and no cost in the sum over suffixes.

        Of a suffix below which more was asked than a site has hosts nothing is given back.
        """
        account = self._accounts.find(app)
        if account is None:
            return
        for suffix, sub in self._splitter.split(name):
            tally = account.table.get(suffix)
            if tally is None:  # evicted since, as what is new is in a full table
                account.give_back(suffix, sub)
                continue
            tally.move_to(now, int(now) // TICK_S)
            if tally.known.octets <= self._given_back:  # its own: no inherited counts
                account.give_back(suffix, sub)
            if tally.connect(sub) and tally.is_stored:  # else what is asked has it written
                account.changed(tally)

    def clear(self, app: str, suffix: DomainName, now: float) -> bool:
        """Return whether anything was counted there; the counts start anew. "." is the whole app.

        What is known stays known.
        """
        account = self._accounts.find(app)
        tally = None if account is None else account.any(suffix)
        if account is None or tally is None:
            return False
        tally.clear(int(now) // TICK_S)
        if suffix == ROOT:
            account.forget_spent()
        account.changed(tally)
        return True

    def states(self, now: float) -> Iterator[State]:
        """Yield what is known: of each app the sum over all its suffixes first."""
        tick = int(now) // TICK_S
        for account in self._accounts:
            for tally in (account.whole, *account.table.values()):
                tally.move_to(now, tick)
                yield self._state(account.app, tally, tick)

    def state(self, app: str, suffix: DomainName, now: float) -> State | None:
        """Return what is known of a suffix, "." being all of an app; None: nothing."""
        account = self._accounts.find(app)
        tally = None if account is None else account.any(suffix)
        if tally is None:
            return None
        tick = int(now) // TICK_S
        tally.move_to(now, tick)
        return self._state(app, tally, tick)

    def changed(self) -> Iterator[tuple[str, str, bytes]]:
        """Yield the rows that changed since they were yielded last: app, suffix, row.

        An empty row says that there is none any more.  Rows of an app itself have the suffix ".",
        rows of what all apps ask for have the app "".  It may be left off and taken up again.
        """
        return self._accounts.changed()

    def restore(self, rows: Iterable[tuple[str, str, bytes]], now: float) -> None:
        """Take in the rows that `changed` gave, in any order."""
        self._accounts.restore(rows, now)

    def _state(self, app: str, tally: Tally, tick: int) -> State:
        return State(
            app=app,
            suffix=tally.suffix,
            tier=self._scales.tier(tally, tick),
            octets=sums(tally.names),
            answers=_sums(tally.answers),
            choice=_sums(tally.choice, _BITS),
            alerting=tally.told != 0,
            evidence=evidence(tally),
            samples=samples(tally),
            names=len(tally.known),
            queries=tally.queries,
        )

    def _alert(
        self,
        account: Account,
        name: DomainName,
        limits: tuple[Sequence[Over], Sequence[Over]],
        mode: Mode,
        now: float,
    ) -> Finding | None:
        """Return the first limit that nobody was told of; what is only observed is noted."""
        for hard in (True, False):
            for over in limits[not hard]:
                if not _is_first(over, hard=hard) or mode is Mode.OBSERVE:
                    continue
                # What an app does in its first day is its habit, but hard limits hold.
                if hard or now >= account.since + self._burn_in_s:
                    return _finding(Outcome.ALERT, account.app, name, over)
        return None


def _refusal(account: Account, name: DomainName, over: Over) -> Finding:
    outcome = Outcome.BLOCK
    if over.bit == CHOICE:
        outcome = Outcome.RATE
    elif over.tally.suffix == ROOT:
        outcome = Outcome.BUDGET
    account.changed(over.tally)
    is_first = _is_first(over, hard=True)
    return _finding(outcome, account.app, name, over, is_first=is_first)


def _is_first(over: Over, *, hard: bool) -> bool:
    """Return whether nobody was told of it yet; after a hard limit nobody is told of a lesser."""
    bits = over.bit * 3 if hard else over.bit
    is_first = not over.tally.told & (over.bit * 2 if hard else over.bit)
    over.tally.told |= bits
    return is_first


def _finding(
    outcome: Outcome, app: str, name: DomainName, over: Over, *, is_first: bool = True
) -> Finding:
    tally, passed = over.tally, over.passed
    unit = _UNITS.get(over.bit, 1)
    return Finding(
        outcome=outcome,
        app=app,
        suffix=tally.suffix,
        direction=_DIRECTIONS[over.bit],
        window=passed.window,
        octets=passed.amount // unit,
        limit=passed.limit // unit,
        tier=over.tier,
        evidence=evidence(tally) if is_first else {},
        samples=samples(tally, name) if is_first else (name,),
        is_first=is_first,
    )


def _sums(of: Meter | None, unit: int = 1) -> dict[str, int]:
    octets = dict.fromkeys(WINDOWS, 0) if of is None else sums(of)
    return {window: amount // unit for window, amount in octets.items()}


def _limited(sizes: Sizes) -> tuple[Limited, Limited, Limited]:
    """Return the limits of ordinary suffixes, of those of the second tier, and of an app."""
    wide, more = sizes.wide_factor, sizes.answer_factor
    ordinary = Limited(
        alert=sizes.alert,
        block=sizes.block,
        answers_alert=sizes.alert.times(more),
        answers_block=sizes.block.times(more),
        choice=sizes.choice.times(_BITS),
    )
    whole = Limited(sizes.app, sizes.app, sizes.app, sizes.app, sizes.app_choice.times(_BITS))
    return ordinary, ordinary.times(wide), whole
