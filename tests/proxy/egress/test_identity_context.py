"""What is presented to origins: fetched once, kept until half of its life, on no disk."""

import asyncio
import contextlib
import os
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from proxy.channel import Signed
from proxy.egress.identity_context import REVOKED, IdentityContexts
from proxy.limits import Limits
from proxy.metrics import Metrics
from rules.decision import Decision, FileCertificate, Reason, SvidCertificate, Verdict
from tests.authority import PrivateAuthority
from tests.proxy.egress.secured import CODER, OTHER, Domain, svid
from tests.proxy.egress.world import PATIENCE_S, settled


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Stand:
    """Contexts with an issuer and a clock in a test's hands."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.domain = Domain(folder / "identity")
        self.clock = Clock(self.domain.now().timestamp())
        self.metrics = Metrics()
        self.void: set[str] = set()
        self.authority = PrivateAuthority(folder)
        self.contexts = IdentityContexts(
            limits,
            self.metrics,
            self.clock,
            self.authority.certificate,
            self.domain.sign,
            self.domain.is_revoked,
            lambda serial: serial in self.void,
        )

    async def context(
        self, certificate: SvidCertificate | FileCertificate | None
    ) -> ssl.SSLContext:
        found = await self.contexts.context_for("me", certificate)
        assert isinstance(found, ssl.SSLContext)
        return found

    async def blame(self, certificate: SvidCertificate | FileCertificate | None) -> tuple[str, str]:
        found = await self.contexts.context_for("me", certificate)
        assert isinstance(found, Decision)
        assert found.verdict is Verdict.FAIL
        return found.reason, found.text

    @property
    def counted(self) -> int:
        return self.metrics.bounds.value("identity_contexts")


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path, Limits(identity_contexts=2))


def files(stand: Stand, name: str = "a.example") -> FileCertificate:
    chain, key = stand.authority.issue([name])
    return FileCertificate(str(chain), str(key))


async def test_without_a_certificate_one_context_serves_all(stand: Stand) -> None:
    first = await stand.context(None)
    assert await stand.context(None) is first
    assert first.verify_mode is ssl.CERT_REQUIRED
    assert first.check_hostname
    assert first.minimum_version is ssl.TLSVersion.TLSv1_2
    assert stand.domain.asked == []


async def test_an_svid_is_kept_until_half_of_its_life_is_over(stand: Stand) -> None:
    first = await stand.context(svid())
    stand.clock.now += stand.domain.ttl_s / 2 - 10
    assert await stand.context(svid()) is first
    stand.clock.now += 20
    assert await stand.context(svid()) is not first
    assert stand.domain.asked == [CODER, CODER]


async def test_each_id_has_its_own(stand: Stand) -> None:
    assert await stand.context(svid(CODER)) is not await stand.context(svid(OTHER))
    assert stand.domain.asked == [CODER, OTHER]


async def test_all_who_wait_for_one_certificate_ask_for_it_once(stand: Stand) -> None:
    stand.domain.gate = asyncio.Event()
    waiting = [asyncio.create_task(stand.context(svid())) for _ in range(8)]
    await settled(lambda: stand.domain.asked == [CODER])
    waiting[0].cancel()  # who gives up leaves it to the others
    stand.domain.gate.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert len(set(found[1:])) == 1
    assert stand.domain.asked == [CODER]


async def test_what_cannot_be_renewed_is_used_while_it_is_valid(stand: Stand) -> None:
    first = await stand.context(svid())
    stand.domain.problem = "the issuer starts"
    stand.clock.now += stand.domain.ttl_s / 2 + 1
    assert await stand.context(svid()) is first
    assert await stand.context(svid()) is first
    assert len(stand.domain.asked) == 2  # the next attempt is later
    stand.clock.now += 31
    assert await stand.context(svid()) is first
    assert len(stand.domain.asked) == 3
    stand.clock.now += stand.domain.ttl_s / 2
    assert await stand.blame(svid()) == (
        Reason.UPSTREAM_TLS, f"no SVID of {CODER}: the issuer starts"
    )  # fmt: skip
    stand.domain.problem = ""
    stand.clock.now = stand.domain.now().timestamp()
    assert await stand.context(svid()) is not first


async def test_what_has_ended_when_it_comes_is_not_presented(stand: Stand) -> None:
    stand.clock.now += stand.domain.ttl_s + 10  # our clock is ahead
    assert (await stand.blame(svid()))[1] == f"no SVID of {CODER}: it has ended already"
    assert len(stand.contexts) == 0


async def test_what_the_issuer_sent_broken_is_said_without_its_key() -> None:
    async def sign(_spiffe: str) -> Signed:
        return Signed(1, "chain", "topsecret", "1", 2**40)

    contexts = IdentityContexts(Limits(), Metrics(), lambda: 0.0, None, sign)
    found = await contexts.context_for("me", svid())
    assert isinstance(found, Decision)
    assert found.text.startswith("the issuer's SVID cannot be used: ")
    assert "topsecret" not in found.text


async def test_the_key_is_in_no_file_that_is_left(stand: Stand) -> None:
    """threats.md: private keys in files; the one of memory is closed as soon as it was read."""
    await stand.context(svid())
    left = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one of the folder itself
            left.append(str(descriptor.readlink()))
    assert not [link for link in left if "memfd:svid" in link]


async def test_at_the_bound_the_one_used_longest_ago_makes_room(stand: Stand) -> None:
    first = await stand.context(svid(CODER))
    await stand.context(svid(OTHER))
    assert await stand.context(svid(CODER)) is first
    await stand.context(None)
    assert (len(stand.contexts), stand.counted) == (2, 1)
    assert await stand.context(svid(CODER)) is first
    await stand.context(svid(OTHER))
    assert stand.domain.asked == [CODER, OTHER, OTHER]


async def test_no_more_are_fetched_at_once_than_are_kept(stand: Stand) -> None:
    stand.domain.gate = asyncio.Event()
    waiting = [asyncio.create_task(stand.context(svid(CODER + each))) for each in "ab"]
    await settled(lambda: len(stand.domain.asked) == 2)
    assert (await stand.blame(svid()))[0] is Reason.CAPACITY
    assert stand.counted == 1
    stand.domain.gate.set()
    await asyncio.gather(*waiting)


async def test_what_is_closed_fetches_no_more(stand: Stand) -> None:
    await stand.context(None)
    stand.domain.gate = asyncio.Event()
    waiting = asyncio.create_task(stand.contexts.context_for("me", svid()))
    await settled(lambda: stand.domain.asked == [CODER])
    stand.contexts.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert len(stand.contexts) == 0


async def test_what_is_revoked_is_forgotten(stand: Stand) -> None:
    await stand.context(svid())
    stand.domain.revoked.add(("me", CODER))
    assert stand.contexts.revoked("me", svid())
    assert len(stand.contexts) == 0
    assert await stand.contexts.context_for("me", svid()) is REVOKED
    assert not stand.contexts.revoked("other", svid())
    assert not stand.contexts.revoked("me", None)


async def test_an_svid_whose_serial_number_was_revoked_is_replaced(stand: Stand) -> None:
    first = await stand.context(svid())
    stand.void.update(stand.domain.serials)
    second = await stand.context(svid())
    assert second is not first
    assert await stand.context(svid()) is second
    stand.void.update(stand.domain.serials)
    stand.domain.problem = "the issuer starts"
    assert (await stand.blame(svid()))[0] is Reason.UPSTREAM_TLS  # the void one is not kept


async def test_forgotten_svids_are_fetched_anew_and_nothing_else(stand: Stand) -> None:
    plain, first = await stand.context(None), await stand.context(svid())
    stand.contexts.forget()
    assert await stand.context(None) is plain
    assert await stand.context(svid()) is not first


async def test_a_file_is_read_again_once_it_was_changed(stand: Stand) -> None:
    certificate = files(stand)
    first = await stand.context(certificate)
    assert await stand.context(certificate) is first
    os.utime(certificate.key, ns=(1, 1))
    second = await stand.context(certificate)
    assert second is not first
    files(stand)  # the same paths, another key
    third = await stand.context(certificate)
    assert third is not second
    Path(certificate.cert).unlink()
    assert "No such file" in (await stand.blame(certificate))[1]


async def test_an_encrypted_key_is_said_and_nobody_is_asked_for_a_passphrase(stand: Stand) -> None:
    certificate = files(stand)
    key = serialization.load_pem_private_key(Path(certificate.key).read_bytes(), None)
    Path(certificate.key).write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"x"),
        )
    )
    assert "the key is encrypted" in (await stand.blame(certificate))[1]


def _a_fifo(path: Path) -> None:
    os.mkfifo(path)


def _too_much(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)


@pytest.mark.parametrize(
    ("make", "said"),
    [(_a_fifo, "no regular file"), (Path.mkdir, "Is a directory"), (_too_much, "over 1048576")],
)
@pytest.mark.parametrize("which", ["cert", "key"])
async def test_what_is_no_file_of_certificates_holds_nobody_up(
    stand: Stand, which: str, make: Callable[[Path], None], said: str
) -> None:
    """A FIFO that nobody writes to would hold its thread until we end, and the end as well."""
    certificate = files(stand)
    path = Path(getattr(certificate, which))
    path.unlink()
    make(path)
    async with asyncio.timeout(PATIENCE_S):
        reason, text = await stand.blame(certificate)
    assert (reason, said in text) == (Reason.UPSTREAM_TLS, True)


async def test_a_key_of_another_certificate_is_said(stand: Stand) -> None:
    one, other = files(stand), files(stand, "b.example")
    reason, text = await stand.blame(FileCertificate(one.cert, other.key))
    assert reason is Reason.UPSTREAM_TLS
    assert "mismatch" in text.lower()


async def test_anchors_that_are_gone_are_said(tmp_path: Path) -> None:
    contexts = IdentityContexts(Limits(), Metrics(), lambda: 0.0, tmp_path / "none.pem")
    found = await contexts.context_for("me", None)
    assert isinstance(found, Decision)
    assert found.reason is Reason.UPSTREAM_TLS
    assert "none.pem" in found.text
