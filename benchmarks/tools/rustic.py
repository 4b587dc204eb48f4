"""https://rustic.cli.rs"""

# ruff: noqa: ARG002 - a tool is told more than it may need
from __future__ import annotations

import os
from typing import TYPE_CHECKING

from benchmarks.tools.install import cargo_program
from benchmarks.tools.tool import PASSPHRASE, TOP_TIME, Backup, Place, Step, last_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_KNOWN = "0.11.4"


class Rustic:
    """Writes restic's format, and compresses with zstd at level 3."""

    name = "rustic"
    settings = "repository version 2, zstd level 3"
    equal_settings = "zstd level 3"
    forgets: tuple[str, ...] = (TOP_TIME,)

    def __init__(self, cache: Path) -> None:
        found = cargo_program("rustic", "rustic-rs", _KNOWN, cache, "--no-default-features")
        self._program, self.source, self.remark = found.program, found.source, found.remark
        self.version = found.version

    def init(self, place: Place) -> list[Step]:
        """Make a repository of the format that compresses."""
        return [self._step(place, ["init"])]

    def backup(self, place: Place, number: int) -> Step:
        """Add a snapshot."""
        return self._step(place, ["backup", "--json", os.fspath(place.corpus)])

    def restore(self, place: Place, backup: Backup) -> Step:
        """Restore a snapshot."""
        return self._step(place, ["restore", _id(backup), os.fspath(place.back)])

    def restore_one(self, place: Place, backup: Backup, path: str) -> Step:
        """Restore one path of a snapshot."""
        target = place.restored / path
        target.parent.mkdir(parents=True, exist_ok=True)
        source = f"{_id(backup)}:{place.corpus / path}"
        return self._step(place, ["restore", source, os.fspath(target)])

    def expire(self, place: Place, backups: Sequence[Backup]) -> Step:
        """Forget snapshots."""
        return self._step(place, ["forget", *(_id(one) for one in backups)])

    def collect(self, place: Place) -> Step:
        """Prune at once, keeping as much unused as it does by default."""
        return self._step(place, ["prune", "--instant-delete"])

    def find(self, place: Place, name: str) -> list[Step]:
        """Not compared."""
        return []

    def engine_s(self, output: str) -> float | None:
        """There is no catalog: the whole command is the work."""
        return None

    def _step(self, place: Place, words: list[str]) -> Step:
        environment = place.environment(
            RUSTIC_PASSWORD=PASSPHRASE,
            RUSTIC_REPOSITORY=os.fspath(place.pool),
            RUSTIC_CACHE_DIR=os.fspath(place.state / "cache"),
            RUSTIC_NO_PROGRESS="true",
            RUSTIC_LOG_LEVEL="error",
        )
        return Step([self._program, *words], environment)


def _id(backup: Backup) -> str:
    return str(last_json(backup.said, "rustic").get("id"))
