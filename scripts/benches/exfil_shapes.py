"""Tunnels of no published tool: small, plain-looking, spread out, or slow.

Each is a way around a rule that somebody published: short and low in entropy (query classifiers),
words (character statistics), many domains (per-domain counts), slow (short windows), known names
only (distinct names), answers (queries alone), and a spray that would wash a table clean.
"""

from random import Random

from rules.rtype import TXT, A
from scripts.benches.exfil_tools import Queries, Sent, Tunnel, seeded, zone
from scripts.benches.words import WORDS

MINUTE_S, HOUR_S = 60.0, 3600.0
DOMAINS = 50
EIGHT = "aeiost01"  # three bits a character, as low in entropy as text is


def _short(rng: Random) -> tuple[str, int]:
    """Return a label of nine octets and the bits it carries."""
    return "".join(rng.choices(EIGHT, k=9)), 27


def _words(rng: Random) -> tuple[str, int]:
    """Return a label of three words, seven bits each."""
    return "-".join(rng.choices(WORDS, k=3)), 21


def short_chunks(seed: int) -> Queries:
    """Yield nine octets of eight letters once a second: 2.85 bits of entropy a character."""
    rng = seeded(seed)
    below = zone(rng)
    for turn in range(1200):
        label, bits = _short(rng)
        yield Sent(float(turn), f"{label}.{below}", A, bits, bytes(4))


def dictionary(seed: int) -> Queries:
    """Yield three words a query, one query in two seconds."""
    rng = seeded(seed)
    below = zone(rng)
    for turn in range(1200):
        label, bits = _words(rng)
        yield Sent(turn * 2.0, f"{label}.{below}", A, bits, bytes(4))


def shared_prefixes(seed: int) -> Queries:
    """Yield a long label that all share and one character that differs: cheap if badly counted."""
    rng = seeded(seed)
    below = f"content-delivery-eu-central.{zone(rng)}"
    for turn in range(2400):
        label = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz234567", k=2))
        yield Sent(turn * 0.5, f"{turn % 10}.{label}.{below}", A, 10, bytes(4))


def over_fifty(seed: int) -> Queries:
    """Yield one payload over fifty domains, one after another, once a second."""
    rng = seeded(seed)
    zones = [zone(rng) for _ in range(DOMAINS)]
    for turn in range(1200):
        yield Sent(
            float(turn), f"{rng.randbytes(10).hex()}.{zones[turn % DOMAINS]}", A, 80, bytes(4)
        )


def slow(seed: int) -> Queries:
    """Yield twenty octets of hex a minute, for two days."""
    rng = seeded(seed)
    below = zone(rng)
    for turn in range(2 * 24 * 60):
        yield Sent(turn * MINUTE_S, f"{rng.randbytes(10).hex()}.{below}", A, 80, bytes(4))


def slow_short(seed: int) -> Queries:
    """Yield nine octets of eight letters a minute, for two days."""
    rng = seeded(seed)
    below = zone(rng)
    for turn in range(2 * 24 * 60):
        label, bits = _short(rng)
        yield Sent(turn * MINUTE_S, f"{label}.{below}", A, bits, bytes(4))


def slow_over_fifty(seed: int) -> Queries:
    """Yield twenty octets of hex a minute, over fifty domains, for two days."""
    rng = seeded(seed)
    zones = [zone(rng) for _ in range(DOMAINS)]
    for turn in range(2 * 24 * 60):
        name = f"{rng.randbytes(10).hex()}.{zones[turn % DOMAINS]}"
        yield Sent(turn * MINUTE_S, name, A, 80, bytes(4))


def behind_spray(seed: int) -> Queries:
    """Yield the slow one, hidden by fifteen names of other zones a minute."""
    rng = seeded(seed)
    below = zone(rng)
    for turn in range(24 * 60):
        at_s = turn * MINUTE_S
        yield Sent(at_s, f"{rng.randbytes(10).hex()}.{below}", A, 80, bytes(4))
        for other in range(15):
            yield Sent(at_s + 1 + other, f"www.{zone(rng)}", A, 0, bytes(4), is_cover=True)


def choice(seed: int) -> Queries:
    """Yield one of 256 short names a second, of time-to-live 0: only the choice says anything."""
    rng = seeded(seed)
    below = zone(rng)
    for turn in range(7200):
        yield Sent(float(turn), f"{rng.randrange(256):x}.{below}", A, 8, bytes(4))


def answers(seed: int) -> Queries:
    """Yield what fetches: a counter in the name, 200 octets of TXT in the answer."""
    rng = seeded(seed)
    below = zone(rng)
    for turn in range(1200):
        yield Sent(turn * 0.5, f"{turn}.{below}", TXT, 0, rng.randbytes(200))


def below_limits(seed: int) -> Queries:
    """Yield two octets of text a minute for two days: less than what any window holds."""
    rng = seeded(seed)
    below = zone(rng)
    for turn in range(2 * 24 * 20):
        label = "".join(rng.choices(EIGHT, k=5))
        yield Sent(turn * 3 * MINUTE_S, f"{label}.{below}", A, 15, bytes(4))


SHAPES = (
    Tunnel("9 octets, low entropy", "1 a second", short_chunks),
    Tunnel("dictionary words", "1 in 2 s", dictionary),
    Tunnel("shared prefixes", "2 a second", shared_prefixes),
    Tunnel("over 50 domains", "1 a second", over_fifty),
    Tunnel("slow", "1 a minute", slow, is_slow=True),
    Tunnel("slow, 9 octets", "1 a minute", slow_short, is_slow=True),
    Tunnel("slow, over 50 domains", "1 a minute", slow_over_fifty, is_slow=True),
    Tunnel("slow, behind a spray", "1 + 15 a minute", behind_spray, is_slow=True),
    Tunnel("choice of 256 names", "1 a second", choice, is_slow=True, is_choice=True),
    Tunnel("answers (TXT)", "2 a second", answers),
)
UNCAUGHT = (Tunnel("below every limit", "1 in 3 min", below_limits, is_slow=True),)
