"""Attestation under load: the round trip, what a gate costs a request, a thousand agents.

`attest` is measured from the first octet of `POST /attest/nonce` to the last of the result, on a
warm connection with a client certificate; the signature of the software key in between is the
client's, and not counted.  `attested-request` holds requests of an app that requires an
attestation against those of one that requires its certificate alone.
"""

import base64
import json
import socket
import ssl
import statistics
import sys
import time
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Struct

from certs.quote import verify_quote
from scripts.benches.ground import ORIGIN, Server
from scripts.benches.identity import ID, PROXY_TLS_PORT, certificate_of, request_us, run_ns
from scripts.benches.identity import ours as certified
from scripts.benches.planes import Plan, Result, ground, running
from scripts.benches.servers import PROXY_PORT, Peer
from scripts.benches.workloads import on_loads_core

BENCHES = ("attest", "attest-tpm", "attested-request", "attested-agents")
P50_MS = 3.0
VERIFY_MS = 1.0
REQUEST_US = 20.0
AGENTS, EVERY_S, CORE_PERCENT = 1000, 240, 5.0
TRIPS, QUOTES = 400, 2000
ROUNDS = 3
QUOTE = Path(__file__).resolve().parents[2] / "tests" / "vectors" / "tpm" / "quote-ecc.hex"
_HEAD_END = b"\r\n\r\n"
_READ_OCTETS = 65536
_WAIT_S = 20.0


class Pair(Struct, frozen=True):
    """Octets of nonce and result, and the milliseconds of each question."""

    nonce_ms: float
    attest_ms: float


def measure(plan: Plan, bench: str) -> list[Result]:
    """Run one of `BENCHES`."""
    measures = {
        "attest": round_trips,
        "attest-tpm": quotes,
        "attested-request": requests,
        "attested-agents": agents,
    }
    return measures[bench](plan)


def ours(folder: Path, port: int) -> list[str | Path]:
    """Return ourselves, whose app `bench` may be asked for an attestation by path alone."""
    argv = certified(folder, port)
    rules = folder / "rules" / "bench.yaml"
    gated = f"""
  proven:
    identity: [{{spiffe: "{ID}/proven"}}]
    require: [attested]
    allow: [{{host: "*.example.net", ports: [80, 443, 8443]}}]
"""
    rules.write_text(rules.read_text() + gated)
    file = folder / "sallyport.yaml"
    limits = "attestation_burst: 1000000, attestation_every_s: 1ms, "
    file.write_text(file.read_text().replace("limits: {", f"limits: {{{limits}"))
    return argv


OURS = Peer("sallyport", sys.executable, PROXY_PORT, ours)


