"""Have the disks of an image read over NBD, from this machine.

Must not let anybody write. Invariant: who is not this user can't connect, and nobody can after the
block.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from holdfast.sources.nbd.server import shown
from holdfast.sources.nbd.wire import Address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from holdfast.movers.machines.record import StoredDisk

KEPT_BYTES = 256 * 1024 * 1024
"""What a pool keeps of what was read, while a machine runs from it: about what a boot reads."""


@contextlib.contextmanager
def served(
    disks: Mapping[str, StoredDisk],
    troubled: Callable[[str, Exception], None] = lambda _name, _error: None,
) -> Iterator[Mapping[str, str]]:
    """Serve disks for the time of the block.

    Args:
        disks: By name.
        troubled: Told of what could not be read: the disk, and why.

    Yields:
        The URL of each, as QEMU takes it.
    """
    # A socket's path has a hundred bytes at most: it can't lie just anywhere.
    with tempfile.TemporaryDirectory(prefix="holdfast-") as directory:
        path = str(Path(directory) / "nbd")
        with shown(dict(disks), Address(path=path), troubled=troubled):
            yield {
                name: f"nbd+unix:///{quote(name, safe='')}?socket={quote(path)}" for name in disks
            }
