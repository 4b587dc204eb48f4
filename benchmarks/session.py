"""One corpus being measured: places of tools, samples, failures.

Must not decide what is measured: see rounds and generations. Invariants: what is compared or
deleted is outside of every measured time; trees of many files are deleted as late as the disk
allows, since ext4 makes files slowly for minutes after many were deleted (it looks for inodes
that were not freed just now), and whoever restores next would pay.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from benchmarks import measure, verify
from benchmarks.report import Measured, Row
from benchmarks.tools import Backup, Place, Step, Tool, ToolError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from benchmarks.corpora import Corpus

_KEEP_FILES = 1_000_000
_SETTLE_S = 65
"""For a minute ext4 passes over inodes that were freed, if that is on the disk."""


class Session:
    """What the works on one corpus share.

    Attributes:
        corpus: What is backed up.
        tools: Those that are compared.
        rows: What was measured, in the order in which works began.
        failures: Commands that failed and restores that were not the same, in words.
    """

    def __init__(
        self,
        corpus: Corpus,
        tools: Sequence[Tool],
        place: Path,
        tell: Callable[[str], None],
    ) -> None:
        self.corpus = corpus
        self.tools = tools
        self.rows: list[Row] = []
        self.failures: list[str] = []
        self._place = place
        self._tell = tell

    def turn(self, number: int) -> list[Tool]:
        """The tools, another one first each time."""
        at = number % max(len(self.tools), 1)
        return [*self.tools[at:], *self.tools[:at]]

    def directory(self, name: str) -> Path:
        """A new directory for what is no tool's own."""
        made = self._place / name
        made.mkdir(parents=True)
        return made

    def open(self, tool: Tool, name: str, corpus: Path, *, equal: bool = False) -> Place | None:
        """A new place with an empty pool; None if the tool can't make one."""
        place = Place(self._place / f"{name}-{tool.name}", corpus, equal)
        place.state.mkdir(parents=True)
        try:
            for step in tool.init(place):
                measure.run(step.command, step.environment, place.root)
        except ToolError as failure:
            self.fail(f"{tool.name}, init: {failure}")
            return None
        return place

    def close(self, places: Sequence[Place], rounds: int) -> None:
        """Delete pools, and restored trees where that may or must be done now.

        Args:
            places: Whose.
            rounds: How many more such trees there will be if they are kept.
        """
        many = not self.corpus.few
        crowd = self.corpus.files * rounds * len(self.tools) > _KEEP_FILES
        for place in places:
            if many and not crowd:
                shutil.rmtree(place.pool, ignore_errors=True)
            else:
                shutil.rmtree(place.root, ignore_errors=True)
        if many and crowd and places:
            self._tell(f"waits {_SETTLE_S} s, until making files is no longer slow")
            os.sync()
            time.sleep(_SETTLE_S)

    def end(self) -> None:
        """Delete everything."""
        shutil.rmtree(self._place, ignore_errors=True)

    def sample(
        self,
        tool: Tool,
        place: Place,
        step: Step,
        *,
        cold: bool = False,
        reads: Sequence[Path] | None = None,
    ) -> tuple[Measured, str]:
        """Measure a step. What it reads, corpus and pool if nothing is said, is in memory.

        Returns:
            What it took, and what it wrote to its standard output.

        Raises:
            ToolError: It failed.
        """
        reads = (place.corpus, place.pool) if reads is None else reads
        sample, said = measure.run(
            step.command, step.environment, place.root, step.cwd, cold=cold, reads=reads
        )
        values = {**asdict(sample), "engine_s": tool.engine_s(said)}
        values["pool_bytes"] = measure.size_of(place.pool)
        values["state_bytes"] = measure.size_of(place.state)
        return Measured(**values), said

    def take(
        self,
        number: int,
        work: str,
        tool: Tool,
        place: Place,
        step: Step,
        *,
        cold: bool = False,
        reads: Sequence[Path] | None = None,
    ) -> str:
        """Measure a step and note it; for the rest see `sample`."""
        measured, said = self.sample(tool, place, step, cold=cold, reads=reads)
        self.note(number, work, tool.name, measured)
        return said

    def note(self, number: int, work: str, name: str, measured: Measured) -> None:
        """Add a sample to its row."""
        self._tell(
            f"{self.corpus.shape.name:6} round {number + 1} {work:12} {name:12} "
            f"{measured.wall_s:8.2f} s {measured.cpu_s:8.2f} CPU s "
            f"{measured.peak_bytes >> 20:5} MiB"
        )
        for row in self.rows:
            if row.work == work and row.tool == name:
                row.rounds[number] = measured
                return
        self.rows.append(Row(work, name, {number: measured}))

    def sorted_rows(self, names: Sequence[str]) -> list[Row]:
        """The rows by work, in the order in which those began; then by tool: turns mixed them."""
        works = list(dict.fromkeys(row.work for row in self.rows))
        return sorted(self.rows, key=lambda row: (works.index(row.work), names.index(row.tool)))

    def restore(
        self,
        number: int,
        work: str,
        tool: Tool,
        place: Place,
        backup: Backup,
        one: str | None = None,
        *,
        cold: bool = False,
    ) -> None:
        """Measure a restore, then compare it with what the corpus is now.

        Args:
            number: Of the round.
            work: What it is measured as.
            tool: Whose.
            place: Where.
            backup: What is restored.
            one: Only this path, relative to the corpus.
            cold: Let the kernel forget first what it has read.

        Raises:
            ToolError: The command failed.
        """
        there = replace(place, into=work)
        there.back.mkdir()
        if one is None:
            step = tool.restore(there, backup)
            original, restored, files = place.corpus, there.restored, self.corpus.files
        else:
            step = tool.restore_one(there, backup, one)
            original, restored, files = place.corpus / one, there.restored / one, 1
        self.take(number, work, tool, there, step, cold=cold, reads=(place.pool,))
        words = verify.complaint(verify.compare(original, restored, tool.forgets), files)
        if words:
            self.fail(f"{tool.name} restored {self.corpus.title} ({work}) with {words}")
        if self.corpus.few or one is not None:
            shutil.rmtree(there.back)

    def fail(self, words: str) -> None:
        """Remember that something went wrong."""
        self._tell(f"FAILED: {words}")
        self.failures.append(words)
