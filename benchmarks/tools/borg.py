"""https://www.borgbackup.org"""

# ruff: noqa: ARG002 - a tool is told more than it may need
from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.tools.install import python_program
from benchmarks.tools.tool import PASSPHRASE, Backup, Place, Step

if TYPE_CHECKING:
    from collections.abc import Sequence

_HINT = (
    "building it needs Debian's libacl1-dev libxxhash-dev liblz4-dev libzstd-dev libssl-dev "
    "pkg-config, or take the package 'borgbackup'"
)


class Borg:
    """Compresses with lz4, unless sizes are to be equal."""

    name = "borg"
    equal_settings = "zstd level 3"
    forgets: tuple[str, ...] = ()

    def __init__(self, cache: Path) -> None:
        found = python_program("borg", "borgbackup>=1.4,<2", cache, _HINT)
        self._program, self.source, self.remark = found.program, found.source, found.remark
        self.version = found.version
        # As borg's own manual advises: SHA-256 where the processor helps with it, else BLAKE2.
        self._mode = "repokey" if _has_sha_instructions() else "repokey-blake2"
        self.settings = f"{self._mode}, lz4"

    def init(self, place: Place) -> list[Step]:
        """Make a repository."""
        words = ["init", "--encryption", self._mode, os.fspath(place.pool)]
        return [self._step(place, words)]

    def backup(self, place: Place, number: int) -> Step:
        """Add an archive."""
        compression = ["--compression", "zstd,3"] if place.equal else []
        archive = f"{place.pool}::{number}"
        return self._step(place, ["create", *compression, archive, os.fspath(place.corpus)])

    def restore(self, place: Place, backup: Backup) -> Step:
        """Extract an archive: always into the current directory."""
        return self._extract(place, backup)

    def restore_one(self, place: Place, backup: Backup, path: str) -> Step:
        """Extract one path of an archive."""
        return self._extract(place, backup, os.fspath(place.corpus / path).lstrip("/"))

    def expire(self, place: Place, backups: Sequence[Backup]) -> Step:
        """Delete archives."""
        names = [str(one.number) for one in backups]
        return self._step(place, ["delete", os.fspath(place.pool), *names])

    def collect(self, place: Place) -> Step:
        """Compact, with the threshold it has by default."""
        return self._step(place, ["compact", os.fspath(place.pool)])

    def find(self, place: Place, name: str) -> list[Step]:
        """Not compared."""
        return []

    def engine_s(self, output: str) -> float | None:
        """There is no catalog: the whole command is the work."""
        return None

    def _extract(self, place: Place, backup: Backup, *paths: str) -> Step:
        step = self._step(place, ["extract", f"{place.pool}::{backup.number}", *paths])
        return Step(step.command, step.environment, cwd=place.back)

    def _step(self, place: Place, words: list[str]) -> Step:
        environment = place.environment(
            BORG_PASSPHRASE=PASSPHRASE, BORG_BASE_DIR=os.fspath(place.state)
        )
        return Step([self._program, *words], environment)


def _has_sha_instructions() -> bool:
    try:
        return " sha_ni " in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
