"""EST with the clients that devices have: curl and openssl."""

import asyncio
import base64
import datetime as dt
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from certs import authority as local
from proxy.limits import Limits
from tests.proxy.issuing.office import CODER, WRITER, Office, Served, run, served

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(
        not (shutil.which("curl") and shutil.which("openssl")), reason="needs curl and openssl"
    ),
]


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(Office(tmp_path / "state", Limits())) as found:
        yield found


class Device:
    """A folder with a key, openssl for requests and curl for EST."""

    def __init__(self, folder: Path, stand: Served, kind: str = "P-256") -> None:
        folder.mkdir()
        self.folder = folder
        self.stand = stand
        self.key = folder / "device.key"
        self.chain = folder / "chain.pem"
        self._kind = kind

    async def make_key(self) -> None:
        how = {
            "P-256": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            "P-384": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
            "P-521": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"],
            "Ed25519": ["-algorithm", "ED25519"],
            "RSA-512": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:512"],
            "RSA-2048": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        }
        code, _, err = await run("openssl", "genpkey", *how[self._kind], "-out", str(self.key))
        assert code == 0, err

    async def request(self, *options: str) -> Path:
        """Return a file with a request in base64."""
        if not self.key.exists():
            await self.make_key()
        code, der, err = await run(
            "openssl", "req", "-new", "-key", str(self.key), "-subj", "/CN=device",
            "-outform", "DER", *options,
        )  # fmt: skip
        assert code == 0, err
        file = self.folder / "request.b64"
        file.write_bytes(base64.encodebytes(der))
        return file

    async def ask(
        self, operation: str, request: Path, *options: str, kind: str = "application/pkcs10"
    ) -> tuple[int, bytes]:
        """POST a request with curl; return the status and the answer."""
        out = self.folder / "answer"
        code, status, err = await run(
            "curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "10",
            "--cacert", str(self.stand.office.ca), "--output", str(out),
            "--write-out", "%{http_code}", "--header", f"Content-Type: {kind}",
            "--data-binary", f"@{request}", *options, f"{self.stand.est}/{operation}",
        )  # fmt: skip
        assert code == 0, err
        return int(status), out.read_bytes()

    async def enrol(self, app: str, token: str, *options: str) -> tuple[int, bytes]:
        request = await self.request(*options)
        return await self.ask("simpleenroll", request, "--user", f"{app}:{token}")

    async def keep(self, answer: bytes) -> str:
        """Write the chain of an answer with openssl; return the leaf's text."""
        message = self.folder / "answer.p7"
        message.write_bytes(base64.b64decode(answer))
        code, pem, err = await run(
            "openssl", "pkcs7", "-inform", "DER", "-in", str(message), "-print_certs"
        )
        assert code == 0, err
        pem += await authorities(self.stand)
        self.chain.write_bytes(pem)
        code, text, err = await run("openssl", "x509", "-in", str(self.chain), "-noout", "-text")
        assert code == 0, err
        return text.decode()

    async def renew(self, *options: str) -> tuple[int, bytes]:
        request = await self.request(*options)
        return await self.ask(
            "simplereenroll", request, "--cert", str(self.chain), "--key", str(self.key)
        )


async def authorities(stand: Served) -> bytes:
    """Return what cacerts answers, as PEM."""
    code, answer, err = await run(
        "curl", "--silent", "--show-error", "--noproxy", "*", "--cacert", str(stand.office.ca),
        f"{stand.est}/cacerts",
    )  # fmt: skip
    assert code == 0, err
    code, pem, err = await run(
        "openssl", "pkcs7", "-inform", "DER", "-print_certs", input_=base64.b64decode(answer)
    )
    assert code == 0, err
    return pem


@pytest.fixture
def device(tmp_path: Path, stand: Served) -> Device:
    return Device(tmp_path / "device", stand)


async def enrolled(device: Device, app: str = "coder") -> str:
    status, answer = await device.enrol(app, await device.stand.office.join(app))
    assert status == 200, answer
    return await device.keep(answer)


async def test_curl_and_openssl_enrol_with_a_join_token(stand: Served, device: Device) -> None:
    text = await enrolled(device)
    assert f"URI:{CODER}" in text
    subject = next(line for line in text.splitlines() if "Subject:" in line)
    assert "device" not in subject  # it is no identity
    roots = device.folder / "roots.pem"
    roots.write_text(stand.office.domain.anchors_pem)
    code, out, err = await run(
        "openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", str(roots),
        "-untrusted", str(device.chain), str(device.chain),
    )  # fmt: skip
    assert code == 0, (out, err)
    [event] = stand.office.told("enrolled")
    assert (event.app, event.target, event.detail["how"]) == ("coder", CODER, "join")
    assert event.detail["peer"] == "127.0.0.1"


