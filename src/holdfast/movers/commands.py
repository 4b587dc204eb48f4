"""Run what a policy wants run before and after a backup.

Must not use a shell. Invariants: a command that is given up is gone with all that it started;
what it said is kept up to a bound, its end rather than its beginning.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from typing import IO, TYPE_CHECKING

from holdfast.base.errors import CommandFailed
from holdfast.base.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

OUTPUT_BYTES = 16 << 10
"""How much of what a command says is kept."""

_POLL_S = 0.2


def run_command(
    command: Sequence[str],
    environ: Mapping[str, str],
    timeout_s: float,
    alive: Callable[[], None],
) -> str:
    """Run a command and wait for its end.

    Args:
        command: The program and its arguments.
        environ: Added to the environment of this process.
        timeout_s: How long it may take.
        alive: Called a few times a second; what it raises ends the command.

    Returns:
        The end of what it wrote, to stdout and stderr together.

    Raises:
        CommandFailed: It can't be started, took too long, or its exit status was not 0.
    """
    shown = " ".join(command)
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                list(command),
                env={**os.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise CommandFailed(
                f"can't run '{shown}': {error.strerror}", "name a program that is there"
            ) from error
        try:
            status = _wait(process, timeout_s, alive)
        finally:
            _end(process)
        said = _end_of(output)
    tail = f": {said.splitlines()[-1]}" if said else ""
    if status is None:
        late = CommandFailed(f"'{shown}' took longer than {format_duration(timeout_s)}{tail}")
        late.cut_off = True
        raise late
    if status != 0:
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        raise CommandFailed(f"'{shown}' ended with {how}{tail}")
    return said


def _wait(
    process: subprocess.Popen[bytes], timeout_s: float, alive: Callable[[], None]
) -> int | None:
    waited_s = 0.0
    while waited_s < timeout_s:
        alive()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(min(_POLL_S, timeout_s - waited_s))
        waited_s += _POLL_S
    return None


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _end_of(output: IO[bytes]) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(size - OUTPUT_BYTES, 0))
    return output.read().decode("utf-8", "backslashreplace").strip()
