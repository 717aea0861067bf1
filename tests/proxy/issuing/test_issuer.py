import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from certs.csr import read_request
from certs.device import make_request
from certs.errors import SpiffeError
from proxy.certificates.revoked import Kind
from proxy.channel import Named, Sign, ToAppliance, Whose
from proxy.issuing.refusing import BusyError, DeniedError
from proxy.limits import Limits
from tests.proxy.issuing.desk import APP, ID, TRUST_DOMAIN
from tests.proxy.issuing.stand import Stand, standing

OTHER = f"spiffe://{TRUST_DOMAIN}/agent/other"


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    async with standing(tmp_path) as found:
        yield found


async def test_an_svid_is_remembered_and_told_to_audit(stand: Stand) -> None:
    svid = stand.issuer.svid(ID, APP, "workload")
    (event,) = stand.events("issued")
    assert (event.app, event.target, event.allowed) == (APP, ID, True)
    assert event.detail == {"serial": svid.serial, "not_after": svid.not_after, "how": "workload"}
    known = await stand.issuer.known(int(svid.serial, 16))
    assert known is not None
    assert (known.spiffe_id, known.app, known.how, known.spki_sha256) == (ID, APP, "workload", "")
    await stand.log.flush()
    assert await stand.issuer.known(int(svid.serial, 16)) == known
    assert await stand.issuer.known(1) is None


async def test_no_key_stands_in_what_is_told_or_remembered(stand: Stand, tmp_path: Path) -> None:
    """The issue: private keys never in logs, audit or error texts."""
    svid = stand.issuer.svid(ID, APP, "workload")
    key = svid.key or b""
    token = stand.issuer.jwt(ID, APP, ("vault",))
    await stand.log.flush()
    told = repr(stand.sent) + repr(svid) + repr(stand.issuer.domain)
    assert svid.key_pem.splitlines()[1] not in told
    assert token not in told
    for each in (tmp_path / "identity").glob("issued.sqlite*"):
        assert key[-65:] not in each.read_bytes()
        assert key not in each.read_bytes()


async def test_a_request_of_a_device_is_signed_for_its_own_key(
    stand: Stand, tmp_path: Path
) -> None:
    csr = read_request(make_request(tmp_path / "device", ID))
    svid = await stand.issuer.sign_request(csr, ID, APP, "join")
    assert svid.key is None
    known = await stand.issuer.known(int(svid.serial, 16))
    assert known is not None
    assert (known.spki_sha256, known.how) == (csr.spki_sha256, "join")


@pytest.mark.parametrize(("kind", "value"), [(Kind.APP, APP), (Kind.SPIFFE_ID, ID)])
async def test_what_is_revoked_is_issued_in_no_form(
    stand: Stand, tmp_path: Path, kind: Kind, value: str
) -> None:
    token = stand.issuer.jwt(ID, APP, ("vault",))
    assert stand.issuer.check_jwt(token, "vault").spiffe_id == ID
    stand.revoke(kind, value)
    csr = read_request(make_request(tmp_path / "device", ID))
    for attempt in (
        lambda: stand.issuer.svid(ID, APP, "workload"),
        lambda: stand.issuer.jwt(ID, APP, ("vault",)),
    ):
        with pytest.raises(DeniedError, match="revoked") as raised:
            attempt()
        assert raised.value.reason == "revoked"
    with pytest.raises(DeniedError):
        await stand.issuer.sign_request(csr, ID, APP, "join")
    if kind is Kind.SPIFFE_ID:
        with pytest.raises(DeniedError):
            stand.issuer.check_jwt(token, "vault")
        assert "revoked" in stand.issuer.sign(Sign(1, ID)).problem
    assert stand.issuer.svid(OTHER, "other", "workload").spiffe_id == OTHER


