"""What the engine asks of whatever carries its words to a pool far away.

Must not carry them: see ``holdfast.movers.transfer``. Invariant of every implementation: what a
method returns is what the other side said, whole; each may be said twice without harm.
"""

from __future__ import annotations

from typing import Protocol


class Link(Protocol):
    """The way from a client to a media server. Thread-safe; several calls are under way at once.

    What a method raises ends the verb that called it, which raises the same.
    """

    def missing(self, names: bytes) -> bytes:
        """Ask which chunks the pool lacks.

        Args:
            names: Of chunks, 32 bytes each, laid end to end.

        Returns:
            A bit for each, 1 for one that is lacking; the lowest bit of the first byte is that of
            the first name.
        """
        ...

    def send(self, body: bytes) -> None:
        """Hand over a body of blocks; the other side has it when this returns."""
        ...

    def read(self, wanted: bytes) -> bytes:
        """Ask for chunks.

        Args:
            wanted: 37 bytes for each: name, length (little endian), kind.

        Returns:
            A body of blocks that hold them.
        """
        ...

    def commit(self, draft: bytes) -> bytes:
        """Have an image committed.

        Args:
            draft: Its manifest, as far as whoever read the files knows it; of an image that comes
                from another pool, its manifest there.

        Returns:
            The manifest that was committed.
        """
        ...
