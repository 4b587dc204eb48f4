"""The programs that are compared: how each is installed, set up, and told what to do.

Must not measure. Invariants: every tool encrypts, with a passphrase, and compresses as it does by
default, unless its place asks for equal sizes; all it writes is below the directory given to it,
its caches too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.tools.borg import Borg
from benchmarks.tools.holdfast import Holdfast
from benchmarks.tools.kopia import Kopia
from benchmarks.tools.restic import Restic
from benchmarks.tools.rustic import Rustic
from benchmarks.tools.tool import Backup, Place, Step, Tool, ToolError, ToolMissingError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "NAMES",
    "Backup",
    "Place",
    "Step",
    "Tool",
    "ToolError",
    "ToolMissingError",
    "provide",
]

NAMES = ("holdfast", "restic", "rustic", "kopia", "borg")


def provide(name: str, cache: Path) -> Tool:
    """Install a tool, or find it.

    Args:
        name: One of `NAMES`.
        cache: Where what is installed stays for later runs.

    Raises:
        ToolMissingError: It can't be had.
    """
    cache.mkdir(parents=True, exist_ok=True)
    match name:
        case "holdfast":
            return Holdfast()
        case "restic":
            return Restic(cache)
        case "rustic":
            return Rustic(cache)
        case "kopia":
            return Kopia(cache)
        case "borg":
            return Borg(cache)
        case _:
            raise ToolMissingError(f"there is no tool '{name}'")
