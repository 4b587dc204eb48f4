"""https://kopia.io"""

# ruff: noqa: ARG002 - a tool is told more than it may need
from __future__ import annotations

import os
from typing import TYPE_CHECKING

from benchmarks.tools.install import GoProgram, go_program
from benchmarks.tools.tool import (
    DIRECTORY_TIMES,
    HARD_LINKS,
    LINK_TIMES,
    PASSPHRASE,
    Backup,
    Place,
    Step,
    ToolError,
    last_json,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PROGRAM = GoProgram("kopia", "github.com/kopia/kopia", ".", "v0.22.3")
_EQUAL = "zstd"


class Kopia:
    """Does not compress, unless sizes are to be equal."""

    name = "kopia"
    settings = "AES-256-GCM, BLAKE3, 4 MiB buzhash splitter, no compression"
    equal_settings = f"compression {_EQUAL}"
    forgets: tuple[str, ...] = (DIRECTORY_TIMES, HARD_LINKS, LINK_TIMES)

    def __init__(self, cache: Path) -> None:
        found = go_program(PROGRAM, cache)
        self._program, self.source, self.remark = found.program, found.source, found.remark
        self.version = found.version

    def init(self, place: Place) -> list[Step]:
        """Make a repository, and keep its snapshots from being let go of by themselves."""
        create = ["repository", "create", "filesystem", "--path", os.fspath(place.pool)]
        create += ["--block-hash", "BLAKE3-256-128"]
        policy = ["policy", "set", "--global", "--keep-latest", "1000"]
        if place.equal:
            policy += ["--compression", _EQUAL]
        return [self._step(place, create), self._step(place, policy)]

    def backup(self, place: Place, number: int) -> Step:
        """Add a snapshot."""
        return self._step(place, ["snapshot", "create", "--json", os.fspath(place.corpus)])

    def restore(self, place: Place, backup: Backup) -> Step:
        """Restore a snapshot: what was in the corpus, into a directory."""
        return self._restore(place, _root(backup), place.restored)

    def restore_one(self, place: Place, backup: Backup, path: str) -> Step:
        """Restore one path below the root of a snapshot."""
        return self._restore(place, f"{_root(backup)}/{path}", place.restored / path)

    def expire(self, place: Place, backups: Sequence[Backup]) -> Step:
        """Delete snapshots."""
        ids = [str(last_json(one.said, "kopia").get("id")) for one in backups]
        return self._step(place, ["snapshot", "delete", "--delete", *ids])

    def collect(self, place: Place) -> Step:
        """Full maintenance, twice, without its safety margins.

        The first run only marks what is unused; the one after it writes packs anew and deletes.
        """
        step = self._step(place, ["maintenance", "run", "--full", "--safety=none"])
        twice = ["sh", "-c", '"$@" && exec "$@"', "sh", *step.command]
        return Step(twice, step.environment)

    def find(self, place: Place, name: str) -> list[Step]:
        """Not compared."""
        return []

    def engine_s(self, output: str) -> float | None:
        """There is no catalog: the whole command is the work."""
        return None

    def _restore(self, place: Place, source: str, target: Path) -> Step:
        target.parent.mkdir(parents=True, exist_ok=True)
        return self._step(place, ["restore", source, os.fspath(target)])

    def _step(self, place: Place, words: list[str]) -> Step:
        environment = place.environment(
            KOPIA_PASSWORD=PASSPHRASE,
            KOPIA_CHECK_FOR_UPDATES="false",
            KOPIA_USE_KEYRING="false",
            KOPIA_CONFIG_PATH=os.fspath(place.state / "kopia.config"),
            KOPIA_CACHE_DIRECTORY=os.fspath(place.state / "cache"),
            KOPIA_LOG_DIR=os.fspath(place.state / "log"),
        )
        quiet = ["--no-progress", "--no-auto-maintenance"]
        quiet += ["--log-level=error", "--file-log-level=error"]
        return Step([self._program, *quiet, *words], environment)


def _root(backup: Backup) -> str:
    entry = last_json(backup.said, "kopia").get("rootEntry")
    if not isinstance(entry, dict):
        raise ToolError("kopia did not name the root of its snapshot")
    return str(entry.get("obj"))
