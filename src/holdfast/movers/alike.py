"""Many like directories beside each other, told by how their names begin.

Must not look at a disk. Invariant: of the parts of some none begins as another one does, but for
one directory that is named as all of them begin.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from holdfast.wire.dividing import all_beginning, is_plain


@dataclass(frozen=True, slots=True)
class Alike:
    """Directories whose names begin alike.

    Attributes:
        members: Their names and weights, one or more.
    """

    members: tuple[tuple[str, int], ...]

    @property
    def prefix(self) -> str:
        """How they begin: all of it that they have in common."""
        # These are names, no paths.
        return os.path.commonprefix([name for name, _ in self.members])  # noqa: RUF071

    @property
    def weight(self) -> int:
        """Of all together."""
        return sum(weight for _, weight in self.members)

    def taken(self) -> str | None:
        """What stands for them; None if no rule can say it."""
        if len(self.members) == 1:
            return self.prefix
        return all_beginning(self.prefix) if is_plain(self.prefix) else None

    def parts(self) -> list[Alike]:
        """The same, by the next letter; one that has no further letter by itself."""
        found: dict[str, list[tuple[str, int]]] = {}
        end = len(self.prefix) + 1
        for name, weight in self.members:
            found.setdefault(name[:end], []).append((name, weight))
        return [Alike(tuple(members)) for members in found.values()]
