"""What a tool of the comparison is, and where it works.

Must not start anything. Invariant: a step carries all of its environment, so that nothing of the
user's own settings is seen.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DIRECTORY_TIMES = "times of directories"
HARD_LINKS = "hard links"
LINK_TIMES = "times of symbolic links, to the nanosecond"
TOP_TIME = "time of the topmost directory"

PASSPHRASE = "correct horse battery staple"


class ToolError(Exception):
    """A command of a tool failed; the message is for a person."""


class ToolMissingError(Exception):
    """A tool can't be had here; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Step:
    """A command as a person would type it.

    Attributes:
        command: The words.
        environment: All of its environment.
        cwd: Where it runs, if that matters.
    """

    command: list[str]
    environment: dict[str, str]
    cwd: Path | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """The directories of one tool in one round.

    Attributes:
        root: Everything is below it.
        corpus: What is backed up: absolute.
        equal: Compress so that all tools store about as much, not as the tool does by default.
        into: The name of the directory that is restored into.
    """

    root: Path
    corpus: Path
    equal: bool = False
    into: str = "back"

    @property
    def pool(self) -> Path:
        """What a tool stores, and would keep on other media."""
        return self.root / "pool"

    @property
    def state(self) -> Path:
        """Caches, keys, catalogs: what stays on the machine."""
        return self.root / "state"

    @property
    def back(self) -> Path:
        """Where restores go."""
        return self.root / self.into

    @property
    def restored(self) -> Path:
        """Where the corpus is after a restore: whole paths, as most tools restore them."""
        return self.back / self.corpus.relative_to("/")

    def environment(self, **more: str) -> dict[str, str]:
        """An environment in which nothing of the user's own settings is seen."""
        return {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": os.fspath(self.state),
            "TMPDIR": os.fspath(self.state),
            "LANG": "C.UTF-8",
            **more,
        }


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was made.

    Attributes:
        number: Of the backups of its place, from 1.
        said: What the command wrote to its standard output.
    """

    number: int
    said: str


class Tool(Protocol):
    """One program of the comparison."""

    name: str
    version: str
    settings: str
    equal_settings: str
    """What it is told where equal sizes are asked for."""
    source: str
    """Where the program came from."""
    remark: str
    """What a person should know about that; for the terminal, not for results."""
    forgets: tuple[str, ...]
    """What a restore of it is known not to bring back; such differences are no failure."""

    def init(self, place: Place) -> list[Step]:
        """Make an empty repository or pool; not timed."""
        ...

    def backup(self, place: Place, number: int) -> Step:
        """Back up the corpus, for the ``number``-th time."""
        ...

    def restore(self, place: Place, backup: Backup) -> Step:
        """Restore everything of a backup."""
        ...

    def restore_one(self, place: Place, backup: Backup, path: str) -> Step:
        """Restore one file to where a whole restore would put it.

        Args:
            place: Where.
            backup: Of which backup.
            path: Relative to the corpus.
        """
        ...

    def expire(self, place: Place, backups: Sequence[Backup]) -> Step:
        """Let go of backups."""
        ...

    def collect(self, place: Place) -> Step:
        """Give back the space of backups that were let go of."""
        ...

    def find(self, place: Place, name: str) -> list[Step]:
        """Look for a name in all backups: the last step; what has to be done once goes before it.

        Empty for a tool that has no such command.
        """
        ...

    def engine_s(self, output: str) -> float | None:
        """What the tool says that the work itself took, if it does."""
        ...


def last_json(text: str, tool: str) -> dict[str, object]:
    """The last JSON object of an output of JSON lines, or of one JSON document.

    Raises:
        ToolError: There is none.
    """
    for candidate in (text, *reversed(text.splitlines())):
        try:
            known = json.loads(candidate)
        except ValueError:
            continue
        if isinstance(known, dict):
            return known
    raise ToolError(f"{tool} did not say what it had made: {text[-200:]!r}")
