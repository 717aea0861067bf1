"""The image of the Dockerfile, built by buildah on a base of debootstrap, and containers of it.

Nothing is pulled: the base is a minimal Debian of this host's own release, from where apt of this
host is configured to, with the Python that runs the tests.  Packages come through this host's pip.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.internet import PATH, Namespace, need
from tests.live.appliance import ROOT

TOOLS = ("buildah", "debootstrap", "unshare", "chroot")
ROOM_OCTETS = 4 << 30  # vfs copies a layer of 300 MB a few times
PREFIX = Path(sys.base_prefix)
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
LEFT_OUT = shutil.ignore_patterns(
    "__pycache__", "test", "idlelib", "tkinter", "turtledemo", "config-*", "site-packages"
)
USER = "10053:10053"


def skip_where_it_cannot_be() -> None:
    """Skip with the reason where this host cannot build images."""
    if os.geteuid() != 0:
        pytest.skip("needs root to make a base image and to mount")
    missing = [tool for tool in TOOLS if shutil.which(tool, path=PATH) is None]
    if missing:
        pytest.skip(f"needs apt-get install --no-install-recommends {' '.join(missing)}")
    if str(PREFIX) == "/usr":
        pytest.skip("needs a Python of its own prefix, which can be copied into a base image")
    if mirror() is None:
        pytest.skip("apt of this host names no mirror")


def mirror() -> tuple[str, str] | None:
    """Return the release of this host and where its packages are, as apt is configured."""
    base = run("apt-get", "indextargets", "--format", "$(REPO_URI)|$(CODENAME)|$(COMPONENT)")
    own = re.search(r"(?m)^VERSION_CODENAME=(\S+)", Path("/etc/os-release").read_text())
    for line in base.splitlines():
        place, release, component = line.split("|")
        if own is not None and release == own[1] and component == "main":
            return release, place
    return None


def run(*argv: str | Path, wait_s: float = 240) -> str:
    """Run a command to its end; what it says on failure is the failure."""
    ended = subprocess.run(
        [need(str(argv[0])), *map(str, argv[1:])],
        capture_output=True, text=True, check=False, timeout=wait_s, cwd=ROOT,
    )  # fmt: skip
    if ended.returncode:
        pytest.fail(f"{argv[0]}: {(ended.stdout + ended.stderr)[-3000:]}")
    return ended.stdout


class Store:
    """A store of images of its own, gone after the tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._options = (
            *("--root", f"{folder}/store", "--runroot", f"{folder}/run"),
            *("--storage-driver", "vfs"),
        )

    def buildah(self, *arguments: str | Path) -> str:
        """Run buildah on this store."""
        return run("buildah", *self._options, *arguments).strip()

    def build(self) -> dict[str, Any]:
        """Build the image and return its configuration."""
        make_base(self.folder / "base")
        container = self.buildah("from", "scratch")
        self.buildah("add", "--quiet", container, self.folder / "base", "/")
        self.buildah("commit", "--quiet", "--rm", container, "base")
        shutil.rmtree(self.folder / "base")
        wheels = self.folder / "wheels"
        download(wheels)
        configuration = self.folder / "pip.conf"
        configuration.write_text("[global]\nno-index = true\nfind-links = /wheels\n")
        self.buildah(
            *("bud", "--format", "docker", "--isolation", "chroot"),
            *("--build-arg", "BASE=localhost/base", "--tag", "sallyport"),
            *("--volume", f"{wheels}:/wheels:ro"),
            *("--volume", f"{configuration}:/etc/pip.conf:ro"),
            ROOT,
        )
        text = self.buildah("inspect", "--type", "image", "sallyport")
        found: dict[str, Any] = msgspec.json.decode(text)["Docker"]["config"]
        return found

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Path]:
        """Yield the root file system of a new container."""
        container = self.buildah("from", "sallyport")
        yield Path(self.buildah("mount", container))
        self.buildah("umount", container)
        self.buildah("rm", container)


