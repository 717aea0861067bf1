"""What ordinary apps ask in an hour: browsers, builds, coding agents, services, mail.

Every rate is a plain number below; docs/detection.md lists them.
"""

from random import Random
from typing import Protocol

from rules.name import DomainName
from rules.rtype import AAAA, HTTPS, MX, PTR, SRV, TXT, A
from scripts.benches import benign_names as names
from scripts.benches.benign_names import COMMON, HEX, Host, Web, World, text
from scripts.benches.exfil_tools import seeded
from scripts.benches.words import WORDS

HOUR_S = 3600.0
RESOLVES, CONNECTS, NXDOMAIN = range(3)

type Query = tuple[float, int, DomainName, int, int, int]
"""When (seconds from the start), app, name, type, time-to-live, what comes of it."""


class App(Protocol):
    """Something that asks."""

    def hour(self, number: int, out: list[Query]) -> None:
        """Put the questions of one hour into `out`, in any order."""


class Asking:
    """What all apps do: look a host up and connect to it."""

    def __init__(self, index: int, seed: int, world: World) -> None:
        self.index, self.world = index, world
        self.rng: Random = seeded(seed * 1009 + index)

    def reach(self, at_s: float, host: Host, out: list[Query], *, https: bool = False) -> None:
        """Look up both families, as getaddrinfo(3) does, and HTTPS, as browsers do."""
        name, ttl_s = host
        out.append((at_s, self.index, name, A, ttl_s, CONNECTS))
        out.append((at_s, self.index, name, AAAA, ttl_s, CONNECTS))
        if https:
            out.append((at_s, self.index, name, HTTPS, ttl_s, RESOLVES))

    def tell(self, at_s: float, name: str, rtype: int, out: list[Query], ttl_s: int = 300) -> None:
        """Look up one record; nobody connects."""
        out.append((at_s, self.index, DomainName(name), rtype, ttl_s, RESOLVES))

    def drawn(self, shape: str, count: int, ttl_s: int) -> list[Host]:
        """Return new hosts of one shape of `benign_names`."""
        make = getattr(names, shape)
        return [(self.world.draw(lambda: make(self.rng)), ttl_s) for _ in range(count)]


class Browser(Asking):
    """An agent that reads the web: 42 sites an hour that it has not seen, 40 that it has."""

    NEW, AGAIN, AWAKE_HOURS = 42, 40, 12

    def __init__(self, index: int, seed: int, world: World, web: Web) -> None:
        super().__init__(index, seed, world)
        self.web = web
        self.seen: list[list[Host]] = []
        self.wakes = self.rng.randrange(24)

    def site(self) -> list[Host]:
        """Return the hosts of a site not seen before."""
        rng = self.rng
        base = self.world.draw(lambda: names.domain(rng))
        hosts = [(DomainName(name), ttl_s) for name, ttl_s in names.first_party(rng, base)]
        for shape, share, ttl_s in (
            ("hashed_host", 0.1, 60),
            ("bucket", 0.05, 300),
            ("beacon", 0.04, 300),
        ):
            if rng.random() < share:
                hosts += self.drawn(shape, 1, ttl_s)
        self.seen.append(hosts)
        return hosts

    def page(self, at_s: float, hosts: list[Host], out: list[Query]) -> None:
        """Load a page: its own hosts, three to twelve third parties, now and then fresh names."""
        rng = self.rng
        wanted = list(hosts)
        parties = rng.choices(self.web.parties, self.web.weights, k=rng.randint(3, 12))
        wanted += map(rng.choice, parties)
        if rng.random() < 0.04:  # a video: edge caches named by place
            wanted += self.drawn("hashed_host", rng.randint(2, 3), 60)
        if rng.random() < 0.02:  # a measurement with a name of its own
            wanted += self.drawn("beacon", 1, 5)
        for host in wanted:
            self.reach(at_s + rng.random() * 3, host, out, https=True)

    def hour(self, number: int, out: list[Query]) -> None:
        """Read for twelve hours of the day."""
        if (number + self.wakes) % 24 >= self.AWAKE_HOURS:
            return
        rng, began = self.rng, number * HOUR_S
        for _ in range(self.NEW):
            self.page(began + rng.random() * HOUR_S, self.site(), out)
        for _ in range(self.AGAIN):
            self.page(began + rng.random() * HOUR_S, rng.choice(self.seen), out)


