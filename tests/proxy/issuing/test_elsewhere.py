"""Two real instances: one issues, the other has it in the place of its own issuer."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from spiffe import WorkloadApiClient
from spiffe.workloadapi.errors import FetchJwtSvidError, FetchX509SvidError

from proxy.channel import Event, Serve, Trust
from proxy.errors import BindError
from proxy.issuing.answering import Call
from proxy.issuing.elsewhere import Elsewhere, Signpost
from proxy.issuing.refusing import ElsewhereError
from proxy.issuing.spire import Spire
from tests.proxy.issuing.desk import ID, TRUST_DOMAIN, WAIT_S, Clock, Desk, settings


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Desk, Desk]]:
    with Desk(settings(tmp_path / "spire")) as spire:
        spire.ready()
        spire.listen(tmp_path / "spire.sock", app="sallyport")
        ours = settings(tmp_path / "ours", workload_api=str(tmp_path / "spire.sock"))
        with Desk(ours, Clock()) as guest:
            guest.ready()
            guest.listen(tmp_path / "workload.sock")
            yield spire, guest


def test_one_instance_is_a_workload_of_the_other(pair: tuple[Desk, Desk], tmp_path: Path) -> None:
    spire, guest = pair
    trust = guest.wait(Trust, lambda each: bool(each.bundles))
    assert trust == spire.wait(Trust)
    signed = guest.sign(ID)
    issued = spire.wait(Event, lambda each: each.change == "issued")
    assert (signed.problem, signed.serial) == ("", issued.detail["serial"])
    assert "not ours to present" in guest.sign(ID + "/other").problem
    assert list((tmp_path / "ours" / "identity").iterdir()) == []  # it has no keys of its own
    client = WorkloadApiClient(f"unix:{tmp_path / 'workload.sock'}", default_timeout=WAIT_S)
    with pytest.raises(FetchX509SvidError, match=r"SPIRE issues here: use its socket.*UNAVAILABLE"):
        client.fetch_x509_svid()
    with pytest.raises(FetchJwtSvidError, match="use its socket"):
        client.fetch_jwt_svid({"a"})
    client.close()


def test_enrolment_is_not_served_and_the_appliance_is_told(pair: tuple[Desk, Desk]) -> None:
    _, guest = pair
    with socket.create_server(("127.0.0.1", 0)) as listening:
        guest.send(Serve("enroll", "127.0.0.1:1"), listening.fileno())
        event = guest.wait(Event, lambda each: each.change == "unserved")
    assert (event.target, event.allowed) == ("127.0.0.1:1", False)
    assert "take listen.enroll away" in str(event.detail["text"])


async def test_every_method_says_where_to_ask() -> None:
    post = Signpost()
    assert len(post.__mapping__()) == 7
    with pytest.raises(ElsewhereError, match="use its socket"):
        await post.refuse(cast("Call", None))


async def test_nothing_of_ours_is_read_or_served() -> None:
    role = Elsewhere(Spire("/nowhere.sock", TRUST_DOMAIN, Clock()))
    await role.open()
    await role.look()
    (task,) = role.tasks()
    task.close()
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(BindError):
        await role.serve("pki", theirs, "127.0.0.1:1")
    await role.close()
    await asyncio.sleep(0)
