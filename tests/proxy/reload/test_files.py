"""Rule files from disk: which are read, which are refused, and what the first run finds."""

import os
import re
import resource
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.reload.files import (
    FIRST_RULES,
    RuleFiles,
    _packs,
    check_listeners,
    public_suffixes,
    read_rules,
)
from rules.errors import Problem, RuleSyntaxError, Severity
from rules.name import parse
from rules.ruleset import App, IdentityLine, Ruleset
from rules.suffix import PublicSuffixes
from rules.text import FILE_OCTETS
from tests.test_style import REGISTRIES

ROOT = Path(__file__).resolve().parent.parent.parent.parent
NOBODY = 65534
RULES = "apps: {%s: {identity: [{process: {uid: %d}}], allow: [{host: %s}]}}\n"


@pytest.fixture(scope="session")
def suffixes() -> PublicSuffixes:
    return public_suffixes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "rules"
    made.mkdir(mode=0o700)
    return made


def write(path: Path, app: str = "a", uid: int = 4000, host: str = "example.com") -> Path:
    path.write_text(RULES % (app, uid, host))
    path.chmod(0o600)
    return path


def problems(suffixes: PublicSuffixes, *folders: Path, first_run: bool = False) -> list[Problem]:
    with pytest.raises(RuleSyntaxError) as raised:
        read_rules([str(each) for each in folders], 1, suffixes, first_run=first_run)
    return list(raised.value.problems)


def loaded(suffixes: PublicSuffixes, *folders: Path, first_run: bool = False) -> RuleFiles:
    return read_rules([str(each) for each in folders], 7, suffixes, first_run=first_run)


def test_every_yaml_file_of_every_folder_is_read_in_order(
    tmp_path: Path, suffixes: PublicSuffixes
) -> None:
    one, two = tmp_path / "2-first", tmp_path / "1-second"
    for made in (one, two):
        made.mkdir(mode=0o700)
    written = [
        write(one / "10.yaml", "a", 1),
        write(one / "9.yaml", "b", 2),
        write(two / "0.yaml", "c", 3),
    ]
    write(one / "10.yml", "d", 5)
    write(one / "10.yaml.bak", "e", 6)
    (one / "sub").mkdir()
    write(one / "sub" / "x.yaml", "f", 7)
    read = loaded(suffixes, one, two)
    assert read.files == tuple(map(str, written))
    assert list(read.loaded.ruleset.apps) == ["a", "b", "c"]
    assert read.loaded.ruleset.generation == 7
    assert read.notes == ()


def test_a_hidden_file_is_an_editors_own(folder: Path, suffixes: PublicSuffixes) -> None:
    write(folder / "a.yaml")
    (folder / ".#a.yaml").symlink_to("admin@host.1234")
    write(folder / ".a.yaml", "b")
    assert list(loaded(suffixes, folder).loaded.ruleset.apps) == ["a"]


def test_a_world_writable_file_is_nobodys_rule(folder: Path, suffixes: PublicSuffixes) -> None:
    file = write(folder / "a.yaml")
    file.chmod(0o602)
    (problem,) = problems(suffixes, folder)
    assert problem.place.file == str(file)
    assert "every user may write it" in problem.message
    assert problem.cure == f"chmod o-w {file}"


def test_a_world_writable_folder_is_nobodys_rules(folder: Path, suffixes: PublicSuffixes) -> None:
    write(folder / "a.yaml")
    folder.chmod(0o1777)  # nor does the sticky bit help: whoever may add a file adds rules
    (problem,) = problems(suffixes, folder)
    assert problem.place.file == str(folder)
    assert problem.cure == f"chmod o-w {folder}"


def test_a_world_writable_empty_folder_gets_no_first_rules(
    folder: Path, suffixes: PublicSuffixes
) -> None:
    folder.chmod(0o777)
    (problem,) = problems(suffixes, folder, first_run=True)
    assert problem.cure == f"chmod o-w {folder}"
    assert list(folder.iterdir()) == []


