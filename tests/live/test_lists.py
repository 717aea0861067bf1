"""Deny lists of every format over the whole appliance, on both planes, and as they change.

The README's block on leaks is typed here, too.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.internet import Internet, until
from tests.live.appliance import ROOT, Appliance, Folders, running
from tests.live.shell import ADDRESS, Shell, app, is_open, is_told, told

pytestmark = pytest.mark.live

HOSTS = (
    '"*.example.net", "*.hosts.example.net", "**.plain.example.net", "*.ads.example.net",'
    ' "*.wild.example.net"'
)
RULES = """
lists:
  - {file: ../lists/hosts.txt}
  - {file: ../lists/plain.txt, except: [fine.plain.example.net]}
  - {file: ../lists/adblock.txt}
  - {file: ../lists/policy.rpz, format: rpz}
  - {file: ../lists/late.txt}
  - {file: ../lists/two.txt, apps: [two]}
  - {file: ../lists/live.txt}
"""
LISTS = {
    "hosts.txt": "# hosts\n0.0.0.0 hosts.example.net other.example\n",
    "plain.txt": "plain.example.net\nbanned.example.org\n192.0.2.0/24\nplain.example\n",
    "adblock.txt": "! a list\n||ads.example.net^\n@@||fine.ads.example.net^\n",
    "late.txt": "late.wild.example.net\n",
    "two.txt": "two.example.net\n",
    "live.txt": "nothing.example.net\n",
    "policy.rpz": """$TTL 60