@contextlib.contextmanager
def opened_store() -> Iterator[Store]:
    """Make a store, in memory where there is room; remove it."""
    shm = Path("/dev/shm")  # noqa: S108 - the folder below is made by mkdtemp
    in_memory = shm.is_dir() and shutil.disk_usage(shm).free > ROOM_OCTETS
    folder = Path(tempfile.mkdtemp(prefix="sallyport-image-", dir=shm if in_memory else None))
    folder.chmod(0o755)
    try:
        yield Store(folder)
    finally:
        shutil.rmtree(folder)


def make_base(base: Path) -> None:
    """Make a minimal Debian with the Python of the tests as `python3`."""
    found = mirror()
    assert found is not None
    release, place = found
    run("debootstrap", "--variant=minbase", release, base, place)
    local = base / "usr" / "local"
    for name in (f"bin/{PYTHON}", f"lib/{PYTHON}"):
        source = PREFIX / name
        if source.is_dir():
            shutil.copytree(source, local / name, symlinks=True, ignore=LEFT_OUT)
        else:
            shutil.copy2(source, local / name)
    (local / "bin" / "python3").symlink_to(PYTHON)
    copy_libraries(base, local)
    for waste in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc"):
        shutil.rmtree(base / waste)
    run("chroot", base, "ldconfig")


def copy_libraries(base: Path, local: Path) -> None:
    """Copy what the interpreter is linked with: the base is of the same release as this host."""
    binaries = [local / "bin" / PYTHON, *(local / "lib" / PYTHON / "lib-dynload").glob("*.so")]
    linked = subprocess.run(
        [need("ldd"), *binaries], capture_output=True, text=True, check=False
    ).stdout
    for name, where in set(re.findall(r"(\S+) => (/\S+)", linked)):
        there = [base / part / name for part in (f"lib/{triplet()}", f"usr/lib/{triplet()}")]
        if not any(each.exists() for each in there):
            shutil.copy2(Path(where).resolve(), local / "lib" / name)


def triplet() -> str:
    """Return the folder of this host's libraries, as Debian's multiarch has it."""
    return f"{os.uname().machine}-linux-gnu"


def download(wheels: Path) -> None:
    """Fetch what requirements.lock names, as pip of this host is configured."""
    run(
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
        "--only-binary", ":all:", "--require-hashes", "--requirement", "requirements.lock",
        "--dest", wheels,
    )  # fmt: skip


class Container:
    """A root file system that is run as a container is: read-only, in a network of its own."""

    def __init__(self, root: Path, rules: Path, config: dict[str, Any], net: Namespace) -> None:
        self._root = root
        self._rules = rules
        self._config = config
        self.net = net
        self.state = rules.parent / "state"
        self.state.mkdir()
        uid, gid = map(int, USER.split(":"))
        os.chown(self.state, uid, gid)
        self.state.chmod(0o700)

    def argv(self, command: Sequence[str]) -> list[str]:
        """Return what runs `command` in it, as its user; mounts are gone with the process."""
        root = self._root
        mounts = [
            f"mount --bind {root} {root}",
            f"mount -t proc proc {root}/proc",
            f"mount --bind {self.state} {root}/var/lib/sallyport",
            f"mount --bind {self._rules} {root}/etc/sallyport/rules",
            f"mount -o remount,ro,bind {root}/etc/sallyport/rules",
            f"mount -o remount,ro,bind {root}",
            f'exec chroot --userspec={self._config["User"]} --groups= {root} env -i "$@"',
        ]
        inside = ["unshare", "--mount", "sh", "-ec", "\n".join(mounts), "sh"]
        return [*inside, *self._config["Env"], *command]

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        return self.net.run(self.argv(command))

    @property
    def main(self) -> list[str]:
        """What it runs when nothing else is said."""
        return [*self._config["Entrypoint"], *self._config["Cmd"]]

    @property
    def health(self) -> list[str]:
        """The command of its health check."""
        kind, *command = self._config["Healthcheck"]["Test"]
        assert kind == "CMD"
        return [str(word) for word in command]
