"""Deny lists of others' making: a table comes of whatever stands in a file, or a report says why.

What is in the table can be asked for.
"""

from rules.address import parse_address
from rules.denylist import DenyTable
from rules.lists.compile import compile_lists
from rules.name import parse
from rules.ruleset import ListSource

FORMATS = ("auto", "hosts", "plain", "adblock", "rpz")
SEEDS: tuple[bytes, ...] = (
    b"\x00# a list\nbad.example\n*.worse.example # and why\n192.0.2.0/24\n",
    b"\x010.0.0.0 bad.example tracker.example\n127.0.0.1 localhost\n::1 x.example # no\n",
    b"\x02bad.example\nxn--bcher-kva.example\n",
    b"\x03! title\n||bad.example^\n@@||ok.bad.example^\n||ads.example^$third-party\n##.banner\n",
    (
        b"\x04$TTL 60\n$ORIGIN rpz.example.\n@ SOA ns.example. x.example. (1 2 3 4 5)\n"
        b" NS ns.example.\n"
        b"bad.example CNAME .\n*.bad.example CNAME *.\nok.example CNAME rpz-passthru.\n"
        b'drop.example CNAME rpz-drop.\nlocal.example A 192.0.2.1\n TXT "a b" "\\"c"\n'
        b"24.0.2.0.192.rpz-ip CNAME .\nns.evil.example.rpz-nsdname CNAME .\n"
    ),
)
NAME, ADDRESS = parse("a.bad.example"), parse_address("192.0.2.7")


def target(data: bytes) -> None:
    """Compile the lines as the format that the first octet says, and ask the table."""
    form = FORMATS[data[0] % len(FORMATS)] if data else "auto"
    source = ListSource("rules.yaml:1", "/list", "list", form)
    lines = data[1:].decode("utf-8", "replace").splitlines(keepends=True)
    compiled = compile_lists([(source, lines)], key=bytes(16))
    (report,) = compiled.reports
    assert len(report.problems) <= 21  # twenty lines, and what forbids the list to stand
    if compiled.errors:
        return
    table = DenyTable(memoryview(b"".join(compiled.pieces)), (source,))
    for found in (
        table.find("me", NAME),
        table.find_address("me", ADDRESS, NAME),
        table.find_server("me", NAME, NAME),
    ):
        assert found is None or 0 < found.line <= len(lines)
