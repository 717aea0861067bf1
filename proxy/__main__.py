"""`python -m proxy`: the command line."""

import sys

from proxy.cli import main

main(sys.argv[1:])
