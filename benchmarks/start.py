"""What a short command costs, several in turn: ``benchmarks/start.py PROGRAM... -- WORDS``.

After another ``--`` comes a command of its own that takes its turn, too: a limit, to which the
others are compared turn by turn.

Must not know what the words do; the environment is the caller's. Invariant: the programs take
turns, so that what else the machine does falls on all of them; the first turn is not counted.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from dataclasses import dataclass

TURNS = 15


@dataclass(frozen=True, slots=True)
class Cost:
    """One run of a command, with all that it waited for."""

    cpu_s: float
    wall_s: float
    faults: int
    peak_mib: int


def main(words: list[str]) -> int:
    """Measure and print a line for each program; 64 for wrong usage, 1 if one failed."""
    if "--" not in words[1:]:
        print("want: PROGRAM... -- WORDS [-- LIMIT...]", file=sys.stderr)
        return 64
    at = words.index("--")
    programs, arguments = words[:at], words[at + 1 :]
    limit: list[str] = []
    if "--" in arguments:
        at = arguments.index("--")
        arguments, limit = arguments[:at], arguments[at + 1 :]
    commands = {program: [program, *arguments] for program in programs}
    if limit:
        commands[limit[0]] = limit
    costs: dict[str, list[Cost]] = {program: [] for program in commands}
    for turn in range(TURNS + 1):
        for program, command in commands.items():
            cost = run(command)
            if cost is None:
                print(f"{program} failed", file=sys.stderr)
                return 1
            if turn:
                costs[program].append(cost)
    for program, some in costs.items():
        cpu_s = [one.cpu_s for one in some]
        print(
            f"CPU {statistics.median(cpu_s):.3f} s ({min(cpu_s):.3f}-{max(cpu_s):.3f}), "
            f"{statistics.median(one.wall_s for one in some):.3f} s by the clock, "
            f"{some[0].faults} page faults, {some[0].peak_mib} MiB: {program}"
        )
        if limit and program != limit[0]:
            pairs = list(zip(some, costs[limit[0]], strict=True))
            print(
                f"  times the limit: {_spread([one.cpu_s / other.cpu_s for one, other in pairs])}"
                f" of processors, {_spread([one.wall_s / other.wall_s for one, other in pairs])}"
                " by the clock"
            )
    return 0


def _spread(some: list[float]) -> str:
    return f"{statistics.median(some):.2f} ({min(some):.2f}-{max(some):.2f})"


def run(command: list[str]) -> Cost | None:
    """Run a command whose output nobody reads; None if it failed."""
    null = os.open(os.devnull, os.O_RDWR)
    actions = [(os.POSIX_SPAWN_DUP2, null, number) for number in (0, 1, 2)]
    started = time.perf_counter()
    child = os.posix_spawnp(command[0], command, os.environ, file_actions=actions)
    _, status, usage = os.wait4(child, 0)
    wall_s = time.perf_counter() - started
    os.close(null)
    if status:
        return None
    cpu_s = usage.ru_utime + usage.ru_stime
    return Cost(cpu_s, wall_s, usage.ru_minflt, usage.ru_maxrss >> 10)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
