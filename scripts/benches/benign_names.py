"""Ordinary names of ordinary hosts, made up from a seed in the shapes that real ones have.

Measured in public lists of popular names (their statistics alone are here): length of registrable
domains (10 / 13 / 18 / 29 octets at the 1st quartile, median, 3rd quartile, 90 %), suffixes by
frequency, length of labels (2 / 5 / 10 / 16 octets), depth (half have one label, a fifth two, a
tenth three), the commonest labels, and the shapes that large operators give their hosts.
docs/detection.md says of each shape where it comes from.
"""

import zlib
from collections.abc import Callable
from random import Random

from msgspec import Struct

from rules.name import DomainName
from rules.suffix import PublicSuffixes
from scripts.benches.exfil_tools import seeded
from scripts.benches.words import WORDS

HOLD_OUT, TRAIN = 1, 0
LETTERS = "abcdefghijklmnopqrstuvwxyz"
DIGITS = "0123456789"
HEX = "0123456789abcdef"
ALNUM = LETTERS + DIGITS
SUFFIXES, WEIGHTS = zip(
    *(("com", 460), ("net", 70), ("io", 35), ("org", 22), ("co", 8), ("ru", 8), ("ai", 8)),
    *(("cn", 8), ("com.br", 8), ("co.uk", 7), ("edu", 6), ("de", 6), ("jp", 6), ("app", 6)),
    *(("cloud", 5), ("me", 5), ("us", 4), ("gov", 4), ("tv", 4), ("it", 4), ("ca", 4), ("eu", 3)),
    *(("fr", 3), ("com.au", 3), ("nl", 3), ("dev", 3), ("co.jp", 3), ("in", 2), ("xyz", 2)),
    strict=True,
)
COMMON = (
    *("www", "api", "cdn", "static", "assets", "img", "images", "media", "m", "app", "auth"),
    *("login", "js", "data", "web", "ads", "events", "analytics", "s", "c", "i", "mail", "shop"),
)
REGIONS = ("us-east-1", "us-west-2", "eu-west-1", "eu-central-1", "ap-northeast-1", "sa-east-1")
SITES_OF_A_PUBLISHER = ("fra2", "ams1", "sjc4", "nyc3", "sin1", "gru2", "jfk2", "hou1")

type Host = tuple[DomainName, int]  # and for how long its answers stand, in seconds


class World(Struct, frozen=True):
    """One half of the domains: nothing of the other is asked in it."""

    half: int
    suffixes: PublicSuffixes

    def holds(self, name: str) -> bool:
        """Return whether the registrable domain of `name` is of this half (CRC-32, last bit)."""
        registrable = self.suffixes.registrable(DomainName(name)) or name
        return zlib.crc32(registrable.encode()) & 1 == self.half

    def draw(self, make: Callable[[], str]) -> DomainName:
        """Return the first name that `make` makes of this half."""
        while not self.holds(name := make()):
            pass
        return DomainName(name)


def text(rng: Random, letters: str, octets: int) -> str:
    """Return that many letters, drawn evenly."""
    return "".join(rng.choices(letters, k=octets))


def domain(rng: Random) -> str:
    """Return a registrable domain that a site might have."""
    kind = rng.random()
    if kind < 0.35:
        owner = rng.choice(WORDS) + rng.choice(WORDS)
    elif kind < 0.5:
        owner = f"{rng.choice(WORDS)}-{rng.choice(WORDS)}"
    elif kind < 0.75:
        owner = rng.choice(WORDS) + text(rng, LETTERS, rng.randint(2, 7))
    else:
        owner = rng.choice(WORDS) + rng.choice(WORDS) + text(rng, DIGITS, rng.randint(1, 3))
    return f"{owner}.{rng.choices(SUFFIXES, WEIGHTS)[0]}"


def label(rng: Random) -> str:
    """Return a label that is on nobody's list of common ones: median 10 octets, as measured."""
    kind = rng.random()
    if kind < 0.4:
        return f"{rng.choice(WORDS)}-{rng.choice(WORDS)}"
    if kind < 0.7:
        return f"{rng.choice(COMMON)}{rng.randint(1, 20)}"
    if kind < 0.85:
        return f"{rng.choice(COMMON)}-{rng.choice(REGIONS)}"
    return f"{rng.choice(WORDS)}-{rng.choice(SITES_OF_A_PUBLISHER)}"


