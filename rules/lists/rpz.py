"""Response policy zones (draft-vixie-dnsop-dns-rpz-00): owners are triggers, data is the action.

A forwarder sees names, addresses of answers and, where the upstream sends them, names of name
servers.  It sees neither the client's address nor the name server's, and sets no TC bit at will:
what asks for these is skipped and counted.
"""

from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from rules import rtype
from rules.address import Network, parse_network
from rules.decision import LocalRecord
from rules.errors import MalformedAddressError, MalformedNameError
from rules.lists.layout import Deed, Scope, key_of_network, key_of_server
from rules.lists.rdata import MalformedRdataError, read_rdata
from rules.lists.trigger import Lines, Skipped, Tally, Trigger, is_plain
from rules.lists.zone_file import UNKNOWN, Record, ZoneReader
from rules.name import ROOT, parse

_IP, _SERVER = "rpz-ip", "rpz-nsdname"
_INVISIBLE = frozenset({"rpz-client-ip", "rpz-nsip"})  # sections 4.1 and 4.5
# Section 3.
_DEEDS: Final = {
    ".": Deed.NXDOMAIN,
    "*.": Deed.NODATA,
    "rpz-passthru.": Deed.PASSTHRU,
    "rpz-drop.": Deed.DROP,
}
# What makes a zone one, or signs it: no local data (section 3.6).
_OF_ZONES = frozenset(
    rtype.BY_MNEMONIC[mnemonic]
    for mnemonic in (
        "SOA", "NS", "DNAME", "DS", "CDS", "CDNSKEY", "RRSIG", "NSEC", "DNSKEY", "NSEC3",
        "NSEC3PARAM", "ZONEMD",
    )
)  # fmt: skip
_CURE = "the record is skipped; tell its maintainer"


class _Subject(Struct, gc=False):
    key: bytes
    scope: Scope


def read_rpz(lines: Lines, tally: Tally) -> Iterator[Trigger]:
    """Yield the triggers of a policy zone that can be seen here."""
    zone = ZoneReader(tally)
    for record in zone.records(lines):
        if record.rtype in _OF_ZONES:
            continue
        owner = _below(record.owner, zone.apex)
        if not owner:
            _refuse(record, tally, "the owner is not below the zone's name")
            continue
        try:
            subject = _subject(owner)
        except (MalformedNameError, MalformedAddressError) as error:
            _refuse(record, tally, str(error))
            continue
        found = None if subject is None else _trigger(record, owner, subject, zone, tally)
        if subject is None:
            tally.skip(Skipped.INVISIBLE)
        elif found is not None:
            yield found


def _refuse(record: Record, tally: Tally, message: str) -> None:
    word = record.text.split(maxsplit=1)[0]
    tally.malformed(record.line, record.text, word, message, _CURE)


def _below(owner: str, apex: str) -> str:
    """Return what stands before the zone's name; nothing where the owner is not below it."""
    for zone in (apex, UNKNOWN):
        if owner.endswith("." + zone):
            return owner[: -len(zone) - 1]
    return ""


def _subject(owner: str) -> _Subject | None:
    """Return what the trigger is about; None where that cannot be seen.

    Raises:
        MalformedNameError, MalformedAddressError: the owner is no trigger.
    """
    if is_plain(owner):  # as nearly all of a long zone; no top label has a hyphen like `rpz-ip`
        return _Subject(owner.encode(), Scope.EXACT)
    rest, _, last = owner.rpartition(".")
    if last in _INVISIBLE:
        return None
    if last == _IP:
        return _Subject(key_of_network(_network(rest)), Scope.EXACT)
    name = rest if last == _SERVER else owner
    scope = Scope.BELOW if name == "*" or name.startswith("*.") else Scope.EXACT
    base = ROOT if name == "*" else parse(name.removeprefix("*."))
    key = base.encode()
    return _Subject(key_of_server(key) if last == _SERVER else key, scope)


def _network(owner: str) -> Network:
    """Return the network of an rpz-ip owner (section 4.3): its length, then it, reversed."""
    length, *parts = owner.split(".")
    if len(parts) == 4 and "zz" not in parts:
        return parse_network(f"{'.'.join(reversed(parts))}/{length}")
    text = ":".join("" if part == "zz" else part for part in reversed(parts))
    if "zz" in parts[:1]:
        text += ":"
    if "zz" in parts[-1:]:
        text = ":" + text
    return parse_network(f"{text}/{length}")


def _trigger(
    record: Record, owner: str, subject: _Subject, zone: ZoneReader, tally: Tally
) -> Trigger | None:
    line, key, scope = record.line, subject.key, subject.scope
    if record.rtype == rtype.CNAME and len(record.rdata) == 1:
        target = record.rdata[0].lower()
        if target in _DEEDS:
            return Trigger(line, key, scope, _DEEDS[target])
        if target.rstrip(".") == owner:  # how the first drafts wrote passthru (section 3.3)
            return Trigger(line, key, scope, Deed.PASSTHRU)
        if target.startswith("rpz-") and target.find(".") == len(target) - 1:
            tally.skip(Skipped.ACTION)  # rpz-tcp-only, and what later drafts may bring
            return None
    try:
        rdata = read_rdata(record.rtype, record.rdata, zone.whole)
    except MalformedRdataError as error:
        _refuse(record, tally, str(error))
        return None
    if rdata is None:  # the name has no other data, either (section 3.6): an empty answer
        tally.skip(Skipped.RECORD)
        return Trigger(line, key, scope, Deed.LOCAL)
    return Trigger(line, key, scope, Deed.LOCAL, LocalRecord(record.rtype, record.ttl_s, rdata))
