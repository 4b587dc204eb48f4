"""The rounds: every tool does a work before any does the next; restores are compared.

Must not decide what is measured or how it is shown. Invariants: tools take turns at being first;
what is compared or deleted is outside of every measured time; trees of many files are deleted
only when the last restore is done, since ext4 makes files slowly for minutes after many were
deleted (it looks for inodes that were not freed just now), and whoever restores next would pay.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict
from typing import TYPE_CHECKING

from benchmarks import measure
from benchmarks.report import Measured, Row
from benchmarks.tools import Place, Tool, ToolError
from holdfast.movers.comparison import compare_trees

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from benchmarks.corpora import Corpus


_MANY_FILES = 1000


class Rounds:
    """Works on one corpus.

    Attributes:
        rows: What was measured, in the order of the report.
        failures: Commands that failed and restores that were not the same, in words.
    """

    def __init__(
        self,
        corpus: Corpus,
        tools: Sequence[Tool],
        works: Sequence[str],
        place: Path,
        tell: Callable[[str], None],
    ) -> None:
        self._corpus = corpus
        self._tools = tools
        self._works = works
        self._place = place
        self._tell = tell
        self.rows = [Row(work, tool.name) for work in works for tool in tools]
        self.failures: list[str] = []

    def run(self, count: int) -> None:
        """Do this many rounds."""
        try:
            for number in range(count):
                at = number % len(self._tools)
                self._round(number, [*self._tools[at:], *self._tools[:at]])
        finally:
            shutil.rmtree(self._place, ignore_errors=True)

    def _round(self, number: int, turn: Sequence[Tool]) -> None:
        places = {}
        for tool in turn:
            root = self._place / f"{number + 1}-{tool.name}"
            place = Place(root, self._corpus.root.resolve())
            place.state.mkdir(parents=True)
            step = tool.init(place)
            measure.run(step.command, step.environment, place.root)
            places[tool.name] = place
        backups = 0
        for work in ("first", "again", "restore"):
            # A restore needs a backup, whether that one is asked for or not.
            if work not in self._works and work != "first":
                continue
            backups += work != "restore"
            for tool in [one for one in turn if one.name in places]:
                try:
                    self._do(number, work, tool, places[tool.name], backups)
                except ToolError as failure:
                    self._fail(f"{tool.name}, {work}, {self._corpus.title}: {failure}")
                    del places[tool.name]
        for place in places.values():
            shutil.rmtree(place.pool, ignore_errors=True)

    def _do(self, number: int, work: str, tool: Tool, place: Place, backups: int) -> None:
        if work == "restore":
            place.back.mkdir()
            step = tool.restore(place, backups)
        else:
            step = tool.backup(place, backups)
        sample, said = measure.run(step.command, step.environment, place.root, step.cwd)
        if work == "restore":
            self._compare(tool, place)
        values = {**asdict(sample), "engine_s": tool.engine_s(said)}
        values["pool_bytes"] = measure.size_of(place.pool)
        values["state_bytes"] = measure.size_of(place.state)
        self._tell(
            f"{self._corpus.shape.name:6} round {number + 1} {work:8} {tool.name:9} "
            f"{sample.wall_s:8.2f} s {sample.cpu_s:8.2f} CPU s"
        )
        for row in self.rows:
            if row.work == work and row.tool == tool.name:
                row.rounds[number] = Measured(**values)

    def _compare(self, tool: Tool, place: Place) -> None:
        left, right = os.fsencode(self._corpus.root.resolve()), os.fsencode(place.restored)
        seen = compare_trees(left, right, owners=os.geteuid() == 0)
        if self._corpus.files < _MANY_FILES:
            shutil.rmtree(place.back)
        if seen.differences_total:
            first = seen.differences[0]
            self._fail(
                f"{tool.name} restored {self._corpus.title} with {seen.differences_total:,} "
                f"differences; the first: {os.fsdecode(first.path)} {first.words}"
            )
        elif seen.files < self._corpus.files:
            self._fail(f"{tool.name}: only {seen.files:,} files were compared")

    def _fail(self, words: str) -> None:
        self._tell(f"FAILED: {words}")
        self.failures.append(words)
