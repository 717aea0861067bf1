"""A short-lived process that makes a new leaf: `python -P -m certs.renew FOLDER NOW NAME...`.

The appliance starts it, so that what reads the root's key is never what agents talk to.  NOW is
in seconds since 1970.  Nothing goes to stdout; exit code 0, or 1 with one line on stderr.
"""

import datetime as dt
import os
import sys
from pathlib import Path

from certs.authority import renew
from certs.errors import CertsError

_USAGE = "usage: python -P -m certs.renew FOLDER NOW NAME..."


def main(argv: list[str]) -> int:
    """Return the exit code; a failure is one line on stderr."""
    os.umask(0o077)
    try:
        folder, now, *names = argv
        at = dt.datetime.fromtimestamp(int(now), dt.UTC)
    except (ValueError, OverflowError, OSError):
        return _fail(_USAGE)
    if not names:
        return _fail(_USAGE)
    try:
        renew(Path(folder), tuple(names), at)
    except CertsError as error:
        return _fail(str(error))
    except Exception as error:  # noqa: BLE001 - a traceback could show what was being read
        return _fail(f"a bug of ours: {type(error).__name__}")
    return 0


def _fail(text: str) -> int:
    sys.stderr.write(f"{' '.join(text.split())}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
