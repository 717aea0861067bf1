"""What `attest` and `exchange` have in common: usage, and exit codes."""

from pathlib import Path

import msgspec
import pytest
import typer

from certs.errors import CertsError, KeystoreError
from proxy.attester.errors import AttesterError, RefusedError, UnreachableError, UnusableError
from proxy.attester.means import Means
from proxy.commands.attesting import attester_of, claimed_of, end, our_state, pcrs_of


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RefusedError("no", 403, how="ask"), 1),
        (UnusableError("a file"), 3),
        (KeystoreError("a key"), 3),
        (UnreachableError("nobody"), 4),
    ],
)
def test_each_kind_of_failure_has_its_exit_code(
    error: AttesterError | CertsError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught:
        end(error)
    assert caught.value.exit_code == code
    assert capsys.readouterr().err == f"sallyport: {error}\n"


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"tpm": "swtpm", "launched": True}, "name one"),
        ({"cert": Path("a")}, "belong together"),
        ({"cert": Path("a"), "key": Path("b"), "folder": Path("c")}, "name --folder, or"),
        ({"url": "https://localhost", "launched": True}, "without --proxy and --launched"),
        ({"url": "https://localhost", "proxy": "https://localhost"}, "without --proxy"),
        ({"attester_key": Path("a"), "tpm": "swtpm"}, "is for --software"),
        ({"ek_chain": Path("a")}, "is for --tpm"),
    ],
)
def test_what_does_not_go_together_is_usage(
    said: dict[str, object], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    means = msgspec.structs.replace(Means(tmp_path), **said)
    with pytest.raises(typer.Exit) as caught:
        attester_of(means, software=False)
    assert caught.value.exit_code == 2
    assert text in capsys.readouterr().err


def test_two_kinds_of_evidence_are_usage(tmp_path: Path) -> None:
    with pytest.raises(typer.Exit) as caught:
        attester_of(Means(tmp_path, tpm="swtpm"), software=True)
    assert caught.value.exit_code == 2


def test_no_certificate_is_configuration(tmp_path: Path) -> None:
    with pytest.raises(typer.Exit) as caught:
        attester_of(Means(tmp_path), software=False)
    assert caught.value.exit_code == 3


def test_registers_and_claims_are_bounded() -> None:
    assert pcrs_of("0,7") == (0, 7)
    assert claimed_of("a" * 128, "b" * 64).version == "b" * 64
    for call in (
        lambda: pcrs_of("24"),
        lambda: claimed_of("a" * 129, ""),
        lambda: claimed_of("", "b" * 65),
    ):
        with pytest.raises(typer.Exit) as caught:
            call()
        assert caught.value.exit_code == 2


def test_our_state_is_where_enroll_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/somewhere")
    assert our_state() == Path("/somewhere/sallyport")
