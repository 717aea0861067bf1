"""The file of tokens: rows in, rows out."""

from pathlib import Path

from msgspec import structs

from proxy.capabilities.file import CapabilityFile
from proxy.limits import Limits
from tests.proxy.capabilities.test_known import NOW, token


async def test_what_was_kept_is_read_without_what_has_expired(tmp_path: Path) -> None:
    path = tmp_path / "capabilities.sqlite"
    file = CapabilityFile(path, Limits())
    assert await file.open(NOW) == ()
    void = structs.replace(token("b"), void_at=float(NOW), why="why")
    file.keep((token("a"), void, token("c", expires=NOW + 5)))
    await file.behind.settled()
    assert await file.void() == (("b", "why"),)
    await file.behind.close()
    again = CapabilityFile(path, Limits())
    assert sorted(await again.open(NOW + 5), key=lambda each: each.id) == [token("a"), void]
    await again.behind.settled()
    await again.behind.close()
    third = CapabilityFile(path, Limits())
    assert {each.id for each in await third.open(NOW)} == {"a", "b"}
    await third.behind.close()
