"""What the appliance reads of the trust domain, without the library for certificates."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from certs import files
from certs.errors import KeystoreError
from certs.known_domain import (
    BUNDLE_PEM,
    DOMAIN_JSON,
    REFRESH_HINT_S,
    Generation,
    KnownDomain,
    Record,
    read_domain,
    read_record,
    record_of,
)

ROOT = Path(__file__).resolve().parents[2]
RECORD = Record(
    trust_domain="desk.example",
    sequence=7,
    roots=(
        Generation("a", 0, 900, 0, "-----one-----\n"),
        Generation("b", 600, 1500, 700, "-----two-----\n"),
    ),
    intermediates=(Generation("c", 0, 90, 0, "-----three-----\n", "a"),),
    jwt_keys=(Generation("d", 0, 90, 0, "-----four-----\n"),),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "identity"
    files.enter(path)
    return path


def test_what_was_written_is_what_is_known(folder: Path) -> None:
    files.write(folder, DOMAIN_JSON, msgspec.json.encode(RECORD))
    assert read_record(folder) == record_of(folder) == RECORD
    assert read_domain(folder) == KnownDomain(
        trust_domain="desk.example",
        sequence=7,
        anchors="-----one-----\n-----two-----\n",
        not_after=1500,
        intermediates="-----three-----\n",
        refresh_hint_s=REFRESH_HINT_S,
    )
    assert [each.id for each in RECORD.all] == ["a", "b", "c", "d"]


def test_without_a_file_nothing_is_known(folder: Path) -> None:
    assert read_domain(folder) is None
    assert read_domain(folder / "missing") is None
    with pytest.raises(KeystoreError, match=r"no trust domain: `sallyport up` makes it"):
        record_of(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        msgspec.json.encode(RECORD)[:-1],
        msgspec.json.encode(msgspec.structs.replace(RECORD, version=2)),
        msgspec.json.encode(msgspec.structs.replace(RECORD, roots=())),
        msgspec.json.encode(msgspec.structs.replace(RECORD, intermediates=())),
        msgspec.json.encode(msgspec.structs.replace(RECORD, jwt_keys=())),
        msgspec.json.encode({**msgspec.to_builtins(RECORD), "more": 1}),
    ],
)
def test_what_is_none_of_ours_is_said_with_a_cure(folder: Path, content: bytes) -> None:
    files.write(folder, DOMAIN_JSON, content)
    with pytest.raises(KeystoreError, match="put it back from a backup"):
        read_domain(folder)


def test_a_generation_is_renewed_at_two_thirds_of_its_life() -> None:
    assert Generation("x", 300, 1200, 300, "").renew_at == 900


def test_reading_it_loads_no_library_for_certificates(folder: Path) -> None:
    files.write(folder, DOMAIN_JSON, msgspec.json.encode(RECORD))
    program = (
        "import sys, pathlib; from certs.known_domain import read_domain;"
        "import certs.profile, certs.spiffe;"
        f"assert read_domain(pathlib.Path({str(folder)!r})).sequence == 7;"
        "print([name for name in sys.modules if name.split('.')[0] in {'cryptography', 'jwt'}])"
    )
    said = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == "[]\n"


def test_the_names_of_the_files_are_those_of_the_manual() -> None:
    assert (DOMAIN_JSON, BUNDLE_PEM) == ("domain.json", "bundle.pem")
