"""What may be asked of the trust domain, by whom, and that the key stands in the answer alone."""

import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from proxy.control.client import ControlError
from proxy.control.identity import SvidMade
from tests.proxy.control.remote_stand import ALICE, CODER, TRUST_DOMAIN, RemoteStand, serving
from tests.proxy.control_stand import standing


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[RemoteStand]:
    async with serving(tmp_path) as made:
        yield made


async def refused(stand: RemoteStand, content: object) -> tuple[int, str]:
    with pytest.raises(ControlError) as caught:
        await stand.ask("POST", "/svids", content)
    return caught.value.status, str(caught.value)


async def test_tells_how_the_trust_domain_is(stand: RemoteStand) -> None:
    found = await stand.ask("GET", "/identity")
    assert found == {
        "trust_domain": TRUST_DOMAIN,
        "anchors": [{"trust_domain": TRUST_DOMAIN, "sha256": "00", "not_after": 1.0}],
        "issuer": True,
        "connections": 1,
        "problem": "",
    }


async def test_a_certificate_comes_with_its_key_and_what_verifies_it(stand: RemoteStand) -> None:
    wanted = {"spiffe_id": CODER, "ttl_s": 600}
    made = await stand.ask("POST", "/svids", wanted)
    leaf, *_ = x509.load_pem_x509_certificates(made["chain"].encode())
    assert leaf.not_valid_after_utc.timestamp() == made["not_after"]
    assert f"{leaf.serial_number:x}" == made["serial"].lstrip("0")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=made["bundle"])
    cert, key = stand.folder / "made.pem", stand.folder / "made.key"
    cert.write_text(made["chain"])
    key.write_text(made["key"])
    context.load_cert_chain(cert, key)  # they belong together


async def test_the_line_of_it_has_the_serial_and_no_key(stand: RemoteStand) -> None:
    made = await stand.ask("POST", "/svids", {"spiffe_id": CODER})
    (line,) = await stand.lines()
    told: dict[str, Any] = {key: line[key] for key in ("change", "target", "serial", "profile")}
    assert told == {
        "change": "issued", "target": CODER, "serial": made["serial"], "profile": "svid",
    }  # fmt: skip
    text = stand.file.read_text()
    assert "PRIVATE" not in text
    assert made["key"].splitlines()[1] not in text


def test_no_key_in_a_traceback() -> None:
    made = SvidMade(spiffe_id=CODER, serial="1", not_after=1, chain="-", key="PRIVATE", bundle="-")
    assert "PRIVATE" not in f"{made} {[made]}"


async def test_what_is_sent_by_mistake_is_not_sent_back(stand: RemoteStand) -> None:
    made = await stand.ask("POST", "/svids", {"spiffe_id": CODER})
    for content in ({"spiffe_id": made["key"]}, {"spiffe_id": CODER, "ttl_s": made["key"]}):
        _, text = await refused(stand, content)
        assert "PRIVATE" not in text


async def test_admins_get_theirs_on_the_host(stand: RemoteStand) -> None:
    made = await stand.ask("POST", "/svids", {"spiffe_id": ALICE, "profile": "admin"})
    assert "PRIVATE KEY" in made["key"]
    assert (await stand.lines())[-1]["profile"] == "admin"


@pytest.mark.parametrize(
    ("content", "status", "told"),
    [
        pytest.param({"spiffe_id": ALICE}, 409, "admin", id="an admin's by the apps' way"),
        pytest.param({"spiffe_id": f"{ALICE}/below"}, 409, "admin", id="below an admin's"),
        pytest.param(
            {"spiffe_id": CODER, "profile": "admin"}, 409, "no admin", id="no admin's name"
        ),
        pytest.param({"spiffe_id": CODER, "ttl_s": 1}, 503, "", id="too short"),
        pytest.param({"spiffe_id": "spiffe://other.example/x"}, 503, "", id="another domain"),
        pytest.param({"spiffe_id": CODER, "profile": "root"}, 400, "profile", id="a root"),
        pytest.param({"spiffe_id": CODER, "key": "x"}, 400, "key", id="what is not known"),
        pytest.param({}, 400, "spiffe_id", id="nothing"),
        pytest.param({"spiffe_id": "coder"}, 400, "no SPIFFE ID", id="no id"),
    ],
)
async def test_what_is_not_issued(
    stand: RemoteStand, content: object, status: int, told: str
) -> None:
    found, text = await refused(stand, content)
    assert found == status
    assert told in text
    assert await stand.lines() == []


async def test_an_admin_elsewhere_gets_certificates_of_apps_but_of_no_admin(
    stand: RemoteStand,
) -> None:
    """Else a certificate that was stolen would renew itself for ever."""
    alice = stand.issued()
    made = await stand.ask_as(alice, "POST", "/svids", {"spiffe_id": CODER})
    assert made["spiffe_id"] == CODER
    with pytest.raises(ControlError, match="on the host only") as caught:
        await stand.ask_as(alice, "POST", "/svids", {"spiffe_id": ALICE, "profile": "admin"})
    assert caught.value.status == 403


async def test_the_issuer_is_told_to_look(stand: RemoteStand) -> None:
    assert await stand.ask("POST", "/identity/look") == {}
    assert stand.looked == 1
    assert (await stand.lines())[-1]["change"] == "told to look"


async def test_without_an_issuer_it_says_so(tmp_path: Path) -> None:
    async with standing(tmp_path) as plain:
        for method, target in (
            ("GET", "/identity"), ("POST", "/identity/look"), ("POST", "/svids"),
        ):  # fmt: skip
            content = {"spiffe_id": CODER} if target == "/svids" else None
            with pytest.raises(ControlError, match="no issuer") as caught:
                await plain.ask(method, target, content)
            assert caught.value.status == 503


async def test_only_these_methods(stand: RemoteStand) -> None:
    for method, target in (("POST", "/identity"), ("GET", "/svids"), ("GET", "/identity/look")):
        with pytest.raises(ControlError) as caught:
            await stand.ask(method, target)
        assert caught.value.status == 405
    with pytest.raises(ControlError) as caught:
        await stand.ask("GET", "/identity/other")
    assert caught.value.status == 404
