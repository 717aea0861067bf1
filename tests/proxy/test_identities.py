"""What says who asks, for the life of an appliance: read at the start, followed afterwards."""

import asyncio
import datetime as dt
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from certs.domain import ensure_domain, rotate
from proxy.audit import AuditSettings
from proxy.certificates import trust
from proxy.certificates.revoked import Kind
from proxy.config import Listen, Settings
from proxy.config_identity import Federated, IdentitySettings
from proxy.identities import FOLDER, TICK_S, Identities
from proxy.metrics import Metrics
from proxy.workload.events import Clock

OURS, OTHERS = "sallyport.internal", "partner.example"
CODER = f"spiffe://{OURS}/coder"
NOW = dt.datetime.now(dt.UTC)


def made(folder: Path, **identity: object) -> Identities:
    settings = Settings(
        state=str(folder),
        rules=(),
        audit=AuditSettings(str(folder / "audit.jsonl")),
        listen=Listen(),
        identity=IdentitySettings(**identity),  # type: ignore[arg-type]  # of one test each
    )
    return Identities(settings, Metrics(), Clock(NOW.timestamp, os.urandom))


@asynccontextmanager
async def opened(folder: Path, **identity: object) -> AsyncIterator[Identities]:
    identities = made(folder, **identity)
    await identities.open()
    try:
        yield identities
    finally:
        await identities.close()


def foreign(folder: Path) -> str:
    """Return the roots of another trust domain."""
    ensure_domain(folder / OTHERS, OTHERS, NOW, None)
    return (folder / OTHERS / "bundle.pem").read_text()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until `condition()` holds; the test's own time limit ends it."""
    while not condition():  # noqa: ASYNC110 - a file is looked at: nobody tells
        await asyncio.sleep(TICK_S / 20)


async def test_our_own_roots_are_believed_from_the_start(tmp_path: Path) -> None:
    ensure_domain(tmp_path / FOLDER, OURS, NOW, None)
    async with opened(tmp_path) as identities:
        assert identities.trust.trust_domains == {OURS}
        assert "BEGIN CERTIFICATE" in identities.bundle
        assert not any(identities.problems.values())


async def test_without_a_trust_domain_nobody_is_believed_and_it_is_said(tmp_path: Path) -> None:
    async with opened(tmp_path) as identities:
        assert identities.trust.anchors == ()
        assert "trust domain cannot be read" in str(identities.problems["trust"])


async def test_a_trust_domain_of_another_name_is_not_believed(tmp_path: Path) -> None:
    ensure_domain(tmp_path / FOLDER, OTHERS, NOW, None)
    async with opened(tmp_path) as identities:
        assert identities.trust.anchors == ()
        assert OURS in str(identities.problems["trust"])


async def test_where_another_issues_what_we_once_made_is_not_believed(tmp_path: Path) -> None:
    ensure_domain(tmp_path / FOLDER, OURS, NOW, None)
    async with opened(tmp_path, workload_api="/nowhere") as identities:
        assert identities.trust.anchors == ()
        assert identities.problems["trust"] == ""


async def test_a_rotated_root_is_believed_within_a_moment(tmp_path: Path) -> None:
    ensure_domain(tmp_path / FOLDER, OURS, NOW, None)
    async with opened(tmp_path) as identities:
        epoch = identities.certificates.epoch
        rotate(tmp_path / FOLDER, NOW, None, "root")
        await until(lambda: len(identities.trust.anchors) == 2)
        assert identities.certificates.epoch > epoch


async def test_no_news_from_the_issuer_and_bad_news_change_nothing(tmp_path: Path) -> None:
    ensure_domain(tmp_path / FOLDER, OURS, NOW, None)
    async with opened(tmp_path) as identities:
        both = {OURS: identities.bundle, OTHERS: foreign(tmp_path)}
        identities.believe(both)
        assert identities.trust.trust_domains == {OURS, OTHERS}
        identities.believe({})
        identities.believe({OURS: identities.bundle, OTHERS: "no certificate"})
        assert identities.trust.trust_domains == {OURS, OTHERS}
        assert OTHERS in str(identities.problems["trust"])
        identities.believe(both)
        assert identities.problems["trust"] == ""


async def test_one_bundle_that_cannot_be_used_keeps_no_other_from_use(tmp_path: Path) -> None:
    ensure_domain(tmp_path / FOLDER, OURS, NOW, None)
    async with opened(tmp_path) as identities:
        identities.believe({OTHERS: foreign(tmp_path), "bad.example": "no certificate"})
        assert identities.trust.trust_domains == {OURS, OTHERS}
        assert "bad.example" in str(identities.problems["trust"])


async def test_a_forgotten_root_is_not_believed_again_by_old_news(tmp_path: Path) -> None:
    """The issuer may tell of others before it knows that a root of ours was stolen."""
    ensure_domain(tmp_path / FOLDER, OURS, NOW, None)
    async with opened(tmp_path) as identities:
        stolen, before = identities.trust.anchors, identities.bundle
        rotate(tmp_path / FOLDER, NOW, None, "root", forget=True)
        await until(lambda: identities.bundle != before)
        identities.believe({OURS: before, OTHERS: foreign(tmp_path)})
        assert identities.trust.trust_domains == {OURS, OTHERS}
        assert not {*stolen} & {*identities.trust.anchors}