@pytest.mark.timeout(10)
def test_a_fifo_does_not_hang(folder: Path, suffixes: PublicSuffixes) -> None:
    os.mkfifo(folder / "x.yaml", 0o600)
    (problem,) = problems(suffixes, folder)
    assert problem.message == "is no regular file"
    assert problem.cure == "write the rules into a regular file"


def test_a_socket_and_a_folder_are_no_rule_files(folder: Path, suffixes: PublicSuffixes) -> None:
    (folder / "a.yaml").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "b.yaml"))
        found = problems(suffixes, folder)
    assert [Path(each.place.file).name for each in found] == ["a.yaml", "b.yaml"]
    assert {each.cure for each in found} == {"write the rules into a regular file"}


def test_what_is_not_utf_8_is_refused(folder: Path, suffixes: PublicSuffixes) -> None:
    (folder / "a.yaml").write_bytes(b"apps: {}\n# caf\xe9\n")
    (problem,) = problems(suffixes, folder)
    assert problem.message == "is not UTF-8 (octet 14)"
    assert problem.cure == "save the file as UTF-8"


def test_a_byte_order_mark_is_no_error(folder: Path, suffixes: PublicSuffixes) -> None:
    file = write(folder / "a.yaml")
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert list(loaded(suffixes, folder).loaded.ruleset.apps) == ["a"]


def test_a_name_that_is_not_utf_8_can_still_be_told(folder: Path, suffixes: PublicSuffixes) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.yaml")).write_bytes(b"apps: [\n")
    (problem,) = problems(suffixes, folder)
    assert problem.place.file == f"{folder}/\\xff.yaml"
    assert problem.render().encode()


def test_a_file_is_read_up_to_a_bound(folder: Path, suffixes: PublicSuffixes) -> None:
    file = folder / "a.yaml"
    file.touch(mode=0o600)
    os.truncate(file, 1 << 40)  # of holes
    (problem,) = problems(suffixes, folder)
    assert problem.message == f"is larger than {FILE_OCTETS} octets"
    assert problem.cure == "split the file"


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path, suffixes: PublicSuffixes) -> None:
    missing = tmp_path / "none"
    (problem,) = problems(suffixes, missing)
    assert problem.message == "the folder does not exist"
    assert problem.cure == f"mkdir -p {missing}"


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path, suffixes: PublicSuffixes) -> None:
    file = write(tmp_path / "a.yaml")
    inside, itself = problems(suffixes, file / "rules", file)
    assert "a file stands where a folder should" in inside.cure
    assert itself.message == "is no folder"


def test_a_link_is_followed_and_its_target_judged(
    folder: Path, tmp_path: Path, suffixes: PublicSuffixes
) -> None:
    target = write(tmp_path / "target")
    link = folder / "a.yaml"
    link.symlink_to(target)
    assert loaded(suffixes, folder).files == (str(link),)
    target.chmod(0o666)
    (problem,) = problems(suffixes, folder)
    assert "every user may write it" in problem.message


def test_a_link_to_nothing_and_one_to_itself_are_problems(
    folder: Path, suffixes: PublicSuffixes
) -> None:
    (folder / "a.yaml").symlink_to("nowhere")
    (folder / "b.yaml").symlink_to("b.yaml")
    nothing, itself = problems(suffixes, folder, first_run=True)
    assert nothing.cure == "remove it: it is a link to nothing"
    assert itself.cure == "remove it: it is a link to itself"


def test_a_folder_may_be_a_link(folder: Path, tmp_path: Path, suffixes: PublicSuffixes) -> None:
    write(folder / "a.yaml")
    (tmp_path / "link").symlink_to(folder)
    assert loaded(suffixes, tmp_path / "link").files == (f"{tmp_path}/link/a.yaml",)


