"""The trust domain on the disk: what each step makes, and what is left when it is killed."""

import datetime as dt
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs import files
from certs.domain import (
    Distribution,
    Rotated,
    ensure_domain,
    init_domain,
    load_domain,
    reseal,
    rotate,
)
from certs.errors import KeystoreError, SpiffeError
from certs.known_domain import BUNDLE_PEM, DOMAIN_JSON, read_domain, record_of
from certs.profile import INTERMEDIATE
from certs.rotation import (
    signing,
)
from tests.certs.identity import NOW, TD, contents, s, verified, whole

SOURCE = Path(__file__).resolve().parents[2]
SECRET, OTHER = b"correct horse", b"battery staple"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "state" / "identity"
    init_domain(path, TD, NOW, None)
    return path


def test_init_makes_one_of_each_that_signs_at_once(folder: Path) -> None:
    record = whole(folder)
    assert (record.trust_domain, record.sequence) == (TD, 1)
    for generations in (record.roots, record.intermediates, record.jwt_keys):
        assert len(generations) == 1
        assert signing(generations, NOW.timestamp()) == generations[0]
    assert record.intermediates[0].issuer == record.roots[0].id
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    verified(load_domain(folder, None), NOW)


def test_a_second_init_changes_nothing(folder: Path) -> None:
    before = contents(folder)
    with pytest.raises(KeystoreError, match="has a trust domain already"):
        init_domain(folder, TD, NOW, None)
    assert contents(folder) == before


def test_ensure_makes_what_is_missing_once(tmp_path: Path) -> None:
    folder = tmp_path / "identity"
    made = ensure_domain(folder, TD, NOW, None)
    assert made == Rotated(is_new=True)
    before = contents(folder)
    again = ensure_domain(folder, TD, NOW, None)
    assert again == Rotated()
    assert contents(folder) == before


@pytest.mark.parametrize("name", ["192.0.2.7", "Desk.example", "a..b", ""])
def test_a_name_that_cannot_be_ours_makes_nothing(tmp_path: Path, name: str) -> None:
    for step in (init_domain, ensure_domain):
        with pytest.raises(SpiffeError):
            step(tmp_path / "identity", name, NOW, None)
    assert not (tmp_path / "identity").exists()


def test_the_folder_of_another_trust_domain_is_left_alone(folder: Path) -> None:
    before = contents(folder)
    with pytest.raises(KeystoreError, match=r"is of the trust domain desk\.example"):
        ensure_domain(folder, "other.example", NOW, None)
    assert contents(folder) == before


def test_a_folder_that_is_open_to_others_is_refused(folder: Path) -> None:
    folder.chmod(0o750)
    with pytest.raises(KeystoreError, match="chmod 700"):
        ensure_domain(folder, TD, NOW, None)


def test_a_record_that_was_lost_costs_no_key(folder: Path) -> None:
    (folder / DOMAIN_JSON).unlink()
    keys = contents(folder)
    for step in (ensure_domain, init_domain):
        with pytest.raises(KeystoreError, match=r"domain\.json is missing.*from a backup"):
            step(folder, TD, NOW, None)
    assert contents(folder) == keys


@pytest.mark.parametrize("mode", [0o755, 0o770])
def test_nothing_is_rotated_where_others_may_write_or_read(folder: Path, mode: int) -> None:
    folder.chmod(mode)
    with pytest.raises(KeystoreError, match="open to other users"):
        rotate(folder, NOW, None, "jwt")
    with pytest.raises(KeystoreError, match="open to other users"):
        reseal(folder, None, SECRET)
    folder.chmod(0o700)
    assert len(record_of(folder).jwt_keys) == 1


