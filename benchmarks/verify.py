"""Compare a restore with its original.

Must not forgive anything but what a tool is known not to bring back. Invariant: content, names,
modes, owners and times of files are never forgiven.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from benchmarks.tools.tool import DIRECTORY_TIMES, HARD_LINKS, LINK_TIMES, TOP_TIME
from holdfast.movers.comparison import Comparison, Difference, compare_trees

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def compare(original: Path, restored: Path, forgets: Sequence[str]) -> Comparison:
    """Compare two trees, or two files.

    Args:
        original: What was backed up.
        restored: What came back.
        forgets: What the tool is known not to bring back.
    """
    left, right = os.fsencode(original), os.fsencode(restored)

    def forgive(one: Difference) -> bool:
        if one.words.startswith("modified at"):
            path = os.path.join(left, one.path) if one.path else left
            if os.path.islink(path):
                return LINK_TIMES in forgets
            top = TOP_TIME in forgets and not one.path
            return os.path.isdir(path) and (top or DIRECTORY_TIMES in forgets)
        return HARD_LINKS in forgets and one.words.startswith("is a hard link")

    return compare_trees(left, right, owners=os.geteuid() == 0, forgive=forgive)


def complaint(seen: Comparison, files: int) -> str:
    """What is wrong with a restore, in words; empty if nothing is.

    Args:
        seen: The comparison.
        files: How many it must have looked at, at least.
    """
    if seen.differences_total:
        first = seen.differences[0]
        return (
            f"{seen.differences_total:,} differences; the first: "
            f"{os.fsdecode(first.path)} {first.words}"
        )
    return f"only {seen.files:,} files were compared" if seen.files < files else ""
