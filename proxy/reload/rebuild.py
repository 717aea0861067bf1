"""`python -m proxy.reload.rebuild`: the child process that reads rule files for the appliance.

Reading 100,000 rules takes seconds and twice their memory.  Here it takes neither from the
process that answers queries, and a file that could end or stall a parser ends or stalls this one.
"""

import gc
import os
import sys
from typing import BinaryIO

import msgspec

from proxy.confinement import check_agents
from proxy.reload.files import (
    RuleFiles,
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
from rules.errors import RuleSyntaxError

_NICENESS = 5  # queries come first on a busy core, and rules are still read within seconds


def rebuild(request: Request, out: BinaryIO) -> None:
    """Read, and write what is new; or why it cannot be used."""
    found = read_sources(request.folders, first_run=request.first_run, system=request.system)
    if found.digest == request.digest and not found.problems:
        files = tuple(source.file for source in found.sources)
        write_piece(out, Heading(found.digest, files=files, in_memory=found.in_memory))
        return
    try:
        read = load_sources(found, 0, public_suffixes())
        check_listeners(read.loaded.ruleset, set(request.listening))
        if request.system:
            check_agents(read.loaded.ruleset, os.geteuid())
    except RuleSyntaxError as error:
        write_piece(out, Heading(problems=error.problems))
        return
    _write(read, request, out)


def _write(read: RuleFiles, request: Request, out: BinaryIO) -> None:
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
    )
    write_piece(out, heading)
    for name, octets in pieces.items():
        if request.apps.get(name) != digests[name]:
            write_pieces(out, octets)


def main() -> int:
    """Serve the one request on standard input, and write to standard output."""
    gc.disable()  # nothing here lives longer than its use, and all of it ends together
    os.nice(_NICENESS)
    with os.fdopen(sys.stdout.fileno(), "wb", closefd=False) as out:
        rebuild(msgspec.json.decode(sys.stdin.buffer.read(), type=Request), out)
    return 0


if __name__ == "__main__":
    code = main()
    os._exit(code)  # what is left of memory ends with the process
