"""Paths of requests in the one form in which they are compared, and the patterns over them.

The normal form has no dot segments, unreserved characters unencoded and upper-case hex
(RFC 3986, section 6.2.2).  `%2F` stays as it is written: for an allow it is no separator, a
deny is tried on both readings.  What two servers may read in two ways is refused.

A pattern is matched by whole segments, never by a regular expression that backtracks: `*` is a
run of octets within a segment (at least one where it is the whole segment), `**` any number of
segments.  At the end `**` is one segment or more, so that `/a/**` is `/a/` and below, not `/a`.
"""

import re
from collections.abc import Iterable

from msgspec import Struct

from rules.errors import MalformedPathError

PATH_SEGMENTS = 256  # PATH_MAX of Linux holds 2048; no web framework's routes come near
DEEP = "**"

_PLAIN = re.compile(r"(?:/[A-Za-z0-9_~!$&'()*+,;=:@-][A-Za-z0-9._~!$&'()*+,;=:@-]*)*/?")
_REFUSED = re.compile(r"[^!-~]|[\\?#]|%00|%5[Cc]|%(?![0-9A-Fa-f]{2})")
_ENCODED = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")  # RFC 3986, section 2.3
_DOTS = frozenset({".", ".."})
_DOTTED = re.compile(r"(?:^|%2F)\.{1,2};")
_SLASHES = re.compile(r"//+")
_ENCODED_SLASH = "%2F"
_BLAMES = {
    "?": ("a query", "leave the query out: only the path is matched"),
    "#": ("a fragment", "leave the fragment out: it is never sent (RFC 9110, section 7.1)"),
    "\\": ("a backslash", "write `/`: some servers read a backslash as one"),
    "%": ("a `%` that begins no such octet", "write `%` and two hex digits, neither %00 nor %5C"),
}
_BLAME = ("an octet outside visible ASCII", "percent-encode it (RFC 3986, section 2.1)")

type Rank = tuple[int, int, int]
"""Literal octets before the first `*`, in total, and fewer `**`: greater is more specific."""


class PathGlob(Struct, frozen=True):
    """A path pattern in normal form: its segments after the leading slash."""

    text: str
    segments: tuple[str, ...]

    @property
    def rank(self) -> Rank:
        """How specific the pattern is among others for one host."""
        first = self.text.find("*")
        literal = len(self.text) - self.text.count("*")
        return (len(self.text) if first < 0 else first, literal, -self.segments.count(DEEP))

    def matches(self, path: str) -> bool:
        """Return whether `path`, in normal form, is one of the pattern's."""
        return bool(PathIndex(((self, None),)).find(path))


def normal_path(target_path: str) -> str:
    r"""Return the normal form of the path of an origin-form target, without its query.

    Raises:
        MalformedPathError: no leading slash, `\`, `%5c`, `%00`, an octet outside visible ASCII,
            a `%` without two hex digits, a dot segment beside `%2F`, over 256 segments.
    """
    if not target_path:
        return "/"  # RFC 9110, section 4.2.3: an empty path is "/"
    if _PLAIN.fullmatch(target_path) and target_path.count("/") <= PATH_SEGMENTS:
        return target_path
    if not target_path.startswith("/"):
        raise MalformedPathError("a path begins with `/`", "write it from the root: `/...`")
    return "/" + "/".join(_segments(target_path))


def parse_glob(text: str) -> PathGlob:
    """Return the pattern that `text` spells, its literal parts in normal form.

    Raises:
        MalformedPathError: no path, a dot segment, or `**` beside other characters.
    """
    if not text.startswith("/"):
        raise MalformedPathError(f"the path {text[:80]!r} does not begin with `/`", "begin it so")
    written = [_decode(segment) for segment in _checked(text).split("/")[1:]]
    if not _DOTS.isdisjoint(written):
        raise MalformedPathError("a dot segment matches nothing", "write the path without it")
    if any(DEEP in segment and segment != DEEP for segment in written):
        cure = "let `**` be a whole segment, as in `/a/**`, or write `*` within one"
        raise MalformedPathError(f"`**` stands beside other characters in {text[:80]!r}", cure)
    _segments("/".join(("", *written)))
    pairs = zip(written, [*written[1:], ""], strict=True)
    segments = tuple(one for one, after in pairs if not one == after == DEEP)  # two are as one
    return PathGlob("/" + "/".join(segments), segments)


def readings(path: str) -> tuple[str, ...]:
    """Return what a server may make of `path`: a deny rule is tried on each.

    As it is; with `%2F` for a slash; and either with empty segments merged, as many servers do.
    """
    if _ENCODED_SLASH not in path and "//" not in path:
        return (path,)
    decoded = path.replace(_ENCODED_SLASH, "/")
    merged = (_SLASHES.sub("/", reading) for reading in (path, decoded))
    return tuple(dict.fromkeys((path, decoded, *merged)))


def _checked(text: str) -> str:
    refused = _REFUSED.search(text)
    if refused:
        what, cure = _BLAMES.get(refused[0][0], _BLAME)
        raise MalformedPathError(f"the path {text[:80]!r} holds {what}", cure)
    if text.count("/") > PATH_SEGMENTS:
        raise MalformedPathError(f"a path of more than {PATH_SEGMENTS} segments", "shorten it")
    return text


def _decode(text: str) -> str:
    return _ENCODED.sub(_decode_unreserved, text) if "%" in text else text


