"""Make the files that are backed up, from a seed.

Must not look at the clock or the machine: the same seed and shape give the same names, bytes,
modes and times anywhere. Invariant: a corpus under its final name is whole; what an interrupted
run left behind is never used, and what it changed is put back.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from benchmarks.corpora import changes, disk_images, large_files, source_tree, tiny_files
from benchmarks.corpora.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GENERATOR = 2
"""Counts changes of what is generated; part of a corpus' identity."""

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Kind:
    """A sort of corpus.

    Attributes:
        title: What it is, for a person.
        make: Writes it, from a seed and an amount.
        few: It consists of few large files.
    """

    title: str
    make: Callable[[int, int, Writer], None]
    few: bool


KINDS = {
    "small": Kind("source tree", source_tree.make, few=False),
    "tiny": Kind("tiny files", tiny_files.make, few=False),
    "large": Kind("large mixed files", large_files.make, few=True),
    "images": Kind("eight disk images", disk_images.make, few=True),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """What to make.

    Attributes:
        name: A key of `KINDS`.
        amount: Files of a tree, bytes of the large files, bytes of each disk image.
        seed: Where all randomness comes from.
    """

    name: str
    amount: int
    seed: int


@dataclass(frozen=True, slots=True)
class Corpus:
    """A corpus on disk.

    Attributes:
        shape: What was asked for.
        root: Its directory.
        files: Regular files in it, a hard link counted once.
        size_bytes: Their bytes.
        digest: Of all names, types, modes, times and contents.
    """

    shape: Shape
    root: Path
    files: int
    size_bytes: int
    digest: str

    @property
    def title(self) -> str:
        """What it is, for a person."""
        what = KINDS[self.shape.name].title
        return f"{what}: {self.files:,} files, {self.size_bytes / _MIB:,.0f} MiB"

    @property
    def few(self) -> bool:
        """It consists of few large files, so that changing and deleting is cheap."""
        return KINDS[self.shape.name].few

    def change(self, number: int = 0) -> None:
        """Change 1 % of it, until `restore`: of the bytes of few files, or of many files.

        Args:
            number: Another one is another change, which takes the place of the one before.
        """
        changes.make(self.root, self._journal, self.shape.seed + number, within=self.few)

    def restore(self) -> None:
        """Put back what `change` changed; do nothing if nothing is."""
        changes.undo(self.root, self._journal)

    @property
    def _journal(self) -> Path:
        return self.root.with_name(f"{self.root.name}.journal")


def provide(shape: Shape, place: Path) -> Corpus:
    """Make a corpus below a directory, or reuse the one that an earlier run made there.

    Args:
        shape: What to make.
        place: The directory of all corpora; made if it is missing.
    """
    name = f"{shape.name}-{shape.amount}-{shape.seed}-g{GENERATOR}"
    root, description = place / name, place / f"{name}.json"
    if root.is_dir() and description.is_file():
        known = json.loads(description.read_text())
        corpus = Corpus(shape, root, known["files"], known["size_bytes"], known["digest"])
        corpus.restore()
        return corpus
    growing = place / f"{name}.unfinished"
    for old in (root, growing):
        if old.exists():
            shutil.rmtree(old)
    growing.mkdir(parents=True)
    writer = Writer(growing)
    KINDS[shape.name].make(shape.seed, shape.amount, writer)
    writer.finish()
    corpus = Corpus(shape, root, writer.files, writer.size_bytes, writer.digest)
    growing.rename(root)
    known = {**asdict(shape), **writer.summary()}
    description.write_text(json.dumps(known, indent=1) + "\n")
    return corpus