class Builder(Asking):
    """Continuous integration: three builds an hour that install packages and pull images."""

    KINDS = (
        ("registry", "cdn"),  # npm
        ("files", "index", "simple"),  # pip
        ("index", "static", "crates"),  # cargo
        ("archive", "security", "deb"),  # apt
        ("registry-1", "auth", "production.cdn"),  # images
        ("git", "codeload", "objects", "raw", "api", "uploads"),
        ("proxy", "sum", "storage"),  # modules
    )

    def __init__(self, index: int, seed: int, world: World) -> None:
        super().__init__(index, seed, world)
        rng = self.rng
        self.hosts: list[Host] = []
        for kind in self.KINDS:
            base = world.draw(lambda: names.domain(rng))
            self.hosts += [(DomainName(f"{label}.{base}"), 60) for label in kind]
        self.hosts += self.drawn("bucket", 6, 60) + self.drawn("hashed_host", 4, 60)

    def hour(self, number: int, out: list[Query]) -> None:
        """Build at three moments."""
        rng = self.rng
        for _ in range(3):
            began = (number + rng.random()) * HOUR_S
            for host in rng.choices(self.hosts, k=60):
                self.reach(began + rng.random() * 240, host, out)
            apt = self.hosts[8][0]
            self.tell(began, f"_http._tcp.{apt}", SRV, out)
            fresh = self.drawn("bucket", 1, 60) if rng.random() < 0.3 else []  # a layer's store
            if rng.random() < 0.3:
                fresh += self.drawn("beacon", 1, 60)  # the runner's own telemetry
            if rng.random() < 0.1:  # what an install script fetches
                base = self.world.draw(lambda: names.domain(rng))
                fresh.append((DomainName(f"dl.{base}"), 300))
            for host in fresh:
                self.reach(began + 100, host, out)


class Coder(Asking):
    """A coding agent: a model's API every 4 s, git, packages, five pages of documents an hour."""

    def __init__(self, index: int, seed: int, world: World, web: Web) -> None:
        super().__init__(index, seed, world)
        self.builds = Builder(index, seed + 1, world)
        self.browser = Browser(index, seed + 2, world, web)
        rng = self.rng
        model = world.draw(lambda: names.domain(rng))
        self.model: list[Host] = [(DomainName(f"api.{model}"), 60), (DomainName(model), 300)]
        self.telemetry = self.drawn("beacon", 2, 60)

    def hour(self, number: int, out: list[Query]) -> None:
        """Work for ten hours of the day."""
        rng, began = self.rng, number * HOUR_S
        if number % 24 >= 10:
            return
        for turn in range(900):
            self.reach(began + turn * 4, self.model[0], out)
        for _ in range(30):
            self.reach(began + rng.random() * HOUR_S, rng.choice(self.telemetry), out)
        for _ in range(5):
            self.browser.page(began + rng.random() * HOUR_S, self.browser.site(), out)
        self.builds.hour(number, out)


