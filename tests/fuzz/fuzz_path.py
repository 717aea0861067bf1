"""Paths and path patterns: `MalformedPathError` is allowed."""

from contextlib import suppress

from rules.errors import MalformedPathError
from rules.path import PATH_SEGMENTS, PathIndex, normal_path, parse_glob, readings

SEEDS: tuple[bytes, ...] = (
    b"/repos/acme/x",
    b"/a/../b/./%2e%2E/c",
    b"/a%2fb%5cc%00",
    b"/%7Euser//x;y=z/@:!$&'()*+,",
    b"/repos/*/issues/**",
    b"/**/a*b*c/*.json",
    b"/%252e%252e/%C3%A9",
    b"/..%2F..%2f",
)


def target(data: bytes) -> None:
    """A normal form is its own, has no dot segment, and every reading of it ends."""
    text = data.decode("latin-1")
    with suppress(MalformedPathError):
        _match(text)
    try:
        path = normal_path(text)
    except MalformedPathError:
        return
    assert normal_path(path) == path
    assert path.startswith("/")
    assert path.isascii()
    for reading in readings(path):
        assert not {".", ".."} & set(reading.split("/"))


def _match(text: str) -> None:
    glob = parse_glob(text)
    assert parse_glob(glob.text) == glob
    index = PathIndex([(glob, None), (parse_glob("/**"), None)])
    for path in ("/", "/a" * PATH_SEGMENTS, glob.text.replace("**", "a/b").replace("*", "c")):
        found = [leaf.rank for leaf in index.find(path)]
        assert parse_glob("/**").rank in found
        assert (glob.rank in found) >= glob.matches(path)
    assert glob.matches(glob.text.replace("**", "a/b").replace("*", "c"))