def _decode_unreserved(encoded: re.Match[str]) -> str:
    character = chr(int(encoded[1], 16))
    # RFC 3986, sections 6.2.2.1 and 6.2.2.2
    return character if _UNRESERVED.fullmatch(character) else encoded[0].upper()


def _segments(path: str) -> list[str]:
    kept: list[str] = []
    segments = _decode(_checked(path)).split("/")[1:]
    for segment in segments:
        if segment not in _DOTS:
            kept.append(segment)
        elif segment == ".." and kept:
            kept.pop()
        if _ENCODED_SLASH in segment and not _DOTS.isdisjoint(segment.split(_ENCODED_SLASH)):
            raise MalformedPathError("a dot segment beside `%2F`", "write the path without it")
        # RFC 3986, section 3.3: origins that know `;` parameters take `..;x` for `..`.
        if ";" in segment and _DOTTED.search(segment):
            raise MalformedPathError("a dot segment with parameters", "write the path without it")
    # RFC 3986, section 5.2.4: a dot segment at the end leaves the slash before it.
    return [*kept, ""] if segments[-1] in _DOTS else kept


class Leaf[R]:
    """The end of one pattern: its rank, and every rule that has it."""

    __slots__ = ("rank", "rules")

    def __init__(self, rank: Rank) -> None:
        self.rank = rank
        self.rules: list[R] = []


class _Node[R]:
    """What may follow one segment of a pattern."""

    __slots__ = ("deep", "end", "literal", "partial", "rest", "star", "wild", "wildcards")

    def __init__(self) -> None:
        self.literal: dict[str, _Node[R]] = {}
        self.star: _Node[R] | None = None
        self.deep: _Node[R] | None = None  # after an inner `**`
        self.partial: _Heads[R] = {}
        self.wildcards: dict[str, _Node[R]] = {}  # `partial` again, by the segment's text
        self.wild = False  # whether `star` or `partial` holds anything
        self.end: Leaf[R] | None = None
        self.rest: Leaf[R] | None = None  # a `**` at the end


type _Bucket[R] = list[tuple[tuple[str, ...], _Node[R]]]  # what stands between the outer `*`
type _Tails[R] = dict[int, dict[str, _Bucket[R]]]  # by length of the suffix, then by suffix
type _Heads[R] = dict[int, dict[str, _Tails[R]]]  # by length of the prefix, then by prefix


class PathIndex[R]:
    """Many patterns, matched at once by walking the path's segments down one tree.

    The work is bounded by the segments of the path times the places in the patterns that it has
    reached; a set of literal paths costs one dictionary look-up a segment.
    """

    __slots__ = ("_root",)

    def __init__(self, entries: Iterable[tuple[PathGlob, R]]) -> None:
        self._root: _Node[R] = _Node()
        for glob, rule in entries:
            leaf = self._leaf(glob)
            if not leaf.rules or leaf.rules[-1] is not rule:
                leaf.rules.append(rule)

    def find(self, path: str) -> list[Leaf[R]]:
        """Return the leaves of the patterns that `path`, in normal form, matches; each once."""
        found: dict[Leaf[R], None] = {}
        active: list[_Node[R]] = [self._root]
        deep = [self._root.deep] if self._root.deep else []  # once reached, it takes all
        for segment in path.split("/")[1:]:
            following: list[_Node[R]] = []
            for node in active + deep if deep else active:
                if node.rest is not None:
                    found[node.rest] = None
                child = node.literal.get(segment)
                if child is not None:
                    following.append(child)
                if node.wild:
                    _follow(node, segment, following)
            for node in following:
                if node.deep is not None and node.deep not in deep:
                    deep.append(node.deep)
            active = following
        for node in active:
            if node.end is not None:
                found[node.end] = None
        return list(found)

    def _leaf(self, glob: PathGlob) -> Leaf[R]:
        node = self._root
        *inner, last = glob.segments
        for segment in inner:
            node = _child(node, segment)
        if last == DEEP:
            node.rest = node.rest or Leaf(glob.rank)
            return node.rest
        node = _child(node, last)
        node.end = node.end or Leaf(glob.rank)
        return node.end


def _follow[R](node: _Node[R], segment: str, into: list[_Node[R]]) -> None:
    if node.star is not None and segment:
        into.append(node.star)
    for length, heads in node.partial.items():
        tails = heads.get(segment[:length])
        if tails is None:
            continue
        for size, buckets in tails.items():
            inner_end = len(segment) - size
            if inner_end >= length:
                for inner, target in buckets.get(segment[inner_end:], ()):
                    if not inner or _in_order(inner, segment, length, inner_end):
                        into.append(target)


def _in_order(pieces: tuple[str, ...], segment: str, start: int, end: int) -> bool:
    """Return whether the pieces follow each other; the first place for each is good enough."""
    for piece in pieces:
        at = segment.find(piece, start, end)
        if at < 0:
            return False
        start = at + len(piece)
    return True


def _child[R](node: _Node[R], segment: str) -> _Node[R]:
    if "*" not in segment:
        return node.literal.setdefault(segment, _Node())
    if segment == DEEP:
        node.deep = node.deep or _Node()
        return node.deep
    node.wild = True
    if segment == "*":
        node.star = node.star or _Node()
        return node.star
    child = node.wildcards.get(segment)
    if child is None:
        child = node.wildcards[segment] = _Node()
        head, *inner, tail = segment.split("*")
        tails = node.partial.setdefault(len(head), {}).setdefault(head, {})
        tails.setdefault(len(tail), {}).setdefault(tail, []).append((tuple(inner), child))
    return child
