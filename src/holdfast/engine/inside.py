"""What the engine asks of whoever reads the files inside of an image's disks.

Must not list them: their names are in an index image. Invariant of every implementation: what can't
be read raises, and is never made up.
"""

from __future__ import annotations

from typing import Protocol


class InsideFiles(Protocol):
    """Reads for a mount. Thread-safe; several calls are under way at once.

    What a method raises is an input/output error to whoever asked, and a finding of the mount.
    """

    def read(self, path: bytes, inode: int, size: int, offset: int, length: int) -> bytes:
        """The bytes of a file from an offset on; fewer only at its end, holes as zeros.

        Args:
            path: Absolute, as the index image has it.
            inode: As the index image has it.
            size: Of the file, as the index image has it.
            offset: In the file.
            length: In bytes, no more than the file has from there.
        """
        ...

    def xattrs(self, path: bytes, inode: int) -> list[tuple[bytes, bytes]]:
        """The extended attributes of what is at a path."""
        ...
