"""Owners and access lists of NTFS that what was restored onto could not hold: listed, not lost.

Must not write. Invariants: each different descriptor is kept once, with the paths of all files that
had it; beyond `PATHS_AT_MOST` files are counted, and no longer named.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from holdfast.sources.filesystems.ntfs_security import owner_of, to_sddl

PATHS_AT_MOST = 1_000_000


@dataclass(slots=True)
class Lost:
    """One descriptor.

    Attributes:
        files: How many files and directories had it.
        paths: Which; not all where there are very many.
    """

    files: int = 0
    paths: list[bytes] = field(default_factory=list)


class LostAccess:
    """What was lost of one restore."""

    def __init__(self) -> None:
        """Nothing so far."""
        self.by_descriptor: dict[bytes, Lost] = {}
        self.files = 0

    def add(self, path: bytes, descriptor: bytes) -> None:
        """Note a file that has lost its owner and access list."""
        one = self.by_descriptor.setdefault(descriptor, Lost())
        one.files += 1
        self.files += 1
        if self.files <= PATHS_AT_MOST:
            one.paths.append(path)

    def in_words(self) -> str:
        """How much it is."""
        return (
            f"owners and access lists of {self.files:,} files of Windows, "
            f"{len(self.by_descriptor):,} different ones, are not held by what they are restored "
            "onto; --json lists them"
        )

    def told(self) -> list[tuple[str | None, str | None, Lost]]:
        """Owner, SDDL (None for what is no descriptor), and whose it was; most files first."""
        most = sorted(self.by_descriptor.items(), key=lambda one: -one[1].files)
        return [(owner_of(one), to_sddl(one), lost) for one, lost in most]
