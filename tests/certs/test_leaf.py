"""What is known of a leaf without reading certificates."""

from pathlib import Path

import msgspec
import pytest

from certs.errors import KeystoreError
from certs.files import SERVER_JSON, SERVER_PEM
from certs.leaf import Leaf, fingerprint, read_leaf

NAMES = ("localhost", "127.0.0.1")
PEM = b"a certificate"
LEAF = Leaf(not_before=1000, not_after=1000 + 3 * 3600, names=NAMES, sha256=fingerprint(PEM))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / SERVER_PEM).write_bytes(PEM)
    (tmp_path / SERVER_JSON).write_bytes(msgspec.json.encode(LEAF))
    return tmp_path


@pytest.mark.parametrize(
    ("now", "good"),
    [
        pytest.param(999, False, id="not yet valid: the clock went back"),
        pytest.param(1000, True, id="from its first second"),
        pytest.param(1000 + 2 * 3600 - 1, True, id="until two thirds of its life"),
        pytest.param(1000 + 2 * 3600, False, id="then it is due"),
        pytest.param(1000 + 4 * 3600, False, id="expired"),
    ],
)
def test_a_leaf_is_good_for_two_thirds_of_its_life(now: float, good: bool) -> None:
    assert LEAF.is_good(NAMES, now) is good


@pytest.mark.parametrize("names", [(), ("localhost",), (*NAMES, "::1"), ("127.0.0.1", "localhost")])
def test_a_leaf_for_other_names_is_not_good(names: tuple[str, ...]) -> None:
    assert not LEAF.is_good(names, 1000)


def test_what_is_known_is_read(folder: Path) -> None:
    assert read_leaf(folder) == LEAF


@pytest.mark.parametrize("name", [SERVER_JSON, SERVER_PEM])
def test_nothing_is_known_where_a_file_is_missing(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert read_leaf(folder) is None


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"null", b'{"not_before": 1}', b'{"not_before": "soon"}', b"\xff\xfe"],
)
def test_what_is_no_record_of_a_leaf_says_nothing(folder: Path, text: bytes) -> None:
    (folder / SERVER_JSON).write_bytes(text)
    assert read_leaf(folder) is None


def test_another_certificate_is_not_taken_for_the_known_one(folder: Path) -> None:
    (folder / SERVER_PEM).write_bytes(PEM + b"!")
    assert read_leaf(folder) is None


def test_a_file_that_cannot_be_read_is_an_error(folder: Path) -> None:
    (folder / SERVER_JSON).unlink()
    (folder / SERVER_JSON).mkdir()
    with pytest.raises(KeystoreError, match="move it away"):
        read_leaf(folder)
