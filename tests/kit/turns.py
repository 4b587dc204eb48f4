"""The order of tests: each process that shares them begins with slow ones and ends with quick ones.

What is long and begins last leaves the other processors idle. pytest-xdist gives each process one
stretch of the list, all of the same number of tests, and takes from the end of one for whoever has
done its own: so what is taken is quick, and no module with a costly fixture is done in two places.
Invariants: every test is there once; those of a module stay together, in their order; each
process finds the same order.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")

SECONDS = {"system": 10.0, "crash": 40.0, "property": 3.0, "faults": 1.0, "contract": 1.0}
"""About how long a test of a folder takes; those of other folders are quick."""
QUICK_S = 0.2
SLOW_S = 30.0
"""What is marked as slow takes so long."""

_TESTS = Path(__file__).parents[1]


def seconds(path: Path, *, is_slow: bool) -> float:
    """About how long a test in a file takes."""
    below = path.relative_to(_TESTS).parts if path.is_relative_to(_TESTS) else ("",)
    usual = SECONDS.get(below[0], QUICK_S)
    return max(usual, SLOW_S) if is_slow else usual


def in_turn(modules: Sequence[tuple[T, int, float]], processes: int) -> list[T]:
    """Have as many stretches as processes, alike in number of tests, and as can be in time.

    Args:
        modules: Of each what it is, how many tests it has, and how long they take.
        processes: How many there are to share them.
    """
    whole = sum(count for _, count, _ in modules)
    room = [(whole + at) // processes for at in range(processes)]
    busy_s = [0.0] * processes
    stretches: list[list[tuple[T, int, float]]] = [[] for _ in range(processes)]
    # The longest first, each to who has least to do; what has no room is the last one's.
    for module in sorted(modules, key=lambda one: -one[2]):
        _, count, takes_s = module
        open_ones = [at for at in range(processes) if room[at] >= count]
        at = min(open_ones, key=lambda one: busy_s[one]) if open_ones else room.index(max(room))
        stretches[at].append(module)
        room[at] -= count
        busy_s[at] += takes_s
    for stretch in stretches:
        stretch.sort(key=lambda one: -one[2] / one[1])
    return [module for stretch in stretches for module, _, _ in stretch]


def of_items(items: Sequence[tuple[T, Path, bool]], processes: int) -> list[T]:
    """Put tests in order, each with its file and whether it is marked as slow."""
    modules = []
    for path, group in groupby(items, key=lambda one: one[1]):
        tests = list(group)
        takes_s = sum(seconds(path, is_slow=is_slow) for _, _, is_slow in tests)
        modules.append(([test for test, _, _ in tests], len(tests), takes_s))
    return [test for module in in_turn(modules, processes) for test in module]
