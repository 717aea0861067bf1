"""Registered secrets in names, and tunnels through an allowed wildcard, as clients see both."""

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.canaries.secret import WantedSecret
from tests.internet import Internet, until
from tests.live.appliance import Appliance, Folders, running
from tests.live.shell import ADDRESS, Shell, app, is_open, is_told, told

pytestmark = pytest.mark.live

ZONE = "example.net"
HOSTS = f'"**.{ZONE}"'
RULES = f"apps:{app('one', HOSTS)}{app('two', HOSTS, dns=5301, proxy=3129)}"
PIECE = 8  # digits of hex in a name
FOUND_FROM = 23  # docs/secrets.md: that many characters of a form in a row are always found
MOST_OCTETS = 512  # of new names in two minutes (docs/detection.md)
EDE = "EDE: 17 (Filtered): 'sallyport tunnel-detected"


def secret_of(name: str) -> bytes:
    """Return a value of 26 letters and digits, the same in every run."""
    return base64.b32encode(hashlib.sha256(name.encode()).digest())[:26]


def forms(value: bytes) -> list[bytes]:
    """Return the ways in which a value could be kept, in lower case."""
    encoded = [value, value.hex().encode(), base64.b32encode(value), base64.b64encode(value)]
    ways = [each.rstrip(b"=").lower() for each in encoded]
    return [*ways, *(each[::-1] for each in ways)]


def noise(number: int) -> str:
    """Return a name that says 15 octets to whoever answers for the zone."""
    return f"{hashlib.sha256(str(number).encode()).hexdigest()[:30]}.{ZONE}"


class World(Shell):
    """An appliance, with what was written by it."""

    appliance: Appliance

    def register(self, name: str) -> bytes:
        value = secret_of(name)
        self.control.ask("POST", "/secrets", WantedSecret(name, value))
        return value

    def pieces(self, name: str) -> list[str]:
        """Register a secret; return it in hex, cut into labels."""
        digits = self.register(name).hex()
        return [digits[at : at + PIECE] for at in range(0, len(digits), PIECE)]

    def written(self) -> Iterator[tuple[str, bytes]]:
        """Yield all that stands in the state folder, and what was logged."""
        for file in self.folders.state.rglob("*"):
            if file.is_file():
                yield file.name, file.read_bytes()
        yield "stdout", self.appliance.stdout.encode()
        yield "stderr", self.appliance.stderr.encode()

    def far(self) -> str:
        """Return what the upstream's log has of names."""
        return (self.internet.folder / "unbound.log").read_text(errors="replace").lower()