def hashed_host(rng: Random) -> str:
    """Return a host that its operator names by hash, place or shard."""
    place = f"{rng.choice(('sn-', 'fra', 'sin', 'dfw'))}{text(rng, ALNUM, 8)}"
    region = rng.choice(REGIONS)
    shapes = (
        lambda: f"rr{rng.randint(1, 9)}---sn-{text(rng, ALNUM, 8)}.googlevideo.com",
        lambda: f"r{rng.randint(1, 9)}---{place}.gvt1.com",
        lambda: f"e2c{rng.randint(1, 99)}.gcp.gvt2.com",
        lambda: f"scontent-{place[:5]}-{rng.randint(1, 3)}.xx.fbcdn.net",
        lambda: f"scontent-{place[:5]}-{rng.randint(1, 3)}.cdninstagram.com",
        lambda: f"ipv4-c{rng.randint(1, 200):03}-{place[:6]}-isp.1.oca.nflxvideo.net",
        lambda: f"d{text(rng, ALNUM, 13)}.cloudfront.net",
        lambda: f"a{rng.randint(1, 1999)}.b.akamai.net",
        lambda: f"e{rng.randint(1000, 29999)}.dsc{rng.choice('abcdefgx')}.akamaiedge.net",
        lambda: f"{rng.choice(WORDS)}-{rng.choice(WORDS)}-com.akamaized.net",
        lambda: f"{rng.choice(WORDS)}.map.fastly.net",
        lambda: f"sun9-{rng.randint(1, 99)}.vkuserphoto.ru",
        lambda: f"{rng.choice(WORDS)}-{text(rng, ALNUM, 16)}.b01.azurefd.net",
        lambda: f"{rng.randint(10**9, 10**10)}.rsc.cdn77.org",
        lambda: f"{text(rng, ALNUM, 12)}.execute-api.{region}.amazonaws.com",
    )
    return rng.choice(shapes)()


def bucket(rng: Random) -> str:
    """Return a bucket, a blob store or the like: one name of a tenant."""
    owner = f"{rng.choice(WORDS)}-{rng.choice(WORDS)}"
    region = rng.choice(REGIONS)
    shapes = (
        lambda: f"{owner}-{rng.choice(COMMON)}.s3.amazonaws.com",
        lambda: f"{owner}-prod.s3.{region}.amazonaws.com",
        lambda: f"{owner.replace('-', '')}{rng.randint(1, 99)}.blob.core.windows.net",
        lambda: f"{owner}.storage.googleapis.com",
        lambda: f"{text(rng, HEX, 32)}.r2.cloudflarestorage.com",
        lambda: f"{owner}-1{text(rng, DIGITS, 9)}.cos.ap-beijing.myqcloud.com",
    )
    return rng.choice(shapes)()


def beacon(rng: Random) -> str:
    """Return what a page or a program reports to: a project, a tenant or an instance in it."""
    instance = f"{text(rng, HEX, 8)}-{text(rng, HEX, 4)}-{text(rng, HEX, 4)}"
    shapes = (
        lambda: f"o{rng.randint(10**4, 10**7)}.ingest.sentry.io",
        lambda: f"o{rng.randint(10**15, 10**16)}.ingest.us.sentry.io",
        lambda: f"{rng.randint(10**6, 10**7)}.fls.doubleclick.net",
        lambda: f"{rng.choice(WORDS)}{rng.choice(WORDS)}.sc.omtrdc.net",
        lambda: f"{rng.randint(10**9, 10**10)}.sdk-hb.smaato.net",
        lambda: f"{instance}-{text(rng, HEX, 12)}.prmutv.co",
        lambda: f"{text(rng, ALNUM, 12)}.appsflyersdk.com",
        lambda: f"{instance}.monitor.azure.com",
        lambda: f"{text(rng, ALNUM, 14)}-ats.iot.{rng.choice(REGIONS)}.amazonaws.com",
        lambda: f"{text(rng, HEX, 32)}.nel.measure.office.net",
    )
    return rng.choice(shapes)()


def first_party(rng: Random, base: str) -> list[tuple[str, int]]:
    """Return the hosts of one site: `www`, a common name or two, and with luck one of its own."""
    hosts = [(f"www.{base}" if rng.random() < 0.8 else base, 300)]
    hosts += [(f"{name}.{base}", 600) for name in rng.sample(COMMON[1:], rng.choice((0, 1, 1, 2)))]
    if rng.random() < 0.2:
        hosts.append((f"{label(rng)}.{base}", 300))
    if rng.random() < 0.05:
        hosts += [(f"img-{text(rng, HEX, 6)}.{base}", 3600) for _ in range(rng.randint(1, 4))]
    return hosts


class Web(Struct, frozen=True):
    """Third parties of the web, the most popular first, and what is on their hosts."""

    parties: list[list[Host]]
    weights: list[float]


def web(seed: int, world: World, parties: int = 300) -> Web:
    """Return third parties: one to twelve hosts each, asked after Zipf's law."""
    rng = seeded(seed)
    found: list[list[Host]] = []
    for _ in range(parties):
        base = world.draw(lambda: domain(rng))
        names = {f"{rng.choice(COMMON)}.{base}"}
        names |= {f"{label(rng)}.{base}" for _ in range(int(rng.paretovariate(1.2)) % 12)}
        found.append([(DomainName(name), rng.choice((30, 60, 300, 300))) for name in sorted(names)])
    return Web(found, [1 / (rank + 3) for rank in range(parties)])