@ SOA localhost. hostmaster.localhost. 1 3600 600 86400 60
@ NS localhost.
gone.example.net CNAME .
empty.example.net CNAME *.
silent.example.net CNAME rpz-drop.
local.example.net A 192.0.2.7
*.wild.example.net CNAME .
pass.wild.example.net CNAME rpz-passthru.
late.wild.example.net CNAME rpz-passthru.
www.example.org CNAME rpz-passthru.
32.136.0.215.23.rpz-ip CNAME .
gone.example CNAME .
empty.example CNAME *.
""",
}
# What is asked, and the line that decides; the last four are allowed by nothing.
DENIED = {
    "hosts.example.net": "hosts.txt:2",
    "plain.example.net": "plain.txt:1",
    "a.plain.example.net": "plain.txt:1",
    "banned.example.org": "plain.txt:2",
    "x.ads.example.net": "adblock.txt:2",
    "gone.example.net": "policy.rpz:4",
    "x.wild.example.net": "policy.rpz:8",
    "late.wild.example.net": "late.txt:1",
    "empty.example.net": "policy.rpz:5",
    "example.org": "policy.rpz:12",
    "other.example": "hosts.txt:2",
    "a.b.plain.example": "plain.txt:4",
    "gone.example": "policy.rpz:13",
    "empty.example": "policy.rpz:14",
}
NXDOMAIN = ("other.example", "a.b.plain.example", "gone.example")
PASSED = (
    "below.hosts.example.net",
    "fine.plain.example.net",
    "a.fine.plain.example.net",
    "fine.ads.example.net",
    "pass.wild.example.net",
)

# What each line of the README's block on leaks shows.
SHOWN = {
    "kdig +edns @127.0.0.1 -p 5300 example.org": ("EDE: 15 (Blocked): 'sallyport list",),
    "kdig @127.0.0.1 -p 5300 www.example.org": ("NOERROR", "23.215.0.136"),
    "for n in $(seq 40); do"
    " kdig +short @127.0.0.1 -p 5300 $(openssl rand -hex 15).example.net; done": (ADDRESS,),
    "kdig +edns @127.0.0.1 -p 5300 one.example.net": (
        *("NXDOMAIN", "EDE: 17 (Filtered): 'sallyport tunnel-detected"),
    ),
    "sallyport tunnels list": ("coder", "example.net", "held", "tunnel:names:2m"),
    "sallyport tunnels show coder example.net": ("audit line", "hex_share", "at most 512"),
    "sallyport tunnels clear coder example.net": ("not held for coder any more",),
    "openssl rand -hex 20 | tee token | sallyport secrets add github-token": ("registered",),
    "kdig +edns @127.0.0.1 -p 5300 $(cut -c1-20 token).$(cut -c21-40 token).example.net": (
        "EDE: 17 (Filtered): 'sallyport tunnel-detected",
    ),
    "sallyport why --last": ("tunnel-detected", "secret:github-token", "*.example.net"),
}


class World(Shell):
    """An appliance with lists, which are edited as editors do: written beside, and renamed."""

    appliance: Appliance

    def list(self, name: str, text: str) -> Path:
        folder = self.folders.config / "lists"
        folder.mkdir(exist_ok=True)
        beside = folder / f".{name}.new"
        beside.write_text(text)
        return beside.rename(folder / name)

    def rules(self, lists: str) -> None:
        apps = app("one", HOSTS) + app("two", HOSTS, dns=5301, proxy=3129)
        beside = self.folders.rule(f"apps:{apps}{lists}", ".rules.yaml.new")
        beside.rename(self.folders.rules / "rules.yaml")

    def is_passed(self, name: str) -> bool:
        return f"\tA\t{ADDRESS}" in self.ask(name)

    def is_listed(self, name: str) -> bool:
        return "sallyport list" in self.ask(name)


@pytest.fixture(scope="class")
def world(internet: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(internet, Folders(tmp_path_factory.mktemp("lists")))
    made.configure()
    for name, text in LISTS.items():
        made.list(name, text)
    made.rules(RULES)
    with running(internet.agent, made.folders) as made.appliance:
        yield made


class TestOneAppliance:
    """Its rules and lists; each test that changes them has names of its own."""

    def test_what_a_line_denies_is_refused_on_both_planes(self, world: World) -> None:
        for name in DENIED:
            shown = world.ask(name)
            assert "EDE: 15 (Blocked): 'sallyport list" in shown, name
            assert "ANSWER: 0" in shown
            assert "status: NXDOMAIN" in shown or name not in NXDOMAIN, name
            assert "403 sallyport list" in world.fetch(f"https://{name}/"), name
        assert "status: NOERROR" in world.ask("empty.example")
        for name, line in DENIED.items():
            for fact, target in (("question", f"{name} A"), ("connect", f"{name}:443")):
                wanted = {"target": target, "reason": "list", "app": "one"}
                is_told(world.appliance, (fact,), rule=f"../lists/{line}", **wanted)

    @pytest.mark.parametrize("name", PASSED)
    def test_what_a_list_lets_pass_is_answered_and_reached(self, world: World, name: str) -> None:
        assert world.is_passed(name)
        with world.tunnel(name) as client:
            assert is_open(client)

    def test_a_passthru_shields_from_the_addresses_of_its_list(self, world: World) -> None:
        assert "\tA\t23.215.0.136" in world.ask("www.example.org")

    def test_a_literal_and_a_target_are_denied_by_their_lines(self, world: World) -> None:
        assert "sallyport list" in world.ask("alias-to-banned.example.com")
        assert "403 sallyport list" in world.fetch("https://192.0.2.9/")
        is_told(world.appliance, ("question",), rule="../lists/plain.txt:2")
        is_told(world.appliance, ("connect",), rule="../lists/plain.txt:3", target="192.0.2.9:443")

    def test_a_policy_zone_answers_with_its_records_or_not_at_all(self, world: World) -> None:
        shown = world.ask("local.example.net")
        assert "status: NOERROR" in shown
        assert "\tA\t192.0.2.7" in shown
        assert "ANSWER: 0" in world.ask("local.example.net", rtype="TXT")
        assert "status:" not in world.ask("silent.example.net", tries=1)
        lines = {"local": 7, "silent": 6}
        for name in lines:
            assert "403 sallyport list" in world.fetch(f"http://{name}.example.net/")
        for line in lines.values():
            is_told(world.appliance, ("question", "connect"), rule=f"../lists/policy.rpz:{line}")

    def test_a_list_for_one_app_is_no_matter_of_the_other(self, world: World) -> None:
        assert world.is_passed("two.example.net")
        assert "sallyport list" in world.ask("two.example.net", port=5301)
        assert "403 sallyport list" in world.fetch("https://two.example.net/", 3129)
        is_told(world.appliance, ("question", "connect"), rule="../lists/two.txt:1", app="two")
        assert not told(world.appliance, rule="../lists/two.txt:1", app="one")

    def test_explain_names_the_file_and_the_line(self, world: World) -> None:
        explained = world.typed("sallyport explain one https://a.plain.example.net/")
        assert explained.count("../lists/plain.txt:1") == 4  # in a table and below it, twice

    def test_a_name_that_is_newly_listed_is_refused_and_except_cures_it(self, world: World) -> None:
        """threats.md, Order of checks: cached answers and open tunnels of what is withdrawn."""
        name = "fresh.example.net"
        assert world.is_passed(name)
        with world.tunnel(name) as gone, world.tunnel("stays.example.net") as stays:
            hits = world.metric('sallyport_dns_cache_total{outcome="hit"}')
            assert world.is_passed(name)
            assert world.metric('sallyport_dns_cache_total{outcome="hit"}') == hits + 1
            world.list("live.txt", f"nothing.example.net\n{name}\n")
            until(lambda: world.is_listed(name), "it is refused", 10.0)
            until(lambda: not is_open(gone), "the tunnel is cut", 10.0)
            assert is_open(stays)
            assert "403 sallyport list" in world.fetch(f"https://{name}/")
            is_told(world.appliance, ("question", "connect"), rule="../lists/live.txt:2")
            world.rules(RULES.replace("live.txt}", f"live.txt, except: [{name}]}}"))
            until(lambda: world.is_passed(name), "the exception cures it", 10.0)
            assert is_open(stays)

    def test_a_list_that_breaks_or_goes_keeps_the_last_good_one(
        self,
        world: World,
    ) -> None:
        text = LISTS["adblock.txt"]
        file = world.list("adblock.txt", "<!DOCTYPE html>\n<p>Not found, sorry.</p>\n")
        until(
            lambda: world.metric("sallyport_rule_problems ") == 1, "the web page is no list", 10.0
        )
        (problem,) = world.control.get("/status")["reload"]["problems"]
        assert "adblock.txt:1:1: error: " in problem
        assert world.is_listed("x.ads.example.net")
        world.list("adblock.txt", text)
        assert not world.control.ask("POST", "/reload")["problems"]
        aside = file.rename(file.with_suffix(".aside"))
        (problem,) = world.control.ask("POST", "/reload")["problems"]
        assert "../lists/adblock.txt cannot be read: No such file" in problem
        assert problem in world.control.get("/status")["reload"]["problems"]
        assert world.is_listed("x.ads.example.net")
        assert "403 sallyport list" in world.fetch("https://x.ads.example.net/")
        aside.rename(file)
        assert not world.control.ask("POST", "/reload")["problems"]
        assert world.is_listed("x.ads.example.net")


def readme(language: str) -> str:
    """Return the first block in `language` of the README's section on leaks."""
    section = (ROOT / "README.md").read_text().partition("\n## What leaks\n")[2]
    return section.partition(f"```{language}\n")[2].partition("```")[0]


def test_the_readme_has_these_lines_in_this_order() -> None:
    lines = [line.partition(" #")[0].strip() for line in readme("sh").splitlines()]
    assert lines == list(SHOWN)


def test_each_line_shows_what_it_says(internet: Internet, folders: Folders) -> None:
    """Unchanged but for `resolver.upstream_ca`, which names the private CA."""
    shell = Shell(internet, folders)
    folders.configure(f"resolver: {{upstream_ca: {internet.ca}}}\n")
    shown = ""
    rules = folders.rule(readme("yaml"))
    (rules.parent / "example.txt").write_text("example.org\n")
    with running(internet.agent, folders) as appliance:
        for line, expected in SHOWN.items():
            assert appliance.process.poll() is None, appliance.wait()

            def is_shown(line: str = line, expected: tuple[str, ...] = expected) -> bool:
                nonlocal shown
                shown = shell.typed(line)
                return all(text in shown for text in expected)

            # Evidence is on disk within a second; a person types no faster.
            until(is_shown, f"{line} shows {expected}", 5.0)
        token = shell.typed("cat token").strip()
    assert all(part not in shown for part in (token, token[:20], token[20:]))