@pytest.mark.parametrize("kind", ["P-384", "Ed25519"])
async def test_other_keys_that_tls_verifies_enrol_and_renew(
    tmp_path: Path, stand: Served, kind: str
) -> None:
    device = Device(tmp_path / "other", stand, kind)
    await enrolled(device)
    status, answer = await device.renew()
    assert status == 200, answer


async def test_answers_have_the_types_of_rfc_7030(stand: Served, device: Device) -> None:
    code, head, err = await run(
        "curl", "--silent", "--show-error", "--noproxy", "*", "--head", "--cacert",
        str(stand.office.ca), f"{stand.est}/cacerts",
    )  # fmt: skip
    assert code == 0, err
    assert b"application/pkcs7-mime; smime-type=certs-only" in head
    assert b"server: sallyport" in head.lower()
    status, answer = await device.ask("csrattrs", await device.request(), "--request", "GET")
    assert (status, answer) == (204, b"")


async def test_who_shows_nothing_is_told_what_to_show_and_is_no_line_in_audit(
    stand: Served, device: Device
) -> None:
    request = await device.request()
    head = device.folder / "head"
    status, answer = await device.ask("simpleenroll", request, "--dump-header", str(head))
    assert status == 401
    assert b"sallyport app join" in answer
    assert b'WWW-Authenticate: Basic realm="sallyport enrolment"' in head.read_bytes()
    assert stand.office.events == []


async def test_a_bearer_token_names_its_app_by_itself(stand: Served, device: Device) -> None:
    token = await stand.office.join("coder")
    request = await device.request()
    status, _ = await device.ask(
        "simpleenroll", request, "--header", f"Authorization: Bearer {token}"
    )
    assert status == 200


async def test_a_join_token_is_good_for_one_certificate(stand: Served, device: Device) -> None:
    token = await stand.office.join("coder")
    assert (await device.enrol("coder", token))[0] == 200
    status, answer = await device.enrol("coder", token)
    assert status == 401
    assert b"was used already" in answer
    [event] = stand.office.told("refused")
    assert (event.app, event.allowed, event.reason) == ("coder", False, "identity-unknown")
    assert token not in str(event)


async def test_of_twenty_at_once_one_wins(tmp_path: Path, stand: Served) -> None:
    token = await stand.office.join("coder")
    devices = [Device(tmp_path / f"device{number}", stand) for number in range(20)]
    for device in devices:
        await device.request()
    asked = [
        device.ask("simpleenroll", device.folder / "request.b64", "--user", f"coder:{token}")
        for device in devices
    ]
    answers = await asyncio.gather(*asked)
    assert sorted({status for status, _ in answers}) in ([200, 401], [200, 401, 429])
    assert [status for status, _ in answers].count(200) == 1
    assert len(stand.office.issued) == 1