class Service(Asking):
    """Services of a cluster: five search domains before each name, SRV, stores, ACME."""

    CLUSTERS, INNER = ("cluster", "k8s", "kube"), ("local", "internal", "lan")
    EXTERNAL, CALLS, CONNECTIONS = 14, 120, 4

    def __init__(self, index: int, seed: int, world: World) -> None:
        super().__init__(index, seed, world)
        rng = self.rng
        owners = (*self.CLUSTERS, rng.choice(WORDS))
        cluster = world.draw(lambda: f"{rng.choice(owners)}.{rng.choice(self.INNER)}")
        space = f"{rng.choice(WORDS)}-prod"
        region = rng.choice(names.REGIONS)
        self.search = (f"{space}.svc.{cluster}", f"svc.{cluster}", cluster)
        self.near = [f"{name}.{space}.svc.{cluster}" for name in rng.sample(WORDS, 12)]
        self.mine = world.draw(lambda: names.domain(rng))
        self.compute = f"{rng.choice(names.REGIONS)}.compute.{self.mine}"
        self.far: list[Host] = [
            (DomainName(f"{rng.choice(COMMON)}.{world.draw(lambda: names.domain(rng))}"), 60)
            for _ in range(self.EXTERNAL - 6)
        ]
        self.far += self.drawn("bucket", 3, 5) + self.drawn("hashed_host", 1, 60)
        self.far += self.drawn("beacon", 1, 60)
        if world.holds(sts := f"sts.{region}.amazonaws.com"):
            self.far.append((DomainName(sts), 60))

    def hour(self, number: int, out: list[Query]) -> None:
        """Call neighbours, call out (with the search list first), renew certificates."""
        rng, began = self.rng, number * HOUR_S
        for _ in range(self.CALLS):
            at_s = began + rng.random() * HOUR_S
            near = (DomainName(rng.choice(self.near)), 5)
            for turn in range(self.CONNECTIONS):
                self.reach(at_s + turn / 4, near, out)
        for _ in range(self.CALLS // 2):
            at_s = began + rng.random() * HOUR_S
            name, ttl_s = rng.choice(self.far)
            tried = [DomainName(f"{name}.{base}") for base in (*self.search, self.compute)]
            for wrong in tried:
                out += [(at_s, self.index, wrong, rtype, 30, NXDOMAIN) for rtype in (A, AAAA)]
            self.reach(at_s, (name, ttl_s), out)
        for _ in range(20):
            at_s = began + rng.random() * HOUR_S
            self.tell(at_s, f"_grpc._tcp.{rng.choice(self.near)}", SRV, out, 5)
        pod = f"10-244-{rng.randint(0, 9)}-{rng.randint(2, 250)}.{self.near[0]}"
        self.reach(began + rng.random() * HOUR_S, (DomainName(pod), 5), out)
        tenant = f"_acme-challenge.{rng.choice(WORDS)}{rng.randint(1, 99)}.{self.mine}"
        self.tell(began + rng.random() * HOUR_S, tenant, TXT, out, 5)
        if rng.random() < 0.1:
            self.far.append(self.drawn("bucket", 1, 5)[0])


class Mail(Asking):
    """A triage of mail: 40 messages an hour; SPF, DKIM, DMARC, block lists, PTR, files' hashes."""

    MESSAGES, SENDERS_A_DAY = 40, 150
    SELECTORS = ("google", "selector1", "selector2", "s1", "k1", "mail", "dkim", "default", "smtp")
    ADDRESS_LISTS = (
        *("zen.spamhaus.org", "bl.spamcop.net", "b.barracudacentral.org"),
        *("psbl.surriel.com", "bl.mailspike.net", "origin.asn.cymru.com"),
    )
    NAME_LISTS = ("dbl.spamhaus.org", "multi.surbl.org", "multi.uribl.com")
    FILES = ("malware.hash.cymru.com", "avqs.mcafee.com", "4.1.sophosxl.net", "e5.sk")

    def __init__(self, index: int, seed: int, world: World) -> None:
        super().__init__(index, seed, world)
        self.senders = [self.sender() for _ in range(300)]

    def sender(self) -> tuple[str, str]:
        """Return a domain that writes and its selector."""
        rng = self.rng
        selector = rng.choice(self.SELECTORS) if rng.random() < 0.8 else text(rng, HEX, 12)
        return self.world.draw(lambda: names.domain(rng)), selector

    def message(self, at_s: float, out: list[Query]) -> None:
        """Ask what a filter asks of one message."""
        rng = self.rng
        if rng.random() < self.SENDERS_A_DAY / 24 / self.MESSAGES:
            self.senders[rng.randrange(len(self.senders))] = self.sender()
        base, selector = rng.choice(self.senders)
        for name, rtype in (
            *((base, MX), (base, TXT), (f"_dmarc.{base}", TXT), (f"_spf.{base}", TXT)),
            *((f"{selector}._domainkey.{base}", TXT), (f"_mta-sts.{base}", TXT)),
        ):
            self.tell(at_s, name, rtype, out, 3600)
        back = (
            f"{rng.randint(1, 254)}.{rng.randint(0, 60)}.{rng.randint(0, 30)}.{rng.randint(1, 223)}"
        )
        for zone in self.ADDRESS_LISTS:
            self.maybe(at_s, f"{back}.{zone}", out)
        for zone in self.NAME_LISTS:
            self.maybe(at_s, f"{base}.{zone}", out)
        self.maybe(at_s, f"{back}.in-addr.arpa", out, PTR)
        if rng.random() < 0.3:
            self.maybe(at_s, f"{text(rng, HEX, 32)}.{rng.choice(self.FILES)}", out)

    def maybe(self, at_s: float, name: str, out: list[Query], rtype: int = A) -> None:
        """Look up what lists mostly do not know, if it is of this half."""
        if self.world.holds(name):
            kind = NXDOMAIN if self.rng.random() < 0.9 else RESOLVES
            out.append((at_s, self.index, DomainName(name), rtype, 300, kind))

    def hour(self, number: int, out: list[Query]) -> None:
        """Look at 40 messages."""
        for _ in range(self.MESSAGES):
            self.message((number + self.rng.random()) * HOUR_S, out)


def apps(seed: int, world: World) -> list[App]:
    """Return the apps of one half: six browsers, two of all others but one of mail."""
    web = names.web(seed, world)
    found: list[App] = [Browser(index, seed, world, web) for index in range(6)]
    found += [Builder(index, seed, world) for index in (6, 7)]
    found += [Coder(index, seed, world, web) for index in (8, 9)]
    found += [Service(index, seed, world) for index in (10, 11)]
    found.append(Mail(12, seed, world))
    return found