async def test_what_goes_wrong_in_one_look_does_not_end_looking(tmp_path: Path) -> None:
    ensure_domain(tmp_path / FOLDER, OURS, NOW, None)
    async with opened(tmp_path) as identities:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        bugs = iter([True])

        def bug() -> None:
            if next(bugs, False):
                raise RuntimeError

        identities.trust.on_change(bug)
        rotate(tmp_path / FOLDER, NOW, None, "root")
        await until(lambda: not any(bugs) and len(identities.trust.anchors) == 2)
        rotate(tmp_path / FOLDER, NOW, None, "root")
        await until(lambda: len(identities.trust.anchors) == 3)


async def test_who_is_revoked_or_an_admin_is_barred(tmp_path: Path) -> None:
    ensure_domain(tmp_path / FOLDER, OURS, NOW, None)
    async with opened(tmp_path) as identities:
        assert not identities.is_barred("coder", CODER)
        assert identities.is_barred("coder", f"spiffe://{OURS}/sallyport/admin/eve")
        await identities.revocations.revoke(Kind.SPIFFE_ID, CODER)
        assert identities.is_barred("coder", CODER)
        assert not identities.is_revoked("reader", f"spiffe://{OURS}/reader")
        await identities.revocations.revoke(Kind.APP, "reader")
        assert identities.is_revoked("reader", f"spiffe://{OURS}/reader")
        await identities.revocations.revoke(Kind.SERIAL, "0a" * 8)
        assert identities.is_void("0a" * 8)
        assert not identities.is_void("0b" * 8)


async def test_what_was_revoked_before_a_restart_still_is(tmp_path: Path) -> None:
    ensure_domain(tmp_path / FOLDER, OURS, NOW, None)
    async with opened(tmp_path) as identities:
        await identities.revocations.revoke(Kind.SPIFFE_ID, CODER)
    async with opened(tmp_path) as identities:
        assert identities.is_revoked("coder", CODER)


async def test_files_are_read_again_when_asked(tmp_path: Path) -> None:
    async with opened(tmp_path) as identities:
        ensure_domain(tmp_path / FOLDER, OURS, NOW, None)
        await identities.reload()
        assert identities.trust.trust_domains == {OURS}
        assert identities.problems["trust"] == ""


async def test_a_federated_trust_domain_that_a_new_issuer_lacks_is_believed_further(
    tmp_path: Path,
) -> None:
    """docs/spiffe.md: where a bundle cannot be had, the one before is believed."""
    ensure_domain(tmp_path / FOLDER, OURS, NOW, None)
    async with opened(tmp_path, federation={OTHERS: Federated(file="/nowhere")}) as identities:
        identities.believe({OURS: identities.bundle, OTHERS: foreign(tmp_path)})
        identities.believe({OURS: identities.bundle})
        assert identities.trust.trust_domains == {OURS, OTHERS}
        identities.believe({OURS: identities.bundle, OTHERS: ""})  # its roots were taken back
        assert identities.trust.trust_domains == {OURS}
        identities.believe({OTHERS: foreign(tmp_path)})
        identities.believe({OTHERS: ""})
        assert identities.trust.trust_domains == {OURS}
        assert identities.problems["trust"] == ""


async def test_a_trust_domain_that_is_not_federated_is_forgotten(tmp_path: Path) -> None:
    ensure_domain(tmp_path / FOLDER, OURS, NOW, None)
    async with opened(tmp_path) as identities:
        identities.believe({OURS: identities.bundle, OTHERS: foreign(tmp_path)})
        identities.believe({OURS: identities.bundle})
        assert identities.trust.trust_domains == {OURS}


async def test_anchors_beyond_the_room_for_all_keep_no_other_from_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust, "ANCHORS", 3)
    ensure_domain(tmp_path / FOLDER, OURS, NOW, None)
    async with opened(tmp_path) as identities:
        ours, one = identities.bundle, foreign(tmp_path)
        identities.believe({OURS: ours, OTHERS: one})
        for _ in range(2):
            rotate(tmp_path / OTHERS, NOW, None, "root")
        many = (tmp_path / OTHERS / "bundle.pem").read_text()
        ensure_domain(tmp_path / "third", "third.example", NOW, None)
        third = (tmp_path / "third" / "bundle.pem").read_text()
        identities.believe({OTHERS: many, "third.example": third})
        assert identities.trust.trust_domains == {OURS, OTHERS, "third.example"}
        assert len(identities.trust.anchors) == 3
        assert f"with the trust bundle of {OTHERS}" in str(identities.problems["trust"])
        rotate(tmp_path / FOLDER, NOW, None, "root", forget=True)
        await until(lambda: identities.bundle != ours)
        assert not {ssl.PEM_cert_to_DER_cert(ours)} & {*identities.trust.anchors}


async def test_a_folder_that_was_away_and_is_back_is_no_problem_any_more(tmp_path: Path) -> None:
    ensure_domain(tmp_path / FOLDER, OURS, NOW, None)
    async with opened(tmp_path) as identities:
        (tmp_path / FOLDER).rename(tmp_path / "away")
        await until(lambda: identities.problem != "")
        assert identities.trust.trust_domains == {OURS}  # nobody is believed less for it
        (tmp_path / "away").rename(tmp_path / FOLDER)
        await until(lambda: identities.problem == "")
