import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from certs.domain import rotate
from certs.errors import KeystoreError
from certs.known_domain import read_record
from certs.profile import SVID_TTL_S
from certs.sealed import CREDENTIAL
from proxy.issuing import keys
from proxy.issuing.keys import Keys
from tests.proxy.issuing.desk import ID, TRUST_DOMAIN, settings
from tests.proxy.issuing.stand import Stand, standing, until

DAY_S = 86400


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    async with standing(tmp_path) as found:
        yield found


async def test_the_intermediate_is_rotated_in_time_and_old_svids_keep_their_chain(
    stand: Stand,
) -> None:
    before = stand.issuer.svid(ID, "coder", "workload")
    stand.clock.ahead_s = 61 * DAY_S  # two thirds of 90 days
    await stand.keys.look(stand.issuer)
    rotated = [each.target for each in stand.events("rotated")]
    assert "intermediate" in rotated
    after = stand.issuer.svid(ID, "coder", "workload")
    assert after.chain[1] != before.chain[1]
    assert stand.issuer.bundles.anchors[TRUST_DOMAIN] == stand.issuer.domain.anchors


async def test_what_somebody_else_rotated_is_taken_up(stand: Stand, tmp_path: Path) -> None:
    domain = stand.issuer.domain
    await stand.keys.look(stand.issuer)
    assert stand.issuer.domain is domain  # nothing has changed
    rotate(tmp_path / "identity", stand.now(), None, "jwt")
    await stand.keys.look(stand.issuer)
    assert stand.issuer.domain is not domain
    assert stand.issuer.domain.sequence > domain.sequence


async def test_keys_that_cannot_be_read_leave_the_old_ones_in_force(
    stand: Stand, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    domain = stand.issuer.domain
    (tmp_path / "identity" / "domain.json").write_bytes(b"{")
    await stand.keys.look(stand.issuer)
    assert stand.issuer.domain is domain
    await stand.keys.look(stand.issuer)
    assert caplog.text.count("stay as they are") == 1
    assert "stay as they are" in stand.issuer.bundles.trust.problem
    assert stand.issuer.svid(ID, "coder", "workload").not_after <= stand.clock() + SVID_TTL_S


async def test_it_is_looked_at_for_ever(
    stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "LOOK_S", 0.001)
    domain = stand.issuer.domain
    task = asyncio.get_running_loop().create_task(stand.keys.follow(stand.issuer))
    rotate(tmp_path / "identity", stand.now(), None, "jwt")
    await until(lambda: stand.issuer.domain is not domain)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_passphrase_comes_from_its_file_or_from_systemd(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"correct horse\n")
    secret.chmod(0o600)
    async with standing(tmp_path / "state", key_file=str(secret)) as stand:
        key = next((tmp_path / "state" / "identity").glob("*.key")).read_text()
        assert "ENCRYPTED" in key
        assert "horse" not in repr(stand.settings) + repr(stand.keys)
        with pytest.raises(KeystoreError):
            Keys(settings(tmp_path / "state"), {}).load()
        credentials = tmp_path / "credentials"
        credentials.mkdir()
        (credentials / CREDENTIAL).write_bytes(b"correct horse")
        (credentials / CREDENTIAL).chmod(0o400)
        environ = {"CREDENTIALS_DIRECTORY": str(credentials)}
        assert Keys(settings(tmp_path / "state"), environ).load().name == TRUST_DOMAIN


async def test_a_roots_key_that_is_missed_is_told_until_it_is_back(
    stand: Stand, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = read_record(tmp_path / "identity")
    assert record is not None
    key = tmp_path / "identity" / f"{record.roots[0].id}.key"
    kept = key.rename(tmp_path / "kept")
    await stand.keys.look(stand.issuer)
    assert stand.issuer.bundles.trust.problem == ""  # nothing is due yet
    stand.clock.ahead_s = 61 * DAY_S
    for _ in range(2):
        await stand.keys.look(stand.issuer)
    assert "the root's key is not in" in stand.issuer.bundles.trust.problem
    assert caplog.text.count("the root's key is not in") == 1
    kept.rename(key)
    await stand.keys.look(stand.issuer)
    assert stand.issuer.bundles.trust.problem == ""
    assert "intermediate" in [each.target for each in stand.events("rotated")]