def test_another_user_rotates_nothing_not_even_root(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What root would write there, its owner could not read at the next start."""
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    before = contents(folder)
    with pytest.raises(KeystoreError, match="run as that user"):
        rotate(folder, NOW, None, "jwt")
    assert contents(folder) == before


def test_rotating_needs_a_trust_domain(tmp_path: Path) -> None:
    files.enter(tmp_path / "identity")
    for what in ("root", "intermediate", "jwt"):
        with pytest.raises(KeystoreError, match="has no trust domain"):
            rotate(tmp_path / "identity", NOW, None, what)
    with pytest.raises(KeystoreError, match="has no trust domain"):
        load_domain(tmp_path / "identity", None)


def test_keys_are_sealed_with_the_secret_from_the_start(tmp_path: Path) -> None:
    folder = tmp_path / "identity"
    ensure_domain(folder, TD, NOW, SECRET)
    for name, octets in contents(folder).items():
        assert b"BEGIN PRIVATE KEY" not in octets
        assert (b"ENCRYPTED" in octets) is name.endswith(".key")
    assert ensure_domain(folder, TD, NOW, SECRET) == Rotated()
    verified(load_domain(folder, SECRET), NOW)
    for step in (
        lambda: load_domain(folder, None),
        lambda: ensure_domain(folder, TD, NOW, None),
        lambda: rotate(folder, NOW, None, "intermediate"),
    ):
        with pytest.raises(KeystoreError, match=r"is encrypted: .*identity\.key_file"):
            step()
    for step in (
        lambda: load_domain(folder, OTHER),
        lambda: ensure_domain(folder, TD, NOW, OTHER),
        lambda: rotate(folder, NOW, OTHER, "intermediate"),
    ):
        with pytest.raises(KeystoreError, match="passphrase does not open"):
            step()
    rotate(folder, NOW, SECRET, "intermediate")
    assert all(b"BEGIN PRIVATE" not in octets for octets in contents(folder).values())


def test_a_secret_that_is_set_later_seals_at_the_next_start(folder: Path) -> None:
    assert ensure_domain(folder, TD, NOW, SECRET) == Rotated(sealed=True)
    assert all(b"BEGIN PRIVATE" not in octets for octets in contents(folder).values())
    assert ensure_domain(folder, TD, NOW, SECRET) == Rotated()


def test_resealing_changes_the_secret_and_nothing_else(folder: Path) -> None:
    before = record_of(folder)
    assert reseal(folder, None, SECRET)
    assert not reseal(folder, None, SECRET)
    assert reseal(folder, SECRET, OTHER)
    with pytest.raises(KeystoreError):
        load_domain(folder, SECRET)
    verified(load_domain(folder, OTHER), NOW)
    assert reseal(folder, OTHER, None)
    verified(load_domain(folder, None), NOW)
    assert record_of(folder) == before


def test_resealing_with_the_wrong_old_secret_changes_nothing(folder: Path) -> None:
    reseal(folder, None, SECRET)
    before = contents(folder)
    for old in (None, b"wrong"):
        with pytest.raises(KeystoreError, match="ca seal --from FILE"):
            reseal(folder, old, OTHER)
    assert contents(folder) == before


def test_the_roots_key_may_be_kept_elsewhere_until_it_is_needed(folder: Path) -> None:
    path = folder / f"{record_of(folder).roots[0].id}.key"
    away = path.read_bytes()
    path.unlink()
    assert ensure_domain(folder, TD, NOW, SECRET) == Rotated(sealed=True)
    verified(load_domain(folder, SECRET), NOW)
    with pytest.raises(KeystoreError, match="is missing: put it back"):
        rotate(folder, NOW, SECRET, "intermediate")
    due = NOW + s(INTERMEDIATE.life_s * 2 / 3)
    assert ensure_domain(folder, TD, due, SECRET) == Rotated(made=("jwt",), lacks_root=True)
    verified(load_domain(folder, SECRET), due)
    with pytest.raises(KeystoreError, match="is missing: put it back"):
        ensure_domain(folder, TD, NOW + s(INTERMEDIATE.life_s), SECRET)
    files.write(folder, path.name, away)
    assert ensure_domain(folder, TD, due, SECRET).made == ("intermediate",)


def test_svids_name_where_revocation_is_asked_for(folder: Path) -> None:
    where = Distribution(crl="http://127.0.0.1:1/crl", ocsp="http://127.0.0.1:1/ocsp")
    leaf = verified(load_domain(folder, None, where), NOW)
    points = leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert [each.value for point in points for each in point.full_name or []] == [where.crl]
    access = leaf.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    assert [each.access_location.value for each in access] == [where.ocsp]
    plain = verified(load_domain(folder, None), NOW)
    assert len(leaf.extensions) == len(plain.extensions) + 2


KILLED = """
import datetime as dt, os, signal, sys
from pathlib import Path
from certs import domain
folder, step, left = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
replace = os.replace
def counted(*arguments):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    replace(*arguments)
os.replace = counted
now = dt.datetime.fromtimestamp(float(sys.argv[4]), dt.UTC)
eval(step, {**vars(domain), "folder": folder, "now": now})
"""


def killed(folder: Path, step: str, renames: int, now: dt.datetime) -> None:
    """Run a step in a process that dies before a rename, as after `renames` of them."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", KILLED, str(folder), step, str(renames), str(now.timestamp())],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("renames", range(5))
