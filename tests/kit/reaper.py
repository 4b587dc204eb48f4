"""Run a daemon, and wait for whatever it and its children leave behind.

`python -m tests.kit.reaper COMMAND…`: ends when all of them have. libvirt waits until a QEMU that
it ended is gone, which the first process of a container may not see to for a minute.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

_PR_SET_CHILD_SUBREAPER = 36


def main(command: list[str]) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    daemon = subprocess.Popen(command)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
    daemon.returncode = 0


if __name__ == "__main__":
    main(sys.argv[1:])
