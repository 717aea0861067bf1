"""The tour of docs/attestation.md, typed: a TPM is enrolled, proves, is changed, and is cut off.

The TPM is swtpm; the resource server is a sample that asks the appliance about each token.
"""

import asyncio
import json
import re
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any, override

import pytest

from tests import swtpm
from tests.internet import Internet, Namespace, until
from tests.live.appliance import ROOT, Appliance, Folders, running
from tests.live.identity_stand import Desk
from tests.resource_server import ResourceServer
from tests.swtpm import Swtpm, Vendor

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(bool(swtpm.missing()), reason=swtpm.missing()),
]

DOCUMENTS = "spiffe://sallyport.internal/documents"
DOCUMENT = 'curl -sS -H "Authorization: Bearer $(cat token)" http://127.0.0.1:8090/documents'
WEB = "web http://example.com/"
# What each line of the page's block shows.
SHOWN = {
    "sallyport ca export --out sallyport-ca.pem": (),
    "sallyport svid builder --out id": ("spiffe://sallyport.internal/builder",),
    WEB: ('"reason":"attestation-required"', "sallyport attest"),
    "prove attest --json": ('"level":"tpm"',),
    "ask example.com": ("NOERROR", "93.184.215.14"),
    f"{WEB} ": ("An example",),
    f"prove exchange --audience {DOCUMENTS} --scope read-project-x:documents >token": (),
    DOCUMENT: ('"documents"',),
    "prove exchange --revoke token": ("given back",),
    f"{DOCUMENT} ": ("the token is void",),
    'tpm2_pcrextend -T "$TPM" 16:sha256=$(echo other | sha256sum | cut -c1-64)': (),
    "prove attest": ("PCR 16", "reference_values"),
    "ask example.com ": ("REFUSED", "sallyport revoked"),
    f"{WEB}  ": ('"reason":"revoked"',),
    "sallyport agents --json": ('"state":"revoked"',),
    "sallyport why --last --app builder": ("attest-refused", "PCR 16"),
}


def blocks(language: str) -> list[str]:
    """Return the blocks of the page's tour that are in `language`."""
    page = (ROOT / "docs" / "attestation.md").read_text()
    tour = page.partition("\n## A tour with a TPM\n")[2].partition("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", tour, re.DOTALL)


def lines() -> list[str]:
    """Return the commands, without their comments."""
    return [line.partition(" #")[0].strip() for line in blocks("sh")[1].splitlines()]


class Documents(threading.Thread):
    """The sample resource server, in a namespace, with a certificate of its own."""

    def __init__(self, space: Namespace, folder: Path, ca: Path) -> None:
        super().__init__(daemon=True)
        self._space = space
        self._folder = folder
        self._ca = ca
        self._ended: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.port = 0

    @override
    def run(self) -> None:
        with self._space.entered():
            asyncio.run(self._serve())

    def end(self) -> None:
        if self._loop is not None and self._ended is not None:
            self._loop.call_soon_threadsafe(self._ended.set)
        self.join(10)

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        server = ResourceServer(
            DOCUMENTS,
            "sallyport.internal",
            self._keys,
            time.time,
            scope="read-project-x:documents",
            introspect=self._introspect,
        )
        await server.start()
        self.port = server.port
        await self._ended.wait()
        await server.close()

    def _keys(self) -> bytes:
        return self._asked("GET", "/jwks.json")

    async def _introspect(self, token: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = json.loads(self._asked("POST", "/introspect", f"token={token}"))
        return found

    def _asked(self, method: str, path: str, form: str | None = None) -> bytes:
        context = ssl.create_default_context(cafile=str(self._ca))
        context.load_cert_chain(self._folder / "svid.pem", self._folder / "svid.key")
        connection = HTTPSConnection("localhost", 8443, timeout=10, context=context)
        fields = {"Content-Type": "application/x-www-form-urlencoded"} if form else {}
        with closing(connection):
            connection.request(method, path, form, fields)
            return connection.getresponse().read()


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swtpm]:
    with Swtpm(tmp_path_factory.mktemp("tpm"), Vendor()) as stand:
        yield stand


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tpm: Swtpm) -> Folders:
    made = Folders(tmp_path_factory.mktemp("home"))
    pems = (ssl.DER_cert_to_PEM_cert(each) for each in (tpm.vendor.root, *tpm.vendor.above))
    Path(made.env["HOME"], "tpm-root.pem").write_text("".join(pems))
    return made


@pytest.fixture(scope="module")
def started(internet: Internet, folders: Folders) -> Iterator[Appliance]:
    said, rules = blocks("yaml")[0].split("# rules/builder.yaml\n")
    said = said.replace("/etc/sallyport/tpm-root.pem", f"{folders.env['HOME']}/tpm-root.pem")
    folders.configure(f"{said}\nresolver: {{upstream_ca: {internet.ca}}}\n")
    folders.rule(rules)
    with running(internet.agent, folders) as appliance:
        yield appliance


@pytest.fixture(scope="module")
def documents(
    internet: Internet,
    folders: Folders,
    started: Appliance,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Documents]:
    desk = Desk(internet.agent, folders, started)
    folder = tmp_path_factory.mktemp("documents")
    desk.cli("ca", "export", "--out", folder / "ca.pem")
    server = Documents(internet.agent, desk.svid("documents", folder / "id"), folder / "ca.pem")
    server.start()
    until(lambda: bool(server.port), "the resource server listens")
    yield server
    server.end()


def test_the_page_has_these_lines_in_this_order() -> None:
    assert lines() == [line.strip() for line in SHOWN]


def test_each_line_shows_what_it_says(
    internet: Internet, folders: Folders, tpm: Swtpm, started: Appliance, documents: Documents
) -> None:
    """A relying party sees the same as the planes; a changed PCR ends it all."""
    prelude = re.sub(r"TPM=\S+", f"TPM={tpm.tcti}", blocks("sh")[0])
    for line, expected in SHOWN.items():
        assert started.process.poll() is None, started.wait()
        typed = line.replace(":8090/", f":{documents.port}/")
        ended = internet.run(["bash", "-c", f"cd\n{prelude}\n{typed}"], env=folders.env)
        shown = ended.stdout + ended.stderr
        assert all(text in shown for text in expected), f"{line}: {shown}"
