"""`python -m proxy.reload.rebuild`: the child process that reads rule files for the appliance.

Reading 100,000 rules takes seconds and twice their memory.  Here it takes neither from the
process that answers queries, and a file that could end or stall a parser ends or stalls this one.
"""

import gc
import os
import sys
import time
from typing import BinaryIO

import msgspec

from proxy.confinement import check_agents
from proxy.reload.files import (
    RuleFiles,
    Sources,
    check_listeners,
    load_sources,
    public_suffixes,
    read_sources,
)
from proxy.reload.handover import (
    Heading,
    Request,
    app_pieces,
    digest_of,
    write_piece,
    write_pieces,
)
from proxy.reload.lists import UnreadListsError, read_lists
from proxy.reload.progress import ProgressWriter, Seldom, Told, untold
from proxy.reload.table import ReadLists
from rules.errors import RuleSyntaxError

_NICENESS = 5  # queries come first on a busy core, and rules are still read within seconds


def rebuild(
    request: Request, out: BinaryIO, table: BinaryIO, told: Told = untold, now: float = 0.0
) -> None:
    """Read, and write what is new; or why it cannot be used.

    `table` takes what the lists say; `told` hears how far their reading has come.  It is `now`
    (Unix time).
    """
    found = read_sources(request.folders, first_run=request.first_run, system=request.system)
    is_known = found.digest == request.digest and not found.problems
    try:
        read = None if is_known else _loaded(found, request)
        sources = request.lists if read is None else read.loaded.ruleset.lists
        known, system = request.lists_digest, request.system
        lists = read_lists(sources, known, table, told, system=system, now=now)
    except UnreadListsError as error:
        write_piece(out, Heading(problems=error.problems, lists=ReadLists(seen=error.seen)))
        return
    except RuleSyntaxError as error:
        write_piece(out, Heading(problems=error.problems))
        return
    if read is None:
        files = tuple(source.file for source in found.sources)
        heading = Heading(found.digest, files=files, in_memory=found.in_memory, lists=lists)
        write_piece(out, heading)
        return
    _write(read, lists, request, out)


def _loaded(found: Sources, request: Request) -> RuleFiles:
    read = load_sources(found, 0, public_suffixes())
    check_listeners(read.loaded.ruleset, set(request.listening))
    if request.system:
        check_agents(read.loaded.ruleset, os.geteuid())
    return read


def _write(read: RuleFiles, lists: ReadLists, request: Request, out: BinaryIO) -> None:
    pieces = {name: app_pieces(app) for name, app in read.loaded.ruleset.apps.items()}
    digests = {name: digest_of(octets) for name, octets in pieces.items()}
    heading = Heading(
        read.digest,
        (),
        read.loaded.warnings,
        read.files,
        read.notes,
        read.in_memory,
        tuple(digests.items()),
        lists,
    )
    write_piece(out, heading)
    for name, octets in pieces.items():
        if request.apps.get(name) != digests[name]:
            write_pieces(out, octets)


def main() -> int:
    """Serve the one request on standard input, and write to standard output."""
    gc.disable()  # nothing here lives longer than its use, and all of it ends together
    os.nice(_NICENESS)
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    told = Seldom(ProgressWriter(request.progress), time.monotonic)  # noqa: TID251 - it owns its clock
    with (
        os.fdopen(sys.stdout.fileno(), "wb", closefd=False) as out,
        os.fdopen(request.table, "wb", closefd=False) as table,
    ):
        rebuild(request, out, table, told, time.time())  # noqa: TID251 - it owns its clock
    return 0


if __name__ == "__main__":
    code = main()
    os._exit(code)  # what is left of memory ends with the process
