"""The house's own rules, where no tool that we use knows them."""

import ast
import re
import statistics
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("proxy", "rules", "certs", "scripts")
PRODUCT = ("proxy", "rules", "certs")
FUNCTION_LINES = 40
FILE_LINES = 400
LONGER: dict[str, str] = {}  # file or file:function -> why it may be longer
NAMELESS = {"utils", "helpers", "helper", "managers", "manager", "handlers", "handler"} | {
    "common",
    "base",
    "service",
    "core",
}
UNTESTED_ALONE = {
    "proxy/appliance.py": "the composition root: tests/live runs it whole",
    "proxy/__main__.py": "one line",
}
UNFINISHED = ("TO" + "DO", "FIX" + "ME", "NotImplemented" + "Error", "pragma: no" + " cover")
LOCKS = (
    *("requirements.lock", "requirements-dev.lock"),
    *("requirements-tpm.lock", "requirements-capture.lock"),
)
REGISTRIES = (
    *("pypi" + ".org", "files.python" + "hosted", "registry.npm" + "js", "deb." + "debian.org"),
    *("npm" + "js.com", "security.deb" + "ian"),
)
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|Users|work|opt|root)/[a-z]")


def python_files(rooms: tuple[str, ...]) -> list[Path]:
    return sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))


@cache
def tracked() -> tuple[Path, ...]:
    """Every file that is, or would be, in the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return tuple(path for line in listed if (path := ROOT / line).is_file())


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name and length in lines of each function, docstring not counted."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            text = first.value if isinstance(first, ast.Expr) else None
            doc = isinstance(text, ast.Constant) and isinstance(text.value, str)
            doc_lines = (first.end_lineno or 0) - first.lineno + 1 if doc else 0
            yield node.name, (node.end_lineno or 0) - node.lineno + 1 - doc_lines


def test_functions_fit_a_screen(report: list[str]) -> None:
    lengths = {
        f"{short(path)}:{name}": lines
        for path in python_files(ROOMS)
        for name, lines in functions(path)
    }
    report.append(f"{len(lengths)} functions, median {statistics.median(lengths.values())} lines")
    long = {where: lines for where, lines in lengths.items() if lines > FUNCTION_LINES}
    assert {where: lines for where, lines in long.items() if where not in LONGER} == {}


def test_files_fit_a_head(report: list[str]) -> None:
    lengths = {short(path): len(path.read_text().splitlines()) for path in python_files(ROOMS)}
    modules = [lines for where, lines in lengths.items() if not where.endswith("__init__.py")]
    report.append(f"{len(modules)} modules, median {statistics.median(modules)} lines")
    long = {where: lines for where, lines in lengths.items() if lines > FILE_LINES}
    assert {where: lines for where, lines in long.items() if where not in LONGER} == {}


def test_exceptions_are_still_needed() -> None:
    assert [where for where in LONGER if not (ROOT / where.partition(":")[0]).exists()] == []
    assert [where for where in UNTESTED_ALONE if not (ROOT / where).exists()] == []


def test_no_module_is_named_for_nothing() -> None:
    parts = {
        short(path): {*path.parts[len(ROOT.parts) : -1], path.stem} for path in python_files(ROOMS)
    }
    assert [where for where, names in parts.items() if names & NAMELESS] == []


def test_nothing_is_left_unfinished() -> None:
    found = [
        f"{short(path)}: {mark}"
        for path in tracked()
        if path.suffix == ".py"
        for mark in UNFINISHED
        if mark in path.read_text()
    ]
    assert found == []


def test_each_module_has_a_test_file_at_the_same_path() -> None:
    modules = [path for path in python_files(PRODUCT) if path.name != "__init__.py"]
    missing = [
        short(path)
        for path in modules
        if not (ROOT / "tests" / path.parent.relative_to(ROOT) / f"test_{path.name}").exists()
    ]
    assert [path for path in missing if path not in UNTESTED_ALONE] == []


def test_packages_hold_a_docstring_and_nothing_else() -> None:
    packages = [path for path in python_files((*ROOMS, "tests")) if path.name == "__init__.py"]
    more = [
        short(path)
        for path in packages
        if len(tree_of(path).body) != 1 or ast.get_docstring(tree_of(path)) is None
    ]
    assert more == []


def test_each_suppression_says_why() -> None:
    """`# noqa: CODE - reason` or a second comment; the same for type checkers."""
    bare = re.compile(r"#\s*(?:noqa(?::\s*[A-Z0-9, ]+)?|type:\s*ignore(?:\[[\w, -]+\])?)\s*$")
    found = [
        f"{short(path)}:{number}"
        for path in tracked()
        if path.suffix == ".py"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if bare.search(line)
    ]
    assert found == []


def test_tracked_files_name_no_registry_and_no_machine_path() -> None:
    found = []
    for path in tracked():
        text = path.read_bytes().decode(errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            if MACHINE_PATH.search(line) or any(host in line for host in REGISTRIES):
                found.append(f"{short(path)}:{number}: {line.strip()[:100]}")
    assert found == []


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_files_hold_exact_versions_hashes_and_no_address(lock: str) -> None:
    lines = (ROOT / lock).read_text().splitlines()
    pinned = [line for line in lines if re.match(r"[a-z0-9.-]+==\S+( ; .+)? \\$", line)]
    hashes = [line for line in lines if re.match(r" {4}--hash=sha256:[0-9a-f]{64}( \\)?$", line)]
    assert pinned
    assert len(pinned) + len(hashes) == len(lines)


def test_the_developers_lock_holds_the_same_versions_as_the_one_for_running() -> None:
    running, developing = (
        {line for line in (ROOT / lock).read_text().splitlines() if "==" in line}
        for lock in LOCKS[:2]
    )
    assert running <= developing
