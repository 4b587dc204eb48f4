"""Feed the differences between two trees into a source's rows: give names and directories ids.

Must not know SQL, nor decide what to compare: see `ingest`. Ids are given out here, by the one
writer of the source, so that what is stored is numbers by the time it is stored. Two bounded
dictionaries save most questions; what they have lost, the target is asked for.
"""

from __future__ import annotations

import itertools
from operator import itemgetter
from typing import TYPE_CHECKING

from holdfast.control.catalog.file_rows import ROOT, Mode
from holdfast.control.catalog.folding import fold_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from holdfast.control.catalog.file_rows import FeedTarget
    from holdfast.control.catalog.rows import ChangeRows

NAMES_KNOWN = 1_000_000
DIRECTORIES_KNOWN = 200_000

_name_of_row = itemgetter(1)


class Feed:
    """Feeds one image into one source's rows, inside of the writer's transaction."""

    def __init__(
        self, target: FeedTarget, mode: Mode, directories: dict[bytes, int] | None = None
    ) -> None:
        """Begin.

        Args:
            target: Where it goes.
            mode: What the rows are differences to.
            directories: Ids by path of directories that are stored; more are added.
        """
        self.rows = 0
        self._target = target
        highest_name, highest_directory = target.highest_ids()
        fresh = mode is Mode.FRESH
        self._names = _Names(target, highest_name, every_one_known=fresh)
        known = {} if directories is None else directories
        self._directories = _Directories(target, self._names, highest_directory, known, new=fresh)

    def add(self, batch: ChangeRows) -> None:
        """Feed one batch of differences."""
        rows = batch.rows
        if not rows:
            return
        names = self._names.ids(list(map(_name_of_row, rows)))
        directories = self._directories.ids(batch.dirs)
        self._target.load(directories, names, rows)
        self.rows += len(rows)

    def finish(self, base: int | None) -> None:
        """Settle what no row mentioned; see `FeedTarget.finish`."""
        self._target.finish(base)

    def close(self) -> None:
        """Leave nothing temporary behind; also after a failure."""
        self._target.close()


class _Names:
    def __init__(self, target: FeedTarget, highest: int, *, every_one_known: bool) -> None:
        self._target = target
        self._next = highest + 1
        self._known: dict[bytes, int] = {}
        self._every_one_known = every_one_known

    def ids(self, names: Sequence[bytes]) -> list[int]:
        """An id for each name; new ones are stored."""
        known = self._known
        if len(known) > NAMES_KNOWN:
            known.clear()
            if self._every_one_known:
                self._every_one_known = False
                self._target.outgrew_memory()
        # in the order of the rows: neighbours in a directory are neighbours among the names
        missing = list(itertools.filterfalse(known.__contains__, dict.fromkeys(names)))
        if missing and not self._every_one_known:
            known.update(self._target.find_names(missing))
            missing = [name for name in missing if name not in known]
        if missing:
            ids = range(self._next, self._next + len(missing))
            self._next = ids.stop
            known.update(zip(missing, ids, strict=True))
            folded: Iterable[str | None] = itertools.repeat(None)
            if not b"".join(missing).isascii():
                folded = [None if name.isascii() else fold_name(name) for name in missing]
            self._target.add_names(list(zip(ids, missing, folded, strict=False)))
        return list(map(known.__getitem__, names))


class _Directories:
    def __init__(
        self,
        target: FeedTarget,
        names: _Names,
        highest: int,
        known: dict[bytes, int],
        *,
        new: bool,
    ) -> None:
        self._target = target
        self._names = names
        self._next = max(highest, ROOT) + 1
        # What is new in this feed can only have new children, and all of those are known until
        # something had to be forgotten.
        self._first_new = ROOT if new else self._next
        self._every_new_one_known = True
        self._known = known
        known[b"/"] = ROOT

    def ids(self, paths: Iterable[bytes]) -> list[int]:
        """An id for each path; new directories are stored, and those above them."""
        if len(self._known) > DIRECTORIES_KNOWN:
            self._known.clear()
            self._known[b"/"] = ROOT
            if self._every_new_one_known:
                self._every_new_one_known = False
                self._target.outgrew_memory()
        paths = list(paths)
        for level in self._unknown(paths):
            self._learn(level)
        return list(map(self._known.__getitem__, paths))

    def _unknown(self, paths: list[bytes]) -> list[list[tuple[bytes, bytes, bytes]]]:
        """(path, parent, name) of every directory that is not known, the upper ones first."""
        levels: dict[int, list[tuple[bytes, bytes, bytes]]] = {}
        met: set[bytes] = set()
        known = self._known
        for asked in itertools.filterfalse(known.__contains__, paths):
            path = asked
            while path not in known and path not in met:
                met.add(path)
                above, _, name = path.rpartition(b"/")
                parent = above or b"/"
                levels.setdefault(path.count(b"/"), []).append((path, parent, name))
                path = parent
        return [levels[depth] for depth in sorted(levels)]

    def _learn(self, level: list[tuple[bytes, bytes, bytes]]) -> None:
        known = self._known
        places = [(known[parent], name) for _, parent, name in level]
        wanted = places
        if self._every_new_one_known:
            wanted = [place for place in places if place[0] < self._first_new]
        stored = self._target.find_directories(wanted) if wanted else {}
        if len(stored) < len(places):
            stored.update(self._added([one for one in places if one not in stored]))
        for (path, _, _), place in zip(level, places, strict=True):
            known[path] = stored[place]

    def _added(self, places: list[tuple[int, bytes]]) -> dict[tuple[int, bytes], int]:
        """Ids of directories that are new, by (parent, name)."""
        names = self._names.ids([name for _, name in places])
        ids = range(self._next, self._next + len(places))
        self._next = ids.stop
        self._target.add_directories(
            [(one, place[0], name) for one, place, name in zip(ids, places, names, strict=True)]
        )
        return dict(zip(places, ids, strict=True))