def test_every_problem_of_every_file_is_told_at_once(
    folder: Path, tmp_path: Path, suffixes: PublicSuffixes
) -> None:
    write(folder / "a.yaml").chmod(0o666)
    (folder / "b.yaml").write_bytes(b"\xff")
    (folder / "c.yaml").write_text("aps: {}\n")
    write(folder / "d.yaml", host="192.0.2.1")
    write(folder / "e.yaml", app="fine", uid=4001)
    found = problems(suffixes, folder, tmp_path / "none")
    names = [Path(each.place.file).name for each in found]
    assert sorted(names) == ["a.yaml", "b.yaml", "c.yaml", "d.yaml", "none"]
    assert all(each.cure for each in found)


def test_one_unreadable_file_is_enough_to_load_nothing(
    folder: Path, suffixes: PublicSuffixes
) -> None:
    write(folder / "a.yaml")
    write(folder / "b.yaml", "b", 4001).chmod(0o666)
    (problem,) = problems(suffixes, folder)
    assert problem.place.file.endswith("b.yaml")


# A child without root's power to read everything; what it needs of ours is imported before.
UNPRIVILEGED = f"""
import os, sys
from proxy.reload.files import _read_folders
if os.geteuid() == 0:
    os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
for problem in _read_folders(sys.argv[1:], missing_is_fine=False)[1]:
    print(problem.render())
"""


def test_what_cannot_be_read_is_named_with_its_cure() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        file, locked = write(folder / "a.yaml"), folder / "locked"
        locked.mkdir()
        file.chmod(0)
        locked.chmod(0)
        said = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED, folder, locked],
            cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
        ).stdout  # fmt: skip
    assert f"{file}:1:1: error: cannot be read: Permission denied" in said
    assert f"cure: chmod u+r {file}, or chown it" in said
    assert f"{locked}:1:1: error: cannot be read" in said
    assert f"cure: chmod u+rx {locked}, or chown it" in said


def test_the_first_run_writes_rules_for_this_user(tmp_path: Path, suffixes: PublicSuffixes) -> None:
    folder = tmp_path / "new" / "rules"
    read = loaded(suffixes, folder, first_run=True)
    file = folder / FIRST_RULES
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert f"process: {{uid: {os.getuid()}}}" in file.read_text()
    assert read.files == (str(file),)
    assert read.notes == (f"first run: wrote {file}",)
    assert read.loaded.warnings == ()
    app = read.loaded.ruleset.apps["me"]
    assert [line.uid for line in app.identity] == [os.getuid()]
    (rule,) = app.allows
    assert sorted(str(pattern) for pattern in rule.patterns) == ["example.com", "example.org"]
    assert rule.ports == {80, 443}


def test_the_second_run_reads_what_the_first_one_wrote(
    tmp_path: Path, suffixes: PublicSuffixes
) -> None:
    first = loaded(suffixes, tmp_path / "rules", first_run=True)
    second = loaded(suffixes, tmp_path / "rules", first_run=True)
    assert second.notes == ()
    assert second.files == first.files
    assert second.loaded.ruleset == first.loaded.ruleset


def test_no_first_rules_beside_rules_of_ones_own(folder: Path, suffixes: PublicSuffixes) -> None:
    write(folder / "mine.yaml")
    assert list(loaded(suffixes, folder, first_run=True).loaded.ruleset.apps) == ["a"]
    assert not (folder / FIRST_RULES).exists()


def test_no_first_rules_beside_broken_ones(folder: Path, suffixes: PublicSuffixes) -> None:
    (folder / "mine.yaml").write_bytes(b"\xff")
    assert len(problems(suffixes, folder, first_run=True)) == 1
    assert not (folder / FIRST_RULES).exists()


