"""This project, through its command line."""

# ruff: noqa: ARG002 - a tool is told more than it may need
from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.tools.install import said
from benchmarks.tools.tool import PASSPHRASE, Backup, Place, Step, ToolMissingError, last_json

if TYPE_CHECKING:
    from collections.abc import Sequence


class Holdfast:
    """What is measured against the others."""

    name = "holdfast"
    settings = "passphrase, zstd level 2"
    # Its blocks hold many chunks, so that a lower level already stores as much as others' level 3.
    equal_settings = "zstd level 1"
    forgets: tuple[str, ...] = ()
    source = "this checkout"
    remark = ""

    def __init__(self) -> None:
        self._program = os.fspath(Path(sys.executable).with_name("holdfast"))
        if not os.access(self._program, os.X_OK):
            raise ToolMissingError("holdfast is not built in this environment: run 'make engine'")
        self.version = said([self._program, "--version"]).split()[-1]

    def init(self, place: Place) -> list[Step]:
        """Make a site whose catalog and caches are in the state directory."""
        secret = place.state / "passphrase"
        secret.write_text(PASSPHRASE + "\n")
        secret.chmod(0o600)
        words = ["init", "--pool", os.fspath(place.pool), "--passphrase-file", os.fspath(secret)]
        return [self._step(place, words)]

    def backup(self, place: Place, number: int) -> Step:
        """Until the catalog knows every file, as the command does it."""
        compression = ["--compression", "1"] if place.equal else []
        return self._step(place, ["backup", "--json", *compression, os.fspath(place.corpus)])

    def restore(self, place: Place, backup: Backup) -> Step:
        """Restore an image."""
        return self._restore(place, backup)

    def restore_one(self, place: Place, backup: Backup, path: str) -> Step:
        """Restore one path of an image."""
        return self._restore(place, backup, os.fspath(place.corpus / path))

    def expire(self, place: Place, backups: Sequence[Backup]) -> Step:
        """Expire images."""
        return self._step(place, ["expire", *(_id(one) for one in backups)])

    def collect(self, place: Place) -> Step:
        """Collect garbage."""
        return self._step(place, ["gc", "--json"])

    def find(self, place: Place, name: str) -> list[Step]:
        """In all images, once the catalog has taken the names of their files."""
        return [self._step(place, ["catalog", "update"]), self._step(place, ["find", name])]

    def engine_s(self, output: str) -> float | None:
        """Without starting Python, unlocking the pool and feeding the catalog."""
        try:
            return float(json.loads(output)["elapsed_s"])
        except (ValueError, KeyError, TypeError):
            return None

    def _restore(self, place: Place, backup: Backup, *paths: str) -> Step:
        words = ["restore", "--json", _id(backup), *paths, "--to", os.fspath(place.back)]
        return self._step(place, words)

    def _step(self, place: Place, words: list[str]) -> Step:
        home = os.fspath(place.state / "site")
        return Step([self._program, *words], place.environment(HOLDFAST_HOME=home))


def _id(backup: Backup) -> str:
    return str(last_json(backup.said, "holdfast").get("id"))
