"""What no backup program can beat by much: plain programs doing part of the work.

Must not be compared with peers. Invariant: each reads the same files as the tools do, at the same
point of a round.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import measure
from benchmarks.report import LIMIT, Measured
from benchmarks.tools import ToolError
from benchmarks.tools.install import tried

if TYPE_CHECKING:
    from benchmarks.session import Session

ZSTD, WALK, DD, COPY = "zstd -1 -T0", "lstat walk", "dd", "cp -a"
NAMES = (ZSTD, WALK, DD, COPY)

_WALK_SOURCE = Path(__file__).with_name("walk_lstat.rs")
_DD = (
    'out=$1; shift; for one; do dd if="$one" of="$out" bs=4M oflag=append conv=notrunc status=none '
    "|| exit; done"
)


class Limits:
    """The programs, and what is missing of them."""

    def __init__(self, cache: Path) -> None:
        self.missing: dict[str, str] = {}
        self._walk = cache / "bin" / "walk_lstat"
        for program, name in (("zstd", ZSTD), ("dd", DD), ("cp", COPY)):
            if shutil.which(program) is None:
                self.missing[name] = f"there is no program '{program}'"
        if not self._walk.exists():
            self._walk.parent.mkdir(parents=True, exist_ok=True)
            command = ["rustc", "--edition", "2021", "-O", "-o", os.fspath(self._walk)]
            why = tried([*command, os.fspath(_WALK_SOURCE)], dict(os.environ))
            if why:
                self.missing[WALK] = f"can't be built: {why}"

    def streams(self, session: Session, number: int) -> None:
        """Read all bytes: to compress them, and, of few large files, to write them."""
        root = os.fspath(session.corpus.root)
        if session.corpus.few:
            found = session.corpus.root.rglob("*")
            files = sorted(os.fspath(one) for one in found if one.is_file())
            zstd = ["zstd", "-1", "-T0", "-q", "-f", "-o", "{}", *files]
            self._take(session, number, ZSTD, zstd)
            self._take(session, number, DD, ["sh", "-c", _DD, "sh", "{}", *files])
        self._take(session, number, COPY, ["cp", "-a", root, "{}"])

    def walk(self, session: Session, number: int) -> None:
        """Look at every name."""
        self._take(session, number, WALK, [os.fspath(self._walk), os.fspath(session.corpus.root)])

    def _take(self, session: Session, number: int, name: str, command: list[str]) -> None:
        """Measure one; ``{}`` in the command is what it writes."""
        if name in self.missing:
            return
        place = session.directory(f"{number + 1}-limit-{NAMES.index(name)}")
        target = place / "out"
        words = [os.fspath(target) if one == "{}" else one for one in command]
        try:
            reads = (session.corpus.root,)
            sample, _ = measure.run(words, dict(os.environ), place, reads=reads)
        except (ToolError, OSError) as failure:
            session.fail(f"{name}: {failure}")
            return
        stored = 0
        if target.exists() and name == ZSTD:
            stored = target.stat().st_size
        session.note(number, LIMIT, name, Measured(**asdict(sample), pool_bytes=stored))
        # A deleted tree of many files would make the restores after it slow: see session.
        if session.corpus.few or not target.is_dir():
            shutil.rmtree(place)