class Attester:
    """A client of the proxy behind TLS, with its certificate and a software key."""

    def __init__(self, chain: Path, key: Path) -> None:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # what is measured is not whom we speak to
        context.load_cert_chain(chain, key)
        plain = socket.create_connection(("127.0.0.1", PROXY_TLS_PORT), _WAIT_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = context.wrap_socket(plain, server_hostname="localhost")
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._spki = self._key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def attest(self) -> Pair:
        """Attest once."""
        given, nonce_ms = self._ask("/attest/nonce", {})
        message = base64.urlsafe_b64decode(f"{given['message']}==")
        signature = self._key.sign(message, ec.ECDSA(hashes.SHA256()))
        evidence = {
            "nonce": given["nonce"],
            "evidence": "software",
            "key": _text(self._spki),
            "signature": _text(signature),
        }
        _, attest_ms = self._ask("/attest", evidence)
        return Pair(nonce_ms, attest_ms)

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def _ask(self, path: str, content: dict[str, str]) -> tuple[dict[str, str], float]:
        body = json.dumps(content).encode()
        head = (
            f"POST http://sallyport.internal{path} HTTP/1.1\r\nHost: sallyport.internal\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        began = time.perf_counter()
        self._socket.sendall(head.encode() + body)
        read = b""
        while not _is_whole(read):
            received = self._socket.recv(_READ_OCTETS)
            if not received:
                raise RuntimeError(f"the connection ended: {read!r}")
            read += received
        took_ms = (time.perf_counter() - began) * 1000
        if not read.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"not attested: {read.decode()}")
        found: dict[str, str] = json.loads(read.partition(_HEAD_END)[2])
        return found, took_ms


def round_trips(plan: Plan) -> list[Result]:
    """Return how long an attestation takes with a software key."""
    with ground(plan), running(plan, OURS) as us:
        attester = _attester(plan, us)
        _attest(attester, 50)  # the issuer has just been started
        before = run_ns(us)
        with on_loads_core():
            taken = sorted(sum(_milliseconds(attester)) for _ in range(TRIPS))
        used_us = (run_ns(us) - before) / TRIPS / 1000
        attester.close()
    p50, p99 = taken[len(taken) // 2], taken[len(taken) * 99 // 100]
    print(
        f"  attest       p50 {p50:.2f} ms, p99 {p99:.2f} ms, worst {taken[-1]:.2f} ms;"
        f" {used_us:,.0f} us of the processor each",
        file=sys.stderr,
    )
    return [Result("attest", "bar: p50", p50, P50_MS, P50_MS / p50, "ms")]


def quotes(_plan: Plan) -> list[Result]:
    """Return what verifying a TPM's quote takes of the processor."""
    fields = dict(line.split(": ") for line in QUOTE.read_text().partition("\n\n")[2].splitlines())
    pcrs = {key[4:]: fields[key] for key in fields if key.startswith("pcr ")}
    names = ("key", "quote", "signature", "message")
    key, quote, signature, message = (bytes.fromhex(fields[name]) for name in names)
    verify_quote(key, quote, signature, message, pcrs)
    before = time.process_time()
    for _ in range(QUOTES):
        verify_quote(key, quote, signature, message, pcrs)
    took_ms = (time.process_time() - before) / QUOTES * 1000
    print(f"  attest-tpm   {took_ms * 1000:.0f} us a quote", file=sys.stderr)
    ratio = VERIFY_MS / took_ms
    return [Result("attest-tpm", "bar: ms a quote", took_ms, VERIFY_MS, ratio, "ms")]


def requests(plan: Plan) -> list[Result]:
    """Return what `require: [attested]` adds to a request on a warm connection."""
    with ground(plan), running(plan, OURS) as us:
        plain = certificate_of(plan, us)
        proxy = Server(us.name, PROXY_TLS_PORT, us.process)
        gated = certificate_of(plan, us, "proven")
        attester = Attester(gated.chain, gated.key)
        ways = [(ORIGIN, each.chain, each.key) for each in (plain, gated)]
        rounds = []
        for _ in range(plan.rounds * ROUNDS + 1):
            attester.attest()
            rounds.append([request_us(plan, proxy, how) for how in ways])
        attester.close()
    more = statistics.median(with_it - without for without, with_it in rounds[1:])
    without = statistics.median(each[0] for each in rounds[1:])
    print(
        f"  attested-request {without:.1f} us without, {more:+.1f} us with `require: [attested]`",
        file=sys.stderr,
    )
    ratio = REQUEST_US / max(more, 0.1)
    return [Result("attested-request", "bar: us more", more, REQUEST_US, ratio, "us a request")]


def agents(plan: Plan) -> list[Result]:
    """Return what a thousand agents that attest every four minutes take of a core."""
    a_second = AGENTS / EVERY_S
    with ground(plan), running(plan, OURS) as us:
        attester = _attester(plan, us)
        _attest(attester, 50)
        seconds = max(30.0, plan.seconds)
        before, began, count = run_ns(us), time.monotonic(), 0
        while (due := began + count / a_second) < began + seconds:
            time.sleep(max(0.0, due - time.monotonic()))
            attester.attest()
            count += 1
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        share = (run_ns(us) - before) / seconds / 1e7
        attester.close()
    print(f"  attested-agents {count} in {seconds:.0f} s: {share:.2f} % of a core", file=sys.stderr)
    bar = f"bar: {AGENTS} every {EVERY_S} s"
    return [
        Result("attested-agents", bar, share, CORE_PERCENT, CORE_PERCENT / share, "% of a core")
    ]


def _attester(plan: Plan, us: Server) -> Attester:
    found = certificate_of(plan, us)
    return Attester(found.chain, found.key)


def _attest(attester: Attester, times: int) -> None:
    for _ in range(times):
        attester.attest()


def _milliseconds(attester: Attester) -> tuple[float, float]:
    pair = attester.attest()
    return pair.nonce_ms, pair.attest_ms


def _is_whole(read: bytes) -> bool:
    head, found, content = read.partition(_HEAD_END)
    if not found:
        return False
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    return len(content) >= int(fields.get(b"content-length", b"0"))


def _text(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()