async def test_a_token_of_another_app_and_one_for_the_proxy_enrol_nobody(
    stand: Served, device: Device
) -> None:
    token = await stand.office.join("writer")
    status, answer = await device.enrol("coder", token)
    assert (status, b"another app" in answer) == (401, True)
    status, answer = await device.enrol("coder", "spt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
    assert (status, b"no such join token" in answer) == (401, True)
    assert not stand.office.issued


async def test_an_expired_token_enrols_nobody(stand: Served, device: Device) -> None:
    token = await stand.office.join("coder", ttl_s=5.0)
    stand.office.ahead_s = 6.0
    status, answer = await device.enrol("coder", token)
    assert (status, b"has expired" in answer) == (401, True)


async def test_an_app_without_a_spiffe_id_enrols_nobody_and_keeps_its_token(
    stand: Served, device: Device
) -> None:
    token = await stand.office.join("nobody")
    status, answer = await device.enrol("nobody", token)
    assert (status, b"has no SPIFFE ID" in answer) == (403, True)
    stand.office.apps["nobody"] = (CODER,)
    assert (await device.enrol("nobody", token))[0] == 200


async def test_a_request_names_one_of_several_spiffe_ids(stand: Served, device: Device) -> None:
    token = await stand.office.join("writer")
    status, answer = await device.enrol("writer", token)
    assert (status, b"ask for one of" in answer) == (403, True)
    wanted = f"subjectAltName=URI:{WRITER[1]}"
    status, answer = await device.enrol("writer", token, "-addext", wanted)
    assert status == 200
    assert f"URI:{WRITER[1]}" in await device.keep(answer)


@pytest.mark.parametrize(
    ("options", "status", "text"),
    [
        (("-addext", f"subjectAltName=URI:{WRITER[0]}"), 403, b"does not have"),
        (("-addext", f"subjectAltName=URI:{CODER},DNS:bank.example"), 400, b"all names"),
        (("-addext", f"subjectAltName=URI:{CODER},URI:{CODER}"), 400, b"all names"),
        (("-addext", "subjectAltName=DNS:bank.example"), 400, b"all names"),
        (("-addext", "basicConstraints=critical,CA:TRUE"), 400, b"2.5.29.19"),
        (("-addext", "extendedKeyUsage=serverAuth"), 400, b"2.5.29.37"),
        (("-sha1",), 400, b"old hash"),
    ],
    ids=["other-id", "dns", "two-uris", "dns-alone", "ca", "server", "sha1"],
)
async def test_a_foreign_request_is_refused_and_keeps_the_token(
    stand: Served, device: Device, options: tuple[str, ...], status: int, text: bytes
) -> None:
    """EST with a foreign CSR."""
    token = await stand.office.join("coder")
    got, answer = await device.enrol("coder", token, *options)
    assert (got, text in answer) == (status, True), answer
    assert (await device.enrol("coder", token))[0] == 200


@pytest.mark.parametrize("kind", ["RSA-512", "RSA-2048", "P-521"])
async def test_other_kinds_of_keys_are_refused(tmp_path: Path, stand: Served, kind: str) -> None:
    device = Device(tmp_path / "other", stand, kind)
    status, answer = await device.enrol("coder", await stand.office.join("coder"))
    assert (status, b"P-256" in answer) == (400, True)


async def test_a_request_that_another_key_signed_is_refused(
    tmp_path: Path, stand: Served, device: Device
) -> None:
    """A request for somebody else's public key, without possession of the private one."""
    victim = Device(tmp_path / "victim", stand)
    theirs = base64.b64decode((await victim.request()).read_bytes())
    ours = base64.b64decode((await device.request()).read_bytes())
    spki = _spki(theirs)
    forged = ours.replace(_spki(ours), spki)
    file = device.folder / "forged.b64"
    file.write_bytes(base64.b64encode(forged))
    token = await stand.office.join("coder")
    status, answer = await device.ask("simpleenroll", file, "--user", f"coder:{token}")
    assert (status, b"signed by its own key" in answer) == (400, True)


def _spki(request: bytes) -> bytes:
    """Return the 65 octets of the P-256 point in a request."""
    at = request.index(bytes.fromhex("03420004"))
    return request[at + 3 : at + 3 + 65]


async def test_what_is_too_long_or_no_request_is_refused(stand: Served, device: Device) -> None:
    token = await stand.office.join("coder")
    large = device.folder / "large"
    large.write_bytes(base64.encodebytes(bytes(1 << 20)))
    user = ("--user", f"coder:{token}")
    assert (await device.ask("simpleenroll", large, *user))[0] == 413
    large.write_bytes(base64.encodebytes(bytes(9000)))
    assert (await device.ask("simpleenroll", large, *user))[0] == 413
    large.write_bytes(b"-----BEGIN CERTIFICATE REQUEST-----")
    assert (await device.ask("simpleenroll", large, *user))[0] == 400
    request = await device.request()
    assert (await device.ask("simpleenroll", request, *user, kind="text/plain"))[0] == 415
    assert (await device.ask("simpleenroll", request, *user))[0] == 200


async def test_web_pages_are_refused(stand: Served, device: Device) -> None:
    request = await device.request()
    token = await stand.office.join("coder")
    status, _ = await device.ask(
        "simpleenroll", request, "--user", f"coder:{token}", "--header", "Origin: https://a.example"
    )
    assert status == 403


async def test_a_certificate_is_renewed_for_its_own_key(stand: Served, device: Device) -> None:
    before = await enrolled(device)
    status, answer = await device.renew()
    assert status == 200, answer
    after = await device.keep(answer)
    assert f"URI:{CODER}" in after
    assert _line(before, "Serial") != _line(after, "Serial")
    assert stand.office.told("enrolled")[-1].detail["how"] == "reenroll"


def _line(text: str, word: str) -> str:
    lines = text.splitlines()
    at = next(number for number, line in enumerate(lines) if word in line)
    return "".join(lines[at : at + 2])


async def test_another_key_is_not_renewed_for(
    tmp_path: Path, stand: Served, device: Device
) -> None:
    """The identity is bound to the device's key."""
    await enrolled(device)
    thief = Device(tmp_path / "thief", stand)
    request = await thief.request()
    status, answer = await device.ask(
        "simplereenroll", request, "--cert", str(device.chain), "--key", str(device.key)
    )
    assert (status, b"another key" in answer) == (403, True)


async def test_renewing_needs_the_certificate(device: Device) -> None:
    status, answer = await device.ask("simplereenroll", await device.request())
    assert (status, b"present the certificate" in answer) == (403, True)


async def test_a_renewal_for_another_name_is_refused(stand: Served, device: Device) -> None:
    stand.office.apps["coder"] = (CODER, *WRITER)
    await enrolled_as(device, CODER)
    status, answer = await device.renew("-addext", f"subjectAltName=URI:{WRITER[0]}")
    assert (status, b"another SPIFFE ID" in answer) == (403, True)


async def enrolled_as(device: Device, spiffe_id: str) -> None:
    token = await device.stand.office.join("coder")
    status, answer = await device.enrol(
        "coder", token, "-addext", f"subjectAltName=URI:{spiffe_id}"
    )
    assert status == 200, answer
    await device.keep(answer)


async def test_a_revoked_certificate_is_not_renewed(stand: Served, device: Device) -> None:
    await enrolled(device)
    [serial] = stand.office.issued
    stand.office.revoke(serial)
    status, answer = await device.renew()
    assert (status, b"revoked" in answer) == (403, True)
    assert stand.office.told("refused")[-1].reason == "revoked"


async def test_what_the_app_lost_is_not_renewed(stand: Served, device: Device) -> None:
    await enrolled(device)
    stand.office.apps["coder"] = ()
    status, answer = await device.renew()
    assert (status, b"no more" in answer) == (403, True)


async def test_a_certificate_of_the_workload_api_cannot_be_prolonged(
    stand: Served, device: Device
) -> None:
    """A workload takes what it fetched from its socket elsewhere, and renews it there for ever."""
    issued = stand.office.workload(CODER, "coder")
    device.chain.write_text(issued.chain_pem)
    device.key.write_text(issued.key_pem)
    status, answer = await device.renew()
    assert (status, b"did not come from an enrolment" in answer) == (403, True)


async def test_a_certificate_of_another_trust_domain_is_no_client(
    tmp_path: Path, stand: Served, device: Device
) -> None:
    other = Office(tmp_path / "other", Limits())
    issued = other.workload(CODER, "coder")
    device.chain.write_text(issued.chain_pem)
    device.key.write_text(issued.key_pem)
    request = await device.request()
    code, _, _ = await run(
        "curl", "--silent", "--noproxy", "*", "--cacert", str(stand.office.ca),
        "--cert", str(device.chain), "--key", str(device.key), "--data-binary", f"@{request}",
        f"{stand.est}/simplereenroll",
    )  # fmt: skip
    assert code != 0  # the handshake itself fails
    [event] = stand.office.told("refused")
    assert event.target == "enroll"


async def test_a_peer_with_too_many_refusals_is_told_so_and_leaves_no_more_lines(
    tmp_path: Path,
) -> None:
    limits = Limits(enroll_refusals=2, enroll_refusals_s=3600.0)
    async with served(Office(tmp_path / "state", limits)) as stand:
        device = Device(tmp_path / "device", stand)
        statuses = [(await device.enrol("coder", f"spt_{number}"))[0] for number in range(4)]
        assert statuses == [401, 401, 429, 429]
        assert len(stand.office.told("refused")) == 2
        assert {each.target for each in stand.office.told("bound")} == {"enroll_refusals"}
        # What is right is never held back.
        assert (await device.enrol("coder", await stand.office.join("coder")))[0] == 200


async def test_a_new_certificate_of_the_listener_is_taken_up(stand: Served) -> None:
    before = await _fingerprint(stand)
    local.renew(stand.office.ca.parent, ("localhost", "127.0.0.1"), dt.datetime.now(dt.UTC))
    stand.listeners.look()
    assert await _fingerprint(stand) != before


async def _fingerprint(stand: Served) -> bytes:
    code, out, err = await run(
        "openssl", "s_client", "-connect", f"localhost:{stand.enroll}", "-servername", "localhost",
        "-CAfile", str(stand.office.ca), "-verify_return_error",
    )  # fmt: skip
    assert code == 0, err
    code, found, err = await run("openssl", "x509", "-noout", "-fingerprint", "-sha256", input_=out)
    assert code == 0, err
    return found


async def test_tls_has_no_tickets_for_who_may_present_a_certificate(stand: Served) -> None:
    """TLS session resumption skips client-certificate checks."""
    for version in ("-tls1_2", "-tls1_3"):
        code, out, err = await run(
            "openssl", "s_client", "-connect", f"localhost:{stand.enroll}", version,
            "-CAfile", str(stand.office.ca), "-reconnect" if version == "-tls1_2" else "-brief",
        )  # fmt: skip
        assert code == 0, err
        assert b"Reused" not in out + err
