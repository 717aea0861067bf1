"""docs/agents.md and its examples: the module and the script do what `sallyport attest` does."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tokenize
from ast import ClassDef, FunctionDef, Module, get_docstring, parse, walk
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

from proxy.commands.attest import attest
from proxy.commands.exchange import exchange
from tests.proxy.attester.verifier import Verifier, serving

ROOT = Path(__file__).resolve().parent.parent
DOC, EXAMPLES = ROOT / "docs" / "agents.md", ROOT / "docs" / "examples"
MODULE, SCRIPT = EXAMPLES / "sallyport_agent.py", EXAMPLES / "attest.sh"
MOST_LINES = 60
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}

PROGRAM = "from tests.test_agent_examples import commands; commands()()"

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


@pytest.fixture
def verifier(tmp_path: Path) -> Iterator[Verifier]:
    with serving(Verifier(tmp_path)) as found:
        yield found


@pytest.fixture
def agent(verifier: Verifier) -> Any:
    spec = importlib.util.spec_from_file_location("sallyport_agent", MODULE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    own, folder = verifier.own, verifier.folder
    place = f"localhost:{verifier.port}"
    return module.Agent(own.chain, own.key, own.ca, place, str(folder / "attester.key"))


def script(verifier: Verifier, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, f"localhost:{verifier.port}", *arguments],
        cwd=verifier.folder,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def commands() -> typer.Typer:
    found = typer.Typer()
    found.command()(attest)
    found.command()(exchange)
    return found


def code_lines() -> int:
    """Lines of the module that are neither empty, nor a comment, nor a docstring."""
    with MODULE.open("rb") as opened:
        tokens = [each for each in tokenize.tokenize(opened.readline) if each.type not in LAYOUT]
    lines = {line for each in tokens[1:-1] for line in range(each.start[0], each.end[0] + 1)}
    for node in walk(parse(MODULE.read_text())):
        if isinstance(node, Module | ClassDef | FunctionDef) and get_docstring(node):
            lines -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(lines)


def test_the_module_has_sixty_lines_of_code_at_most() -> None:
    assert code_lines() <= MOST_LINES


def test_the_module_attests_for_the_key_of_its_certificate(agent: Any, verifier: Verifier) -> None:
    found = agent.attest()
    assert found["token"] == verifier.tokens[0]
    assert found["binding"] == verifier.binding().value
    assert (verifier.folder / "attester.key").stat().st_mode & 0o777 == 0o600


def test_the_module_keeps_its_key(agent: Any, verifier: Verifier) -> None:
    agent.attest()
    agent.attest()
    first, second = (each["key"] for each in verifier.contents if "key" in each)
    assert first == second


def test_the_module_signs_for_no_other_key(agent: Any, verifier: Verifier) -> None:
    """Relay: whatever message the other end gives, ours is signed."""
    verifier.changes["/attest/nonce"] = {"message": "cGF5IGhpbQ", "binding": "00" * 32}
    assert agent.attest()["binding"] == verifier.binding().value


def test_the_module_exchanges_and_beats(agent: Any, verifier: Verifier) -> None:
    assert agent.exchange("https://projects.example", "read:documents").startswith("c.")
    assert verifier.contents[-1]["audience"] == "https://projects.example"
    assert agent.heartbeat("ok")["next_s"] == 60
    assert verifier.contents[-1] == {"health": "ok"}


def test_the_module_says_why_it_was_refused(agent: Any, verifier: Verifier) -> None:
    verifier.answers["/attest"] = (403, {"detail": "the PCR 7 is another"})
    with pytest.raises(PermissionError, match="the PCR 7 is another"):
        agent.attest()


def test_every_option_of_the_commands_is_described_and_there() -> None:
    group: Any = get_command(commands())
    there = {
        option
        for command in group.commands.values()
        for parameter in command.params
        for option in parameter.opts
    }
    described = set(re.findall(r"`(--[a-z-]+)", DOC.read_text()))
    assert described <= there
    assert there - {"--json", "--keep-fresh"} <= described


def test_what_is_typed_in_the_manual_works(verifier: Verifier, tmp_path: Path) -> None:
    verifier.folder.rename(tmp_path / "agent")
    shim = f"#!/bin/sh\nexec {sys.executable} -P -c '{PROGRAM}' \"$@\"\n"
    (tmp_path / "sallyport").write_text(shim)
    (tmp_path / "sallyport").chmod(0o700)
    [block] = re.findall(r"<!-- run -->\n```console\n(.*?)```", DOC.read_text(), re.DOTALL)
    typed = "\n".join(line.removeprefix("$ ") for line in block.splitlines())
    done = subprocess.run(
        ["sh", "-euc", typed.replace("HOST:8443", f"localhost:{verifier.port}")],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{verifier.tokens[0]}\n"
    assert verifier.given_back == [(tmp_path / "capability").read_text().strip()]


def test_the_script_attests(verifier: Verifier) -> None:
    done = script(verifier)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "attested: software\n")
    assert len(verifier.tokens) == 1
    assert (verifier.folder / "attester.key").stat().st_mode & 0o777 == 0o600


def test_the_script_exchanges(verifier: Verifier) -> None:
    proxy = f"localhost:{verifier.port}"
    done = script(verifier, proxy, "http://example.com/", "https://projects.example", "read:x")
    assert done.returncode == 0, done.stderr
    page_line, token = done.stdout.splitlines()
    assert page_line == "a page"
    assert token.startswith("c.")
    form = verifier.contents[-1]
    assert (form["audience"], form["scope"]) == ("https://projects.example", "read:x")
    assert form["subject_token"] == verifier.tokens[-1]


def test_the_script_ends_with_the_reason(verifier: Verifier) -> None:
    verifier.answers["/attest"] = (403, {"detail": "the PCR 7 is another"})
    done = script(verifier)
    assert done.returncode == 1
    assert "the PCR 7 is another" in done.stderr