@pytest.fixture(scope="class")
def world(internet: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(internet, Folders(tmp_path_factory.mktemp("leaks")))
    made.configure()
    made.folders.rule(RULES)
    with running(internet.agent, made.folders) as made.appliance:
        yield made


def is_attributed(world: World, secret: str, *facts: str, app: str = "one") -> None:
    """Wait until audit says who tried to leak what."""
    is_told(
        world.appliance, facts, rule=f"secret:{secret}", app=app, reason="tunnel-detected",
        verdict="deny",
    )  # fmt: skip


class TestOneAppliance:
    """Each test registers a secret of its own."""

    def test_one_in_an_allowed_name_is_refused_until_it_is_forgotten(self, world: World) -> None:
        value = secret_of("typed")
        file = Path(world.folders.env["HOME"], "token")
        file.write_bytes(value + b"\n")
        assert "registered" in world.typed("sallyport secrets add typed <token")
        name = f"{value[:13].decode()}.{value[13:].decode()}.{ZONE}"
        assert EDE in world.ask(name)
        assert "403 sallyport tunnel-detected" in world.fetch(f"https://x-{name}/")
        is_attributed(world, "typed", "question", "connect")
        assert value.lower().decode() not in world.far().replace(".", "")
        world.control.ask("DELETE", "/secrets/typed")
        assert ADDRESS in world.ask(name)

    def test_one_in_hex_is_refused_in_denied_names_too(self, world: World) -> None:
        name = f"{world.register('hex').hex()}.denied.example"
        assert EDE in world.ask(name)
        assert "403 sallyport tunnel-detected" in world.fetch(f"http://{name}/", 3129)
        is_attributed(world, "hex", "question")
        is_attributed(world, "hex", "connect", app="two")
        for line in told(world.appliance, rule="secret:hex"):
            assert str(line["target"]).startswith("*.denied.example")

    def test_one_that_is_split_over_queries_is_found_before_it_is_whole(self, world: World) -> None:
        for zone in (ZONE, "denied.example"):
            shown = [world.ask(f"{piece}.{zone}") for piece in world.pieces(f"dns-{zone[0]}")]
            refused = [EDE in each for each in shown]
            assert 0 < refused.count(False) * PIECE <= FOUND_FROM
        pieces = world.pieces("connects")
        shown = [world.fetch(f"http://{piece}.{ZONE}/echo") for piece in pieces]
        refused = ["403 sallyport tunnel-detected" in each for each in shown]
        assert 0 < refused.count(False) * PIECE <= FOUND_FROM
        is_attributed(world, "dns-e", "question")
        is_attributed(world, "dns-d", "question")
        is_attributed(world, "connects", "connect")

    def test_no_value_is_kept_or_told_anywhere(self, world: World) -> None:
        value = world.register("kept")
        names = [value.decode(), value.hex(), base64.b32encode(value).rstrip(b"=").decode()]
        for name in names:
            assert EDE in world.ask(f"{name}.{ZONE}")
            assert "403 sallyport tunnel-detected" in world.fetch(f"https://{name}.{ZONE}/")
        is_attributed(world, "kept", "question", "connect")
        assert world.metric("sallyport_leaks_total") >= 1
        listed = world.control.get("/secrets")
        assert "kept" in {each["name"] for each in listed}
        written = [*world.written(), ("secrets list", str(listed).encode())]
        assert {"secrets.sqlite", "audit.jsonl"} <= {name for name, _ in written}
        for where, octets in written:
            for form in forms(value):
                assert form not in octets.lower(), where

    def test_ordinary_look_ups_below_a_wildcard_never_trip(self, world: World) -> None:
        misses = 'sallyport_dns_cache_total{outcome="miss"}'
        before = world.metric(misses)
        names = ("api", "cdn", "files", "eu-west-1.api", "img2")
        shown = world.ask(*(f"{name}.{ZONE}" for name in names * 200), port=5301)
        assert shown.count(f"\tA\t{ADDRESS}") == 1000
        assert world.metric(misses) == before + len(names)  # which nobody else hears of
        assert not world.control.get("/tunnels")


def assert_held(shell: Shell) -> None:
    """Both planes refuse what is below the suffix, names that were known before too."""
    for name in (f"new.{ZONE}", noise(0), f"open.{ZONE}"):
        shown = shell.ask(name)
        assert EDE in shown
        assert "status: NXDOMAIN" in shown
    assert "403 sallyport tunnel-detected" in shell.fetch(f"https://open.{ZONE}/")


def test_a_burst_is_blocked_cut_kept_over_a_crash_and_let_go(
    internet: Internet, folders: Folders
) -> None:
    shell = World(internet, folders)
    shell.configure()
    folders.rule(RULES)
    with running(internet.agent, folders) as shell.appliance:
        with shell.tunnel(f"open.{ZONE}") as gone, shell.tunnel("example.com") as stays:
            shown = shell.ask(*map(noise, range(40)))
            went = shown.count(f"\tA\t{ADDRESS}")
            assert 0 < went * 30 <= MOST_OCTETS
            assert EDE in shown
            until(lambda: not is_open(gone), "the open tunnel is cut", 10.0)
            assert is_open(stays)
        assert_held(shell)
        assert ADDRESS in shell.ask(f"www.{ZONE}", port=5301)  # of another app
        blocked = {"change": "tunnel-blocked", "plane": "control", "app": "one"}
        until(lambda: bool(told(shell.appliance, **blocked, target=ZONE)), "audit has it")
        shell.appliance.process.kill()
        shell.appliance.wait()
    listed = shell.typed("sallyport tunnels list")  # the file says it, when none runs
    assert ZONE in listed
    assert "held" in listed
    with running(internet.agent, folders) as shell.appliance:
        assert_held(shell)
        assert shell.control.ask("DELETE", f"/tunnels/one/{ZONE}")["state"] == "held"
        assert ADDRESS in shell.ask(f"www.{ZONE}")
        with shell.tunnel(f"www.{ZONE}") as again:
            assert is_open(again)
