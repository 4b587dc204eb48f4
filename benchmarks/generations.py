"""Disk images through days of change: a backup a day, then half of them go.

Must not know how any tool is driven, nor how results are shown. Invariants: each generation is
the same for every tool; the newest backup is restored and compared after garbage was collected.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.corpora import disk_images
from benchmarks.report import Measured
from benchmarks.tools import Backup, Place, Tool, ToolError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from benchmarks.session import Session


@dataclass(slots=True)
class _Line:
    """One tool's days."""

    tool: Tool
    place: Place
    backups: list[Backup] = field(default_factory=list)
    days: list[Measured] = field(default_factory=list)


def run(
    session: Session, works: Collection[str], count: int, generations: int
) -> dict[str, list[dict[str, float]]]:
    """Do this many rounds of this many generations.

    Returns:
        For each tool, seconds and stored bytes after each generation of the last round.
    """
    series: dict[str, list[dict[str, float]]] = {}
    for number in range(count):
        disks = session.directory(f"{number + 1}-disks").resolve()
        for one in sorted(session.corpus.root.iterdir()):
            shutil.copy2(one, disks / one.name)
        _Round(session, number, disks).run(works, generations, series)
        shutil.rmtree(disks)
    return series


class _Round:
    def __init__(self, session: Session, number: int, disks: Path) -> None:
        self._session = session
        self._number = number
        self._disks = disks
        self._lines: list[_Line] = []

    def run(
        self,
        works: Collection[str],
        generations: int,
        series: dict[str, list[dict[str, float]]],
    ) -> None:
        for tool in self._session.turn(self._number):
            place = self._session.open(tool, f"{self._number + 1}-images", self._disks)
            if place is not None:
                self._lines.append(_Line(tool, place))
        for generation in range(generations):
            if generation:
                disk_images.advance(self._disks, self._session.corpus.shape.seed, generation)
            turn = generation % max(len(self._lines), 1)
            self._all(self._day, self._lines[turn:] + self._lines[:turn])
        for line in self._lines:
            self._session.note(self._number, "days", line.tool.name, _sum(line.days))
            series[line.tool.name] = [
                {"wall_s": day.wall_s, "pool_bytes": day.pool_bytes} for day in line.days
            ]
        for work, do in (
            ("expire", self._expire),
            ("collect", self._collect),
            ("restore", self._restore),
        ):
            if work in works:
                self._all(do, list(self._lines))
        self._session.close([line.place for line in self._lines], 1)

    def _all(self, do: Callable[[_Line], None], lines: list[_Line]) -> None:
        """A tool that fails is left out of what follows."""
        for line in lines:
            try:
                do(line)
            except ToolError as failure:
                self._session.fail(f"{line.tool.name}, disk images: {failure}")
                self._lines.remove(line)

    def _day(self, line: _Line) -> None:
        number = len(line.backups) + 1
        step = line.tool.backup(line.place, number)
        measured, said = self._session.sample(line.tool, line.place, step)
        if number == 1:
            self._session.note(self._number, "first", line.tool.name, measured)
        line.backups.append(Backup(number, said))
        line.days.append(measured)

    def _expire(self, line: _Line) -> None:
        """The older half goes."""
        step = line.tool.expire(line.place, line.backups[: len(line.backups) // 2])
        pool = (line.place.pool,)
        self._session.take(self._number, "expire", line.tool, line.place, step, reads=pool)

    def _collect(self, line: _Line) -> None:
        step = line.tool.collect(line.place)
        pool = (line.place.pool,)
        self._session.take(self._number, "collect", line.tool, line.place, step, reads=pool)

    def _restore(self, line: _Line) -> None:
        session, newest = self._session, line.backups[-1]
        session.restore(self._number, "restore", line.tool, line.place, newest)


def _sum(days: list[Measured]) -> Measured:
    engine = [day.engine_s for day in days if day.engine_s is not None]
    return Measured(
        wall_s=sum(day.wall_s for day in days),
        cpu_s=sum(day.cpu_s for day in days),
        system_s=sum(day.system_s for day in days),
        peak_bytes=max(day.peak_bytes for day in days),
        engine_s=sum(engine) if engine else None,
        pool_bytes=days[-1].pool_bytes,
        state_bytes=days[-1].state_bytes,
    )
