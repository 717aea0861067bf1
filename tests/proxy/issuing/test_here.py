import asyncio
import http.client
import socket
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from certs.domain import rotate
from certs.errors import CertsError
from certs.known_domain import read_record
from proxy.certificates.file import RevocationFile
from proxy.certificates.revoked import FILE_NAME, Kind, Revocation
from proxy.channel import Event, Sign, Trust
from proxy.config_identity import Federated
from proxy.issuing import issued
from proxy.issuing.caller import Caller
from proxy.issuing.here import Here
from proxy.issuing.sds import Secrets
from proxy.issuing.workload import Workload
from proxy.limits import Limits
from tests.proxy.issuing.desk import APP, ID, TRUST_DOMAIN
from tests.proxy.issuing.stand import Stand, standing, until


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    async with standing(tmp_path) as found:
        await found.log.close()  # of what is under test there is a log of its own
        yield found


@pytest.fixture
async def here(stand: Stand) -> AsyncIterator[Here]:
    found = Here(stand.shared, stand.keys)
    await found.open()
    yield found
    await found.close()


async def test_before_it_is_open_nothing_is_issued(stand: Stand) -> None:
    unopened = Here(stand.shared, stand.keys)
    with pytest.raises(CertsError, match="not open"):
        unopened.sign(Sign(1, ID))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        await unopened.serve("pki", theirs, "nowhere")
    await unopened.close()


async def test_keys_that_are_missing_are_made_and_rotated_ones_are_told(stand: Stand) -> None:
    stand.clock.ahead_s = 61 * 86400
    late = Here(stand.shared, stand.keys)
    await late.open()
    assert "intermediate" in [each.target for each in stand.events("rotated")]
    await late.close()


async def test_a_roots_key_that_is_missed_is_told_from_the_start(
    stand: Stand, tmp_path: Path
) -> None:
    record = read_record(tmp_path / "identity")
    assert record is not None
    (tmp_path / "identity" / f"{record.roots[0].id}.key").rename(tmp_path / "kept")
    stand.clock.ahead_s = 61 * 86400
    late, told = Here(stand.shared, stand.keys), list[Trust]()
    await late.open()
    late.tell(told.append)
    assert "the root's key is not in" in told[0].problem
    await late.close()


async def test_a_log_that_cannot_be_written_is_told_until_it_can(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issued, "RETRY_S", 0.01)
    told = list[Trust]()
    here.tell(told.append)
    path = tmp_path / "identity" / "issued.sqlite"
    other = sqlite3.connect(path, check_same_thread=False)
    other.execute("ALTER TABLE issued RENAME TO away")
    keep, *rest = here.tasks()
    for each in rest:
        each.close()
    task = asyncio.get_running_loop().create_task(keep)
    assert here.sign(Sign(1, ID)).problem == ""
    await until(lambda: "issued.sqlite cannot be written" in told[-1].problem)
    # Beside the loop: what holds the file meanwhile is a try that ends in the loop.
    await asyncio.to_thread(other.execute, "ALTER TABLE away RENAME TO issued")
    other.close()
    await until(lambda: told[-1].problem == "")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_it_signs_serves_workloads_and_tells_whom_to_believe(
    here: Here, stand: Stand
) -> None:
    assert here.sign(Sign(1, ID)).problem == ""
    kinds = [type(each) for each in here.services(Caller(1, APP, (ID,)))]
    assert kinds == [Workload, Secrets]
    told: list[Trust] = []
    here.tell(told.append)
    assert list(told[0].bundles) == [TRUST_DOMAIN]
    tasks = here.tasks()
    assert len(tasks) == 2
    for each in tasks:
        each.close()
    assert stand.events("issued")


async def test_a_look_takes_up_revocations_and_keys(
    here: Here, stand: Stand, tmp_path: Path
) -> None:
    serial = here.sign(Sign(1, ID)).serial
    file = RevocationFile(tmp_path / FILE_NAME, Limits())
    await file.revoke((Revocation(Kind.SPIFFE_ID, ID, stand.clock()),), stand.clock())
    rotate(tmp_path / "identity", stand.now(), None, "jwt")
    sequence = here.issuer.domain.sequence
    await here.look()
    assert [format(each.serial, "x") for each in here.issuer.revoked_serials()] == [serial]
    assert "revoked" in here.sign(Sign(2, ID)).problem
    assert here.issuer.domain.sequence > sequence


async def test_revocations_that_cannot_be_read_stay_as_they_were(
    here: Here, stand: Stand, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = RevocationFile(tmp_path / FILE_NAME, Limits())
    await file.revoke((Revocation(Kind.SPIFFE_ID, ID, stand.clock()),), stand.clock())
    await here.look()
    (tmp_path / FILE_NAME).write_bytes(b"nonsense" * 1000)
    for suffix in ("-wal", "-shm"):
        (tmp_path / f"{FILE_NAME}{suffix}").unlink(missing_ok=True)
    await here.look()
    assert "stay as they were" in caplog.text
    assert "revoked" in here.sign(Sign(2, ID)).problem


async def test_the_listeners_of_others_are_served(here: Here) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    await here.serve("pki", listening, f"127.0.0.1:{port}")

    def get() -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/bundle.pem")
        response = connection.getresponse()
        found = response.status, response.read()
        connection.close()
        return found

    status, pem = await asyncio.to_thread(get)
    assert (status, pem.decode()) == (200, here.issuer.domain.anchors_pem)


async def test_what_is_federated_is_followed(tmp_path: Path) -> None:
    source = Federated(file=str(tmp_path / "none.json"))
    async with standing(tmp_path, federation={"partner.example": source}) as stand:
        here = Here(stand.shared, stand.keys)
        await here.open()
        tasks = here.tasks()
        assert len(tasks) == 3
        for each in tasks:
            each.close()
        await here.close()
        assert all(isinstance(each, Event) for each in stand.sent)
