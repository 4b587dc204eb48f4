"""Programs that end with the process that began them, whatever becomes of that.

Must not know what they do. Invariant: no program outlives the process that began it, also one that
is killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Waits for the program, and kills it when the other end of standard input is closed: also by the
# system, when the process that holds it is killed.
_SUPERVISOR = """
trap '' TERM
exec 3<&0
"$@" </dev/null 3<&- & program=$!
exec 2>/dev/null
{ read -r _ <&3; kill -KILL $program; } >/dev/null & watch=$!
exec 3<&-
wait $program; status=$?
kill -KILL $watch
exit $status
"""


def begin(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    stdout: IO[bytes] | int = subprocess.DEVNULL,
    stderr: IO[bytes] | int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Begin a program.

    Args:
        command: Its words.
        environment: All that it has of one.
        stdout: Where what it says goes.
        stderr: Where its complaints go.

    Returns:
        Its supervisor, the leader of a process group; it ends with the status of the program.
    """
    return subprocess.Popen(
        ["/bin/sh", "-c", _SUPERVISOR, "holdfast-supervisor", *command],
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        env=environment,
        start_new_session=True,
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """End it at once, and all of its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
