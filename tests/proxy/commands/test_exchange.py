"""`sallyport exchange`, as it is typed."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from proxy.attester.evidence import b64url
from proxy.commands.exchange import exchange
from tests.proxy.attester.verifier import Verifier, serving

app = typer.Typer()
app.command()(exchange)
WANTED = ["--audience", "https://projects.example", "--scope", "read:documents write:notes"]


@pytest.fixture
def verifier(tmp_path: Path) -> Iterator[Verifier]:
    with serving(Verifier(tmp_path)) as found:
        yield found


def run(verifier: Verifier, *options: str, given: str = "") -> Result:
    url = f"https://localhost:{verifier.port}"
    where = ["--url", url, "--folder", str(verifier.folder)]
    return CliRunner().invoke(app, [*where, *options], input=given)


def test_it_attests_and_prints_the_capability_alone(verifier: Verifier) -> None:
    result = run(verifier, *WANTED)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("c.")
    assert verifier.calls == ["/attest/nonce", "/attest", "/token"]
    assert verifier.contents[-1]["scope"] == "read:documents write:notes"


def test_json_has_life_and_scope(verifier: Verifier) -> None:
    found = json.loads(run(verifier, *WANTED, "--json").stdout)
    assert found["access_token"].startswith("c.")
    assert (found["expires_in"], found["token_type"]) == (60, "Bearer")


def test_a_result_that_there_is_saves_an_attestation(verifier: Verifier, tmp_path: Path) -> None:
    verifier.tokens.append("r.1.s")
    (tmp_path / "token").write_text("r.1.s\n")
    assert run(verifier, *WANTED, "--token-file", str(tmp_path / "token")).exit_code == 0
    assert run(verifier, *WANTED, "--token-file", "-", given="r.1.s\n").exit_code == 0
    assert verifier.calls == ["/token", "/token"]


def test_a_capability_is_passed_on(verifier: Verifier) -> None:
    token = f"{b64url(b'{"typ":"at+jwt"}')}.c.s"
    verifier.tokens.append(token)
    assert run(verifier, *WANTED, "--subject-token", "-", given=token).exit_code == 0
    form = verifier.contents[-1]
    assert form["subject_token"] == token
    assert form["actor_token"] == verifier.tokens[-1] != token


def test_a_capability_is_given_back(verifier: Verifier) -> None:
    result = run(verifier, "--revoke", "-", given="c.1.s\n")
    assert (result.exit_code, result.stdout) == (0, "")
    assert verifier.given_back == ["c.1.s"]


def test_a_refusal_says_why(verifier: Verifier) -> None:
    told = {"error": "invalid_target", "error_description": "no rule speaks of it"}
    verifier.answers["/token"] = (400, told)
    result = run(verifier, *WANTED)
    assert result.exit_code == 1
    assert "invalid_target: no rule speaks of it" in result.stderr


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--audience", "a"],
        ["--revoke", "-", "--audience", "a"],
        ["--revoke", "-", "--token-file", "t"],
    ],
)
def test_usage_is_2(verifier: Verifier, options: list[str]) -> None:
    assert run(verifier, *options, given="c.1.s").exit_code == 2
    assert not verifier.calls


@pytest.mark.parametrize("given", ["", "two words", "\x1b[2J", "a\nb"])
def test_what_is_no_token_is_not_sent(verifier: Verifier, given: str) -> None:
    result = run(verifier, "--revoke", "-", given=given)
    assert result.exit_code == 3
    assert "holds no token" in result.stderr
    assert not verifier.calls


def test_a_file_that_cannot_be_read_is_3(verifier: Verifier, tmp_path: Path) -> None:
    result = run(verifier, "--revoke", str(tmp_path / "none"))
    assert result.exit_code == 3
    assert "No such file" in result.stderr
    (tmp_path / "octets").write_bytes(b"\xff")
    result = run(verifier, "--revoke", str(tmp_path / "octets"))
    assert (result.exit_code, "it is no token" in result.stderr) == (3, True)
