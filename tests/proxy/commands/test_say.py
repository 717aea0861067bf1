"""What every command says, and the exit codes that it ends with."""

import json
from pathlib import Path

import pytest
import typer

from proxy.commands.say import EXIT_BIND, EXIT_RULES, fail, report, say, settings_of
from rules.errors import Place, Problem, Severity

ERROR = Problem(Place("a.yaml", 1, 2), "is wrong", "mend it")
WARNING = Problem(Place("a.yaml", 3, 4), "is odd", "look at it", severity=Severity.WARNING)


def test_says_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    say("[bold]not markup[/bold] " + "x" * 200)
    assert capsys.readouterr().err == "[bold]not markup[/bold] " + "x" * 200 + "\n"


def test_fails_with_words_and_a_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        fail("no such thing", EXIT_BIND)
    assert ended.value.exit_code == EXIT_BIND
    assert capsys.readouterr().err == "sallyport: no such thing\n"


def test_reports_every_problem_and_how_many(capsys: pytest.CaptureFixture[str]) -> None:
    report((ERROR, WARNING), ["a.yaml"], as_json=False)
    said = capsys.readouterr().err
    assert "a.yaml:1:2" in said
    assert "a.yaml:3:4" in said
    assert said.endswith("1 rule files, 1 errors, 1 warnings\n")


def test_reports_as_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    report((ERROR, WARNING), ["a.yaml"], as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert (document["files"], document["errors"], len(document["problems"])) == (["a.yaml"], 1, 2)


def test_settings_come_from_the_file_that_is_named(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("limits: {pins: 7}\n")
    assert settings_of(file).limits.pins == 7
    assert settings_of(file, system=True).system


@pytest.mark.parametrize("text", ["limits: {pins: none}\n", "no: such key\n"])
def test_a_broken_configuration_ends_with_3(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(text)
    with pytest.raises(typer.Exit) as ended:
        settings_of(file)
    assert ended.value.exit_code == EXIT_RULES
    assert f"{file}:1:" in capsys.readouterr().err


def test_a_configuration_that_is_not_there_ends_with_3(tmp_path: Path) -> None:
    with pytest.raises(typer.Exit) as ended:
        settings_of(tmp_path / "absent.yaml")
    assert ended.value.exit_code == EXIT_RULES
