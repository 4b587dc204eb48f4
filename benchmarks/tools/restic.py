"""https://restic.net"""

# ruff: noqa: ARG002 - a tool is told more than it may need
from __future__ import annotations

import os
from typing import TYPE_CHECKING

from benchmarks.tools.install import GoProgram, go_program
from benchmarks.tools.tool import PASSPHRASE, Backup, Place, Step, last_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PROGRAM = GoProgram("restic", "github.com/restic/restic", "cmd/restic", "v0.19.1")


class Restic:
    """Compresses with zstd, in a repository of version 2."""

    name = "restic"
    settings = "repository version 2, compression auto"
    equal_settings = "compression auto (zstd)"
    forgets: tuple[str, ...] = ()

    def __init__(self, cache: Path) -> None:
        found = go_program(PROGRAM, cache)
        self._program, self.source, self.remark = found.program, found.source, found.remark
        self.version = found.version

    def init(self, place: Place) -> list[Step]:
        """Make a repository of the format that compresses."""
        return [self._step(place, ["init", "--repository-version", "2"])]

    def backup(self, place: Place, number: int) -> Step:
        """Add a snapshot."""
        return self._step(place, ["backup", "--json", os.fspath(place.corpus)])

    def restore(self, place: Place, backup: Backup) -> Step:
        """Restore a snapshot."""
        return self._step(place, ["restore", _id(backup), "--target", os.fspath(place.back)])

    def restore_one(self, place: Place, backup: Backup, path: str) -> Step:
        """Restore one path of a snapshot."""
        words = ["restore", _id(backup), "--target", os.fspath(place.back)]
        return self._step(place, [*words, "--include", os.fspath(place.corpus / path)])

    def expire(self, place: Place, backups: Sequence[Backup]) -> Step:
        """Forget snapshots."""
        return self._step(place, ["forget", *(_id(one) for one in backups)])

    def collect(self, place: Place) -> Step:
        """Prune, keeping as much unused as it does by default."""
        return self._step(place, ["prune"])

    def find(self, place: Place, name: str) -> list[Step]:
        """In all snapshots."""
        return [self._step(place, ["find", name])]

    def engine_s(self, output: str) -> float | None:
        """There is no catalog: the whole command is the work."""
        return None

    def _step(self, place: Place, words: list[str]) -> Step:
        environment = place.environment(
            RESTIC_PASSWORD=PASSPHRASE,
            RESTIC_REPOSITORY=os.fspath(place.pool),
            RESTIC_CACHE_DIR=os.fspath(place.state / "cache"),
        )
        return Step([self._program, "--quiet", *words], environment)


def _id(backup: Backup) -> str:
    return str(last_json(backup.said, "restic").get("snapshot_id"))
