"""Results and attesters as rows."""

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.attested.attester import Attester
from proxy.attested.binding import Binding, Kind
from proxy.attested.file import AttestedFile, Stored
from proxy.attested.live import FILE_NAME
from proxy.limits import Limits
from rules.facts import Level
from tests.proxy.attested.making import NOW, result

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


async def stored(folder: Path, now: float = NOW) -> Stored:
    file = AttestedFile(folder / FILE_NAME, Limits())
    try:
        return await file.open(now)
    finally:
        await file.behind.close()


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15, deadline=None
)
@given(texts=st.tuples(*[TEXT] * 6), level=st.sampled_from(Level), octets=st.binary(max_size=300))
async def test_what_is_kept_comes_back(
    tmp_path: Path, texts: tuple[str, ...], level: Level, octets: bytes
) -> None:
    app, spiffe_id, attester, thumbprint, serial, lease = texts
    made = result(
        "a", app=app, spiffe_id=spiffe_id, attester=attester, level=level, thumbprint=thumbprint,
        serial=serial, binding=Binding(Kind.LEASE, lease), measured="ff" * 32,
    )  # fmt: skip
    known = Attester(attester, app, spiffe_id, "ee" * 32, octets, NOW, 1, 2, 3, 4, NOW)
    file = AttestedFile(tmp_path / FILE_NAME, Limits())
    await file.open(NOW)
    file.keep(made)
    file.keep_attester(known)
    await file.behind.close()
    assert await stored(tmp_path) == Stored((made,), (known,))
    file = AttestedFile(tmp_path / FILE_NAME, Limits())
    await file.open(NOW)
    file.drop(made)
    file.drop_attesters([known])
    await file.behind.close()
    assert await stored(tmp_path) == Stored((), ())


async def test_what_has_expired_does_not_come_back(tmp_path: Path) -> None:
    file = AttestedFile(tmp_path / FILE_NAME, Limits())
    await file.open(NOW)
    file.keep(result("a"))
    file.keep(result("b", level=Level.TPM, expires=NOW + 10))
    file.drop_expired(NOW + 5)
    await file.behind.close()
    assert [each.id for each in (await stored(tmp_path, NOW + 10)).results] == ["a"]
