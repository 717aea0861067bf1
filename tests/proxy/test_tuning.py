"""What the process asks of Python and of the C library."""

import subprocess
import sys

PROGRAM = """
import resource, sys
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
from proxy.tuning import tune
tune()
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard, sys.getswitchinterval())
"""


def test_descriptors_are_raised_and_threads_give_way_soon() -> None:
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    ).stdout
    assert said.split() == ["True", "0.0005"]