def test_a_beginning_that_is_killed_is_mended_by_the_next(tmp_path: Path, renames: int) -> None:
    folder = tmp_path / "identity"
    killed(folder, "init_domain(folder, 'desk.example', now, None)", renames, NOW)
    made = ensure_domain(folder, TD, NOW, None)
    assert made.is_new is (renames < 4)
    verified(load_domain(folder, None), NOW)
    whole(folder)


@pytest.mark.parametrize("renames", range(2))
def test_a_rotation_that_is_killed_leaves_the_old_state(folder: Path, renames: int) -> None:
    before = record_of(folder)
    killed(folder, "rotate(folder, now, None, 'intermediate')", renames, NOW)
    assert record_of(folder) == before
    verified(load_domain(folder, None), NOW)
    ensure_domain(folder, TD, NOW, None)
    assert whole(folder) == before


@pytest.mark.parametrize("renames", range(4))
def test_a_forgotten_root_is_forgotten_wholly_or_not_at_all(folder: Path, renames: int) -> None:
    before = record_of(folder)
    killed(folder, "rotate(folder, now, None, 'root', forget=True)", renames, NOW)
    assert (record_of(folder) == before) is (renames < 3)
    ensure_domain(folder, TD, NOW, None)
    assert (whole(folder) == before) is (renames < 3)
    verified(load_domain(folder, None), NOW)


@pytest.mark.parametrize("renames", range(3))
def test_a_sealing_that_is_killed_is_finished_by_doing_it_again(folder: Path, renames: int) -> None:
    reseal(folder, None, SECRET)
    killed(folder, "reseal(folder, b'correct horse', b'battery staple')", renames, NOW)
    assert reseal(folder, SECRET, OTHER)
    verified(load_domain(folder, OTHER), NOW)
    whole(folder)


def test_who_reads_while_another_rotates_never_sees_half(folder: Path) -> None:
    stop = threading.Event()
    problems: list[Exception] = []

    def read() -> None:
        while not stop.is_set():
            try:
                known = read_domain(folder)
                assert known is not None
                x509.load_pem_x509_certificates(known.anchors.encode())
                verified(load_domain(folder, None), NOW)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what the test shows
                problems.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(10):
        rotate(folder, NOW, None, "root", forget=True)
        rotate(folder, NOW, None, "jwt", forget=True)
    stop.set()
    reader.join()
    assert problems == []
    assert whole(folder).sequence == 21


def test_the_bundle_of_pem_is_what_the_record_says(folder: Path) -> None:
    (folder / BUNDLE_PEM).unlink()
    ensure_domain(folder, TD, NOW, None)
    whole(folder)
    domain = load_domain(folder, None)
    found = x509.load_pem_x509_certificates((folder / BUNDLE_PEM).read_bytes())
    assert tuple(each.public_bytes(Encoding.DER) for each in found) == domain.anchors
