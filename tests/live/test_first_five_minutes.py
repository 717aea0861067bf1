"""The README's first five minutes, typed into a shell of the agent's namespace.

Unchanged but for `resolver.upstream_ca` and CURL_CA_BUNDLE, which name the private CA.
"""

import re
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.internet import Internet, until
from tests.live.appliance import ROOT, Appliance, Folders, launched

pytestmark = pytest.mark.live

# What each line of the README's block shows; `ID` is that of the last refusal.
SHOWN = {
    "kdig @127.0.0.1 -p 5300 example.com": ("NOERROR", "93.184.215.14"),
    "kdig +edns @127.0.0.1 -p 5300 denied.example.net": (
        *("NXDOMAIN", "EDE: 15 (Blocked)"),
        "sallyport host-not-listed",
    ),
    "curl -x http://127.0.0.1:3128 https://example.com/": ("An example",),
    "curl -x http://127.0.0.1:3128 http://example.org/": ("An example",),
    "curl -x http://127.0.0.1:3128 https://example.net/": ("response 403",),
    "sallyport why --last": ("host-not-listed", "example.net"),
    "dig TXT example.net._why.sallyport.internal @127.0.0.1 -p 5300": (
        *("NOERROR", "sallyport host-not-listed"),
        "how:",
    ),
    "curl -x http://127.0.0.1:3128 http://sallyport.internal/why/ID": (
        *('"reason":"host-not-listed"', "example.net"),
        '"app":"me"',
    ),
}

type Typed = Callable[[str], subprocess.CompletedProcess[str]]


def readme_lines() -> list[str]:
    """Return the commands of the README's block, without their comments."""
    text = (ROOT / "README.md").read_text()
    block = text.partition("<!-- first-five-minutes")[2].partition("```sh\n")[2].partition("```")[0]
    return [line.partition(" #")[0].strip() for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("newcomer"))


@pytest.fixture(scope="module")
def started(internet: Internet, newcomer: Folders) -> Iterator[Appliance]:
    newcomer.configure(f"resolver: {{upstream_ca: {internet.ca}}}\n")
    with launched(internet.agent, newcomer, ("bash", "-c", "exec scripts/up")) as appliance:

        def is_ready() -> bool:
            said = appliance.stdout + appliance.stderr
            return "try" in said or appliance.process.poll() is not None

        until(is_ready, "the table of what listens")
        assert appliance.process.poll() is None, appliance.wait()
        yield appliance


@pytest.fixture(scope="module")
def typed(internet: Internet, newcomer: Folders, started: Appliance) -> Typed:
    env = {**newcomer.env, "CURL_CA_BUNDLE": str(internet.ca)}

    def type_in(command: str) -> subprocess.CompletedProcess[str]:
        assert started.process.poll() is None, started.wait()
        return internet.run(["bash", "-c", command], env=env)

    return type_in


def test_the_readme_has_these_lines_in_this_order() -> None:
    assert readme_lines() == list(SHOWN)


def test_the_table_says_what_listens_where(started: Appliance) -> None:
    said = started.stdout + started.stderr
    for expected in ("127.0.0.1:5300", "[::1]:5300", "127.0.0.1:3128", "127.0.0.1:9153"):
        assert expected in said
    for expected in ("me.yaml", "generation 1", "advisory", "kdig", "curl"):
        assert expected in said


def test_each_line_shows_what_it_says(typed: Typed) -> None:
    identifier = ""
    for line, expected in SHOWN.items():
        shown = ""

        def is_shown(line: str = line.replace("/ID", f"/{identifier}")) -> bool:
            nonlocal shown
            ended = typed(line)
            shown = ended.stdout + ended.stderr
            return all(text in shown for text in expected)  # noqa: B023 - used in this turn only

        # Evidence is on disk within a second; a person types no faster.
        until(is_shown, f"{line} shows {expected}", 5.0)
        if found := re.search(r"\b[0-9a-f]{12}7[0-9a-f]{19}\b", shown):
            identifier = found[0]
    assert identifier
