"""The real issuer, the appliance's side of it, and the real client `spiffe` as a workload."""

import asyncio
import datetime as dt
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import msgspec
import pytest

from certs.domain import ensure_domain
from proxy.workload.issuer import MODULE
from tests.proxy.workload.stand import CODER, DOMAIN, MY_UID, NOBODY, Stand, app, standing

pytestmark = pytest.mark.live

CLIENT = """
import json, os, sys
uid = int(sys.argv[2])
from spiffe import WorkloadApiClient
if uid != os.getuid():
    os.setgroups([]); os.setgid(uid); os.setuid(uid)
try:
    with WorkloadApiClient("unix://" + sys.argv[1], default_timeout=20.0) as client:
        svid = client.fetch_x509_svid()
        told = {"id": str(svid.spiffe_id), "jwt": str(client.fetch_jwt_svid({"aud"}).spiffe_id),
                "serial": format(svid.leaf.serial_number, "x")}
except Exception as error:
    told = {"error": repr(error)}
print(json.dumps(told))
"""


def keys(folder: Path) -> None:
    """Make the trust domain, as the command line does before the appliance is executed."""
    state = folder / "state"
    state.mkdir(mode=0o700)
    ensure_domain(state / "identity", "sallyport.internal", dt.datetime.now(dt.UTC), None)


def no_keys(folder: Path) -> None:
    """Leave something else where the keys are to be."""
    state = folder / "state"
    state.mkdir(mode=0o700)
    (state / "identity").write_text("no folder")


async def fetch(stand: Stand, uid: int = MY_UID) -> dict[str, Any]:
    command = (sys.executable, "-c", CLIENT, str(stand.path), str(uid))
    client = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
    said, _ = await asyncio.wait_for(client.communicate(), 60)
    found: dict[str, Any] = msgspec.json.decode(said)
    return found


async def test_a_workload_gets_the_svids_of_its_app() -> None:
    async with standing(module=MODULE, prepare=keys) as stand:
        found = await fetch(stand)
        assert (found["id"], found["jwt"]) == (f"{DOMAIN}/coder", f"{DOMAIN}/coder")
        issued = stand.metrics.svids
        assert issued.value("x509", "issued") == issued.value("jwt", "issued") == 1
        assert "BEGIN CERTIFICATE" in stand.trusted[0]["sallyport.internal"]
        lines = await stand.lines()
    assert [(line["app"], line["target"]) for line in lines[:1]] == [("coder", f"{DOMAIN}/coder")]
    assert found["serial"] in {line.get("serial") for line in lines}


async def test_a_workload_of_another_user_gets_its_own_or_permission_denied() -> None:
    """threats.md, "Identity": another's SVID is not to be had by another uid."""
    if os.geteuid() != 0:
        return
    other = app("other", f"{DOMAIN}/other", uid=NOBODY)
    async with standing(CODER, other, module=MODULE, prepare=keys, is_open=True) as stand:
        assert (await fetch(stand, NOBODY))["id"] == f"{DOMAIN}/other"
        assert "PERMISSION_DENIED" in (await fetch(stand, 4321))["error"].replace(" ", "_").upper()


async def test_what_is_revoked_is_denied() -> None:
    async with standing(module=MODULE, prepare=keys) as stand:
        assert "id" in await fetch(stand)
        stand.barred.add("coder")
        stand.workload.look()
        assert "error" in await fetch(stand)


async def test_a_signature_for_ourselves_is_a_chain_and_its_key() -> None:
    async with standing(module=MODULE, prepare=keys) as stand:
        signed = await stand.workload.sign(f"{DOMAIN}/coder")
        assert signed.problem == ""
        assert signed.chain.count("BEGIN CERTIFICATE") >= 1
        assert "PRIVATE KEY" in signed.key
        assert "PRIVATE" not in repr(signed)


async def test_keys_that_cannot_be_read_are_said() -> None:
    async with standing(module=MODULE, prepare=no_keys) as stand:
        agent = await stand.agent()
        assert await agent.connect() == {}
        assert "identity" in (stand.workload.problem or "")
        assert stand.trusted == []
