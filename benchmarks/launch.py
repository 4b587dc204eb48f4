"""Run one command and write what it cost. Run as a program of its own, in isolated mode.

Must not import anything but the standard library's smallest: the kernel starts a child's peak of
memory at what its parent had, so the parent has to be small. Invariant: the time is from just
before the start of the command until it has ended.
"""

import json
import os
import sys
import time


def main() -> int:
    """``launch.py RESULT OUTPUT ERRORS COMMAND...``: the status is that of the command."""
    result, output, errors, *command = sys.argv[1:]
    null = os.open(os.devnull, os.O_RDONLY)
    write = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    out, err = os.open(output, write, 0o600), os.open(errors, write, 0o600)
    actions = [(os.POSIX_SPAWN_DUP2, null, 0)]
    actions += [(os.POSIX_SPAWN_DUP2, out, 1), (os.POSIX_SPAWN_DUP2, err, 2)]
    started = time.perf_counter_ns()
    child = os.posix_spawnp(command[0], command, dict(os.environ), file_actions=actions)
    # The usage of a child has that of its own children in it, when it waited for them.
    _, status, usage = os.wait4(child, 0)
    wall_ns = time.perf_counter_ns() - started
    measured = {
        "wall_s": wall_ns / 1e9,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "system_s": usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * 1024,
    }
    with open(result, "w", encoding="ascii") as stream:
        json.dump(measured, stream)
    return os.waitstatus_to_exitcode(status) & 0xFF


if __name__ == "__main__":
    sys.exit(main())
