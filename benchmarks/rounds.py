"""The rounds on a tree of files: every tool does a work before any does the next.

Must not know how any tool is driven, nor how results are shown. Invariants: tools take turns at
being first; a round begins with the corpus as it was made, whatever the round before changed.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from benchmarks import measure
from benchmarks.report import COLD, WORKS
from benchmarks.tools import Backup, Place, Tool, ToolError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from benchmarks.limits import Limits
    from benchmarks.session import Session

_BACKUPS = ("first", "again", "changed")
_SEARCHED = 10
"""Backups that are made before they are searched."""

_HOSTS = 5
"""By so many machines, two backups each."""


def run(session: Session, works: Collection[str], count: int, limits: Limits | None = None) -> None:
    """Do this many rounds.

    Args:
        session: The corpus and the tools.
        works: Keys of `report.WORKS`; a restore makes the backup it needs.
        count: How many.
        limits: Are measured, too, if given.
    """
    corpus = session.corpus
    one = _middle_file(corpus.root)
    try:
        for number in range(count):
            if limits is not None and "limit" in works:
                limits.streams(session, number)
            _Round(session, number, one, works, limits).run(count)
    finally:
        corpus.restore()


class _Round:
    def __init__(
        self,
        session: Session,
        number: int,
        one: str,
        works: Collection[str],
        limits: Limits | None,
    ) -> None:
        self._session = session
        self._number = number
        self._one = one
        self._works = works
        self._limits = limits if "limit" in works else None
        self._root = session.corpus.root.resolve()
        self._turn = session.turn(number)

    def run(self, count: int) -> None:
        places = self._open("warm")
        self._warm_works(places)
        self._session.corpus.restore()
        self._session.close([place for place, _ in places.values()], count)
        if "find" in self._works:
            places = self._open("find")
            self._search(places)
            self._session.close([place for place, _ in places.values()], count)
        if "equal" in self._works:
            places = self._open("equal", equal=True)
            self._all(places, "equal")
            self._session.close([place for place, _ in places.values()], count)
        cold = [work for work in COLD if work in self._works]
        if cold:
            places = self._open("cold")
            for work in COLD:
                # Whatever is asked for, there has to be a backup before it.
                if work in cold or work == "cold-first":
                    self._all(places, work, cold=True)
            self._session.close([place for place, _ in places.values()], count)

    def _warm_works(self, places: dict[str, tuple[Place, list[Backup]]]) -> None:
        if not any(work in self._works for work in (*_BACKUPS, "restore", "one")):
            return
        self._all(places, "first")
        if self._limits is not None:
            self._limits.walk(self._session, self._number)
        if "again" in self._works:
            self._all(places, "again")
        if "changed" in self._works:
            self._session.corpus.change()
            self._all(places, "changed")
        for work in ("restore", "one"):
            if work in self._works:
                self._all(places, work)

    def _search(self, places: dict[str, tuple[Place, list[Backup]]]) -> None:
        """Look for a file in many backups of several machines, each with another change.

        The backups are not measured. A machine is a name of its own, as every tool asks for it.
        """
        session, name = self._session, os.path.basename(self._one)
        for tool in self._turn:
            if tool.name in places and not tool.find(places[tool.name][0], name):
                del places[tool.name]
        for change in range(_SEARCHED):
            session.corpus.change(change)
            for tool in [one for one in self._turn if one.name in places]:
                with self._left_out_if_it_fails(tool, "find", places):
                    place, _ = places[tool.name]
                    step = tool.backup(place, change + 1)
                    command = [*_as_host(change % _HOSTS), *step.command]
                    measure.run(command, step.environment, place.root, step.cwd)
        session.corpus.restore()
        for tool in [one for one in self._turn if one.name in places]:
            with self._left_out_if_it_fails(tool, "find", places):
                place, _ = places[tool.name]
                *before, search = tool.find(place, name)
                for step in before:
                    session.take(self._number, "catalog", tool, place, step, reads=(place.pool,))
                said = session.take(self._number, "find", tool, place, search, reads=(place.pool,))
                if name not in said:
                    raise ToolError(f"did not find {name!r}: {said[-200:]!r}")

    @contextlib.contextmanager
    def _left_out_if_it_fails(
        self, tool: Tool, work: str, places: dict[str, tuple[Place, list[Backup]]]
    ) -> Iterator[None]:
        try:
            yield
        except ToolError as failure:
            title = self._session.corpus.title
            self._session.fail(f"{tool.name}, {WORKS[work]}, {title}: {failure}")
            del places[tool.name]

    def _open(self, name: str, *, equal: bool = False) -> dict[str, tuple[Place, list[Backup]]]:
        opened = {}
        for tool in self._turn:
            place = self._session.open(tool, f"{self._number + 1}-{name}", self._root, equal=equal)
            if place is not None:
                backups: list[Backup] = []
                opened[tool.name] = (place, backups)
        return opened

    def _all(
        self, places: dict[str, tuple[Place, list[Backup]]], work: str, *, cold: bool = False
    ) -> None:
        """One work by every tool; one that fails is left out of what follows."""
        for tool in self._turn:
            if tool.name not in places:
                continue
            place, backups = places[tool.name]
            with self._left_out_if_it_fails(tool, work, places):
                self._do(work, tool, place, backups, cold=cold)

    def _do(
        self, work: str, tool: Tool, place: Place, backups: list[Backup], *, cold: bool
    ) -> None:
        session, number = self._session, self._number
        if work.endswith(("restore", "one")):
            one = self._one if work.endswith("one") else None
            session.restore(number, work, tool, place, backups[-1], one, cold=cold)
            return
        step = tool.backup(place, len(backups) + 1)
        said = session.take(number, work, tool, place, step, cold=cold)
        backups.append(Backup(len(backups) + 1, said))


def _as_host(number: int) -> list[str]:
    """What runs a command on this machine under another name; nothing where only root may."""
    if os.geteuid() != 0:
        return []
    return ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', f"host{number}"]


def _middle_file(root: os.PathLike[str]) -> str:
    """A regular file half-way through the names, so that no tool finds it first or last."""
    found: list[str] = []
    for above, directories, names in os.walk(root):
        directories.sort()
        paths: Sequence[str] = [os.path.join(above, name) for name in sorted(names)]
        found += [path for path in paths if not os.path.islink(path)]
    return os.path.relpath(found[len(found) // 2], root)