def test_no_first_rules_where_the_operator_named_a_folder(
    folder: Path, suffixes: PublicSuffixes
) -> None:
    read = loaded(suffixes, folder)
    assert read.files == ()
    assert read.loaded.ruleset.apps == {}
    assert list(folder.iterdir()) == []


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder in which nobody can write, not even root."""
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o500)
    if os.geteuid() != 0:
        yield folder
        return
    options = ["-t", "tmpfs", "-o", "ro,mode=0700,size=4096", "tmpfs"]
    subprocess.run(["mount", *options, folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_in_a_read_only_folder_the_first_rules_are_used_from_memory(
    read_only: Path, suffixes: PublicSuffixes
) -> None:
    for folder in (read_only, read_only / "rules"):
        read = loaded(suffixes, folder, first_run=True)
        assert list(read.loaded.ruleset.apps) == ["me"]
        assert read.in_memory
        (note,) = read.notes
        assert re.fullmatch(rf"{folder}/me.yaml cannot be written \(.+\); .* from memory", note)


def test_half_written_first_rules_are_taken_back(folder: Path, suffixes: PublicSuffixes) -> None:
    """A full disk at the first start must not leave an empty file for the second."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, before[1]))  # CPython ignores SIGXFSZ
    try:
        read = loaded(suffixes, folder, first_run=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(read.loaded.ruleset.apps) == ["me"]
    assert "used from memory" in read.notes[0]
    assert list(folder.iterdir()) == []


def named_by(*listeners: str) -> Ruleset:
    lines = tuple(
        IdentityLine(f"rules/a.yaml:{number}", listener=each)
        for number, each in enumerate(listeners, 5)
    )
    process = IdentityLine("rules/a.yaml:4", uid=1)
    return Ruleset(1, {"a": App("a", identity=(process, *lines))})


def test_listeners_that_we_bind_may_name_an_app() -> None:
    check_listeners(named_by("127.0.0.1:5300", "[::1]:53"), {"127.0.0.1:5300", "[::1]:53"})
    check_listeners(named_by(), set())


def test_a_listener_that_we_do_not_bind_is_told_with_its_line_and_the_ones_there_are() -> None:
    with pytest.raises(RuleSyntaxError) as raised:
        check_listeners(named_by("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"),
                        {"127.0.0.1:9", "127.0.0.1:2"})  # fmt: skip
    first, second = raised.value.problems
    assert str(first.place) == "rules/a.yaml:5:1"
    assert "listener 127.0.0.1:1 " in first.message
    assert first.cure.endswith("or name one of 127.0.0.1:2, 127.0.0.1:9")
    assert second.place.line == 7


def test_without_any_listener_the_cure_names_none() -> None:
    with pytest.raises(RuleSyntaxError) as raised:
        check_listeners(named_by("127.0.0.1:1"), set())
    (problem,) = raised.value.problems
    assert problem.cure == "add it to `listen:` in sallyport.yaml"


def test_the_installed_suffix_list_is_read(suffixes: PublicSuffixes) -> None:
    assert suffixes.registrable(parse("a.b.example.co.uk")) == "example.co.uk"


def test_every_pack_loads_without_a_warning(folder: Path, suffixes: PublicSuffixes) -> None:
    packs = _packs()
    assert "llm" in packs
    used = ", ".join(f"{{pack: {name}}}" for name in packs)
    (folder / "a.yaml").write_text(
        f"apps: {{a: {{identity: [{{process: {{uid: 1}}}}], allow: [{used}]}}}}\n"
    )
    read = loaded(suffixes, folder)
    assert read.loaded.warnings == ()
    assert len(read.loaded.ruleset.apps["a"].allows) >= len(packs)


def test_no_pack_names_a_registry_of_packages() -> None:
    texts = {name: source.text for name, source in _packs().items()}
    named = [(name, host) for name, text in texts.items() for host in REGISTRIES if host in text]
    assert named == []


@pytest.fixture
def roots(tmp_path: Path) -> Iterator[Path]:
    """A folder that only root could have put there: `tmp_path` is below one that is sticky."""
    if os.geteuid() != 0:
        pytest.fail("run as root: --system is about what is root's")
    made = tmp_path / "rules"
    made.mkdir(mode=0o755)
    write(made / "a.yaml").chmod(0o644)
    yield made
    os.chown(made, 0, 0)


def system_problems(suffixes: PublicSuffixes, folder: Path) -> list[Problem]:
    with pytest.raises(RuleSyntaxError) as raised:
        read_rules([str(folder)], 1, suffixes, first_run=False, system=True)
    return list(raised.value.problems)


def test_the_system_takes_what_is_roots_alone(roots: Path, suffixes: PublicSuffixes) -> None:
    read = read_rules([str(roots)], 1, suffixes, first_run=False, system=True)
    assert list(read.loaded.ruleset.apps) == ["a"]


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_a_group_may_write_is_refused_under_system_only(
    roots: Path, suffixes: PublicSuffixes, what: str
) -> None:
    """threats.md, Identity: same-uid agents outside a sandbox rewrite rules."""
    path = roots / "a.yaml" if what == "file" else roots
    path.chmod(0o775)
    (problem,) = system_problems(suffixes, roots)
    assert problem.place.file == str(path)
    assert problem.cure == f"chmod g-w {path}"
    assert list(loaded(suffixes, roots).loaded.ruleset.apps) == ["a"]


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_is_not_roots_is_refused_under_system_only(
    roots: Path, suffixes: PublicSuffixes, what: str
) -> None:
    path = roots / "a.yaml" if what == "file" else roots
    os.chown(path, NOBODY, -1)
    (problem,) = system_problems(suffixes, roots)
    assert problem.place.file == str(path)
    assert problem.message.startswith(f"it is user {NOBODY}'s")
    assert problem.cure == f"chown root {path}"
    assert list(loaded(suffixes, roots).loaded.ruleset.apps) == ["a"]


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_a_folder_above_that_others_may_write_is_refused_under_system(
    roots: Path, suffixes: PublicSuffixes, mode: int
) -> None:
    """Whoever may rename the folder may put another in its place."""
    roots.parent.chmod(mode)
    (problem,) = system_problems(suffixes, roots)
    assert problem.cure == f"chown root {roots.parent} && chmod go-w {roots.parent}"
    roots.parent.chmod(mode | 0o1000)  # sticky: what is root's stays where it is
    assert read_rules([str(roots)], 1, suffixes, first_run=False, system=True).files


def test_a_file_behind_a_link_is_judged_where_it_is(
    roots: Path, tmp_path: Path, suffixes: PublicSuffixes
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write(elsewhere / "b.yaml", "b", 4001).chmod(0o644)
    (roots / "b.yaml").symlink_to(elsewhere / "b.yaml")
    os.chown(elsewhere, NOBODY, -1)
    (problem,) = system_problems(suffixes, roots)
    assert problem.place.file == str(roots / "b.yaml")
    assert str(elsewhere) in problem.cure


def test_equal_files_have_equal_digests(folder: Path, suffixes: PublicSuffixes) -> None:
    write(folder / "a.yaml")
    first = loaded(suffixes, folder)
    assert loaded(suffixes, folder).digest == first.digest
    write(folder / "a.yaml", host="example.org")
    assert loaded(suffixes, folder).digest != first.digest
    assert not first.in_memory


def test_a_certificate_that_cannot_be_read_is_a_warning_with_its_place(
    folder: Path, suffixes: PublicSuffixes
) -> None:
    (folder / "tls.pem").write_text("")
    path = folder / "a.yaml"
    entry = "{host: a.example.com, ports: [80], https_upgrade: true, client_certificate:"
    text = f"apps:\n  me:\n    allow:\n      - {entry} {{cert: tls.pem, key: tls.key}}}}\n"
    path.write_text(text)
    path.chmod(0o600)
    (warning,) = loaded(suffixes, folder).loaded.warnings
    assert str(warning.place) == f"{path}:4:106"
    assert warning.severity is Severity.WARNING
    assert warning.message == (
        f"{folder}/tls.key cannot be read: No such file or directory; requests end as upstream-tls"
    )
    assert warning.excerpt == text.splitlines()[3]
    (folder / "tls.key").write_text("")
    assert loaded(suffixes, folder).loaded.warnings == ()