async def test_revoked_certificates_are_found_by_serial_id_and_app(stand: Stand) -> None:
    one = stand.issuer.svid(ID, APP, "workload")
    two = stand.issuer.svid(OTHER, "other", "workload")
    three = stand.issuer.svid(OTHER, "third", "workload", ttl_s=300)
    left = stand.issuer.svid(OTHER + "/x", "fourth", "workload")
    stand.revoke(Kind.SERIAL, one.serial)
    stand.revoke(Kind.SERIAL, "abc")  # of nobody that we know
    stand.revoke(Kind.SPIFFE_ID, OTHER)
    stand.revoke(Kind.APP, "third")
    assert stand.issuer.revoked_serials() == ()
    await stand.issuer.look()
    found = {format(each.serial, "x") for each in stand.issuer.revoked_serials()}
    assert found == {one.serial, two.serial, three.serial}
    assert left.serial not in found
    stand.clock.ahead_s = 400
    found = {format(each.serial, "x") for each in stand.issuer.revoked_serials()}
    assert found == {one.serial, two.serial}  # what has ended is void anyway


async def test_an_id_of_somebody_else_or_of_nobody_is_not_issued(stand: Stand) -> None:
    for spiffe_id in ("spiffe://other.example/a", f"spiffe://{TRUST_DOMAIN}", "nobody"):
        with pytest.raises(SpiffeError):
            stand.issuer.svid(spiffe_id, APP, "workload")
    assert stand.events("issued") == []


async def test_the_appliance_signs_for_itself_without_a_bound(tmp_path: Path) -> None:
    async with standing(tmp_path, Limits(svids=1, svids_every_s=1000.0)) as stand:
        for call in range(3):
            signed = stand.issuer.sign(Sign(call, ID, "admin", 300))
            assert (signed.call, signed.problem) == (call, "")
            assert signed.chain.count("BEGIN CERTIFICATE") == 2
            assert "PRIVATE KEY" in signed.key
            assert 200 < signed.not_after - stand.clock() <= 300
        stand.issuer.svid(ID, APP, "workload")
        with pytest.raises(BusyError, match="too many"):
            stand.issuer.jwt(ID, APP, ("vault",))
    (bound,) = stand.events("bound")
    assert (bound.app, bound.target, bound.detail) == (APP, "svids", {"count": 1})
    assert "ask for svid or admin" in stand.issuer.sign(Sign(9, ID, "root")).problem


async def test_nothing_is_issued_that_cannot_be_written(tmp_path: Path) -> None:
    async with standing(tmp_path, Limits(issued_queue=2)) as stand:
        stand.issuer.svid(ID, APP, "workload")
        stand.issuer.svid(ID, APP, "workload")
        with pytest.raises(BusyError, match="written down"):
            stand.issuer.svid(ID, APP, "workload")
        await stand.log.flush()
        stand.issuer.svid(ID, APP, "workload")
    assert [each.target for each in stand.events("bound")] == ["issued_queue"]


async def test_the_appliance_says_whose_an_app_is(stand: Stand) -> None:
    async def answer(app: str, ids: tuple[str, ...]) -> None:
        loop = asyncio.get_running_loop()
        stand.theirs.setblocking(False)
        octets = await loop.sock_recv(stand.theirs, 65536)
        whose = msgspec.json.decode(octets, type=ToAppliance)
        assert isinstance(whose, Whose)
        stand.theirs.send(msgspec.json.encode(Named(whose.call, app, ids)))

    for app, ids, expected in ((APP, (ID,), (ID,)), ("", (), ()), ("other", (OTHER,), ())):
        named, _ = await asyncio.gather(stand.issuer.named(APP), answer(app, ids))
        assert named == expected
    stand.channel.close()
    assert await stand.issuer.named(APP) == ()


async def test_what_the_listeners_need_is_there(stand: Stand) -> None:
    assert stand.issuer.settings is stand.settings
    assert stand.issuer.log.name.startswith("proxy.issuing")
    assert abs(stand.issuer.wall() - stand.clock()) < 5
    version = stand.issuer.bundles.version
    stand.issuer.use(stand.keys.load())
    assert stand.issuer.bundles.version > version
