"""Registries of one tiny package each, laid out for the web server of the test internet."""

import base64
import hashlib
import io
import subprocess
import tarfile
import zipfile
from pathlib import Path

import msgspec

from tests.internet import need

HOST = "example.com"


def lay_out(www: Path) -> None:
    """Put an index for pip, a registry for npm and a repository for apt into the web space."""
    pip_index(www / "simple" / "tiny")
    npm_registry(www / "npm")
    apt_repository(www / "apt")


def pip_index(folder: Path) -> None:
    """Write a wheel and the page that names it (PEP 503)."""
    folder.mkdir(parents=True, exist_ok=True)
    info = "tiny-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", "")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    (folder / "index.html").write_text('<a href="tiny-1.0-py3-none-any.whl">tiny</a>')


def npm_registry(folder: Path) -> None:
    """Write a tarball, and for each scheme the document that names it."""
    manifest = b'{"name": "tiny", "version": "1.0.0"}'
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        entry = tarfile.TarInfo("package/package.json")
        entry.size = len(manifest)
        archive.addfile(entry, io.BytesIO(manifest))
    digest = base64.b64encode(hashlib.sha512(packed.getvalue()).digest()).decode()
    for scheme in ("http", "https"):
        (folder / scheme).mkdir(parents=True, exist_ok=True)
        (folder / scheme / "tiny.tgz").write_bytes(packed.getvalue())
        tarball = f"{scheme}://{HOST}/npm/{scheme}/tiny.tgz"
        version = {
            "name": "tiny",
            "version": "1.0.0",
            "dist": {"tarball": tarball, "integrity": f"sha512-{digest}"},
        }
        document = {
            "name": "tiny",
            "dist-tags": {"latest": "1.0.0"},
            "versions": {"1.0.0": version},
        }
        (folder / scheme / "tiny").write_bytes(msgspec.json.encode(document))


def apt_repository(folder: Path) -> None:
    """Write a package and the index of a flat repository (deb822(5), sources.list(5))."""
    control = (
        "Package: tiny\nVersion: 1\nArchitecture: all\n"
        "Maintainer: Nobody <nobody@example.com>\nDescription: tiny\n"
    )
    tree = folder / "tree" / "DEBIAN"
    tree.mkdir(parents=True, exist_ok=True)
    (tree / "control").write_text(control)
    package = folder / "tiny.deb"
    subprocess.run(
        [need("dpkg-deb"), "--build", tree.parent, package], check=True, capture_output=True
    )
    octets = package.read_bytes()
    digest = hashlib.sha256(octets).hexdigest()
    index = f"{control}Filename: ./tiny.deb\nSize: {len(octets)}\nSHA256: {digest}\n"
    (folder / "Packages").write_text(index)


def apt_settings(folder: Path, repository: str, proxy: str, ca: Path) -> Path:
    """Give apt a world of its own below `folder`; return the file for APT_CONFIG."""
    for path in ("etc/apt.conf.d", "etc/preferences.d", "state/lists/partial", "cache/archives"):
        (folder / path).mkdir(parents=True, exist_ok=True)
    (folder / "cache/archives/partial").mkdir(exist_ok=True)
    (folder / "status").touch()
    (folder / "etc/sources.list").write_text(f"deb [trusted=yes] {repository} ./\n")
    settings = folder / "apt.conf"
    settings.write_text(f"""
Dir::Etc "{folder}/etc";
Dir::State "{folder}/state";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
Acquire::http::Proxy "{proxy}";
Acquire::https::Proxy "{proxy}";
Acquire::https::CaInfo "{ca}";
Acquire::Languages "none";
APT::Sandbox::User "root";
""")
    settings.chmod(0o600)
    return settings
