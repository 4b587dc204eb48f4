"""Make the files that are backed up, from a seed.

Must not look at the clock or the machine: the same seed and shape give the same names, bytes,
modes and times anywhere. Invariant: a corpus under its final name is whole; what an interrupted
run left behind is never used.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from random import Random
from typing import TYPE_CHECKING

from benchmarks import content

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

GENERATOR = 1
"""Counts changes of what is generated; part of a corpus' identity."""

_EPOCH_S = 1_600_000_000
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Shape:
    """What to make.

    Attributes:
        name: ``small`` (a source tree) or ``large`` (large mixed files).
        amount: Files of the source tree, or bytes of the large files.
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
        what = {"small": "source tree", "large": "large mixed files"}[self.shape.name]
        return f"{what}: {self.files:,} files, {self.size_bytes / _MIB:,.0f} MiB"


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
        return Corpus(shape, root, known["files"], known["size_bytes"], known["digest"])
    growing = place / f"{name}.unfinished"
    for old in (root, growing):
        if old.exists():
            shutil.rmtree(old)
    growing.mkdir(parents=True)
    writer = _Writer(growing)
    {"small": _source_tree, "large": _large_files}[shape.name](shape, writer)
    writer.finish()
    corpus = Corpus(shape, root, writer.files, writer.size_bytes, writer.digest)
    growing.rename(root)
    known = {**asdict(shape), **writer.summary()}
    description.write_text(json.dumps(known, indent=1) + "\n")
    return corpus


def warm(corpus: Corpus) -> None:
    """Read every byte once, so that no tool pays for the disk that another one spared."""
    for directory, _, names in os.walk(corpus.root):
        for name in names:
            path = os.path.join(directory, name)
            if not os.path.islink(path):
                with open(path, "rb", buffering=0) as stream:
                    while stream.read(_MIB):
                        pass


class _Writer:
    """Writes names in a fixed order and remembers a digest of all of it."""

    def __init__(self, root: Path) -> None:
        self._root = os.fspath(root)
        self._digest = hashlib.blake2b(digest_size=16)
        self._directories: dict[str, int] = {"": _EPOCH_S * 10**9}
        self.files = 0
        self.size_bytes = 0

    def file(self, path: str, pieces: Iterator[bytes], mode: int, mtime_ns: int) -> None:
        own = hashlib.blake2b(digest_size=16)
        size = 0
        full = self._place(path, mtime_ns)
        with open(full, "wb", buffering=0) as stream:
            for piece in pieces:
                stream.write(piece)
                own.update(piece)
                size += len(piece)
        os.chmod(full, mode)
        os.utime(full, ns=(mtime_ns, mtime_ns))
        self._note("file", path, f"{mode:o}", str(mtime_ns), own.hexdigest())
        self.files += 1
        self.size_bytes += size

    def symlink(self, path: str, target: str, mtime_ns: int) -> None:
        full = self._place(path, mtime_ns)
        os.symlink(target, full)
        os.utime(full, ns=(mtime_ns, mtime_ns), follow_symlinks=False)
        self._note("symlink", path, target, str(mtime_ns))

    def link(self, path: str, existing: str, mtime_ns: int) -> None:
        os.link(os.path.join(self._root, existing), self._place(path, mtime_ns))
        self._note("link", path, existing)

    def finish(self) -> None:
        """Set the times of directories, which every name that was made in them changed."""
        for path, mtime_ns in self._directories.items():
            full = os.path.join(self._root, path)
            os.chmod(full, 0o755)
            os.utime(full, ns=(mtime_ns, mtime_ns))
            self._note("directory", path, str(mtime_ns))

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    def summary(self) -> dict[str, int | str]:
        return {"files": self.files, "size_bytes": self.size_bytes, "digest": self.digest}

    def _place(self, path: str, mtime_ns: int) -> str:
        directory = os.path.dirname(path)
        missing = []
        while directory not in self._directories:
            missing.append(directory)
            directory = os.path.dirname(directory)
        for one in reversed(missing):
            os.mkdir(os.path.join(self._root, one))
            self._directories[one] = mtime_ns
        return os.path.join(self._root, path)

    def _note(self, *words: str) -> None:
        self._digest.update("\0".join(words).encode() + b"\n")


def _source_tree(shape: Shape, writer: _Writer) -> None:
    """Many small files: sources, a few objects and pictures, copies, links of both sorts."""
    random = Random(f"{shape.seed} source tree")
    words = content.vocabulary(Random(f"{shape.seed} words"), 6000)
    directories = _directories(random, max(1, shape.amount // 12))
    copied: list[str] = []
    for number in range(shape.amount):
        directory = random.choice(directories)
        mtime_ns = (_EPOCH_S + random.randrange(10**8)) * 10**9 + random.randrange(10**9)
        kind = random.random()
        # A copy has the same seed, so the same bytes, as a file that was made before it.
        seed = f"{shape.seed} file {number}"
        if copied and kind < 0.06:
            seed = random.choice(copied)
        elif number % 7 == 0:
            copied.append(seed)
        own = Random(seed)
        size = min(int(own.lognormvariate(8.2, 1.2)), 2 * _MIB)
        if own.random() < 0.04:
            suffix, pieces = ".o", content.machine_code(own, size * 4)
        elif own.random() < 0.02:
            suffix, pieces = ".png", content.incompressible(own, size * 2)
        else:
            suffix, pieces = ".c", content.source_text(own, words, size)
        path = f"{directory}/{_word(random)}_{number}{suffix}"
        writer.file(path, pieces, 0o755 if kind > 0.97 else 0o644, mtime_ns)
        if kind > 0.995:
            writer.symlink(f"{directory}/link_{number}", os.path.basename(path), mtime_ns)
        elif kind > 0.99:
            writer.link(f"{directory}/same_{number}{suffix}", path, mtime_ns)


def _directories(random: Random, count: int) -> list[str]:
    made = [f"project-{number}" for number in range(max(1, count // 400))]
    while len(made) < count:
        above = random.choice(made)
        if above.count("/") < 8:
            made.append(f"{above}/{_word(random)}-{len(made)}")
    return made


def _word(random: Random) -> str:
    return "".join(random.choices("abcdefghiklmnoprstuw", k=random.randrange(4, 12)))


_LARGE: tuple[tuple[str, int, Callable[[Random, int], Iterator[bytes]]], ...] = (
    # name, hundredths of the whole, content
    ("logs/access.log", 12, content.log_text),
    ("logs/service.log", 10, content.log_text),
    ("binaries/program", 9, content.machine_code),
    ("binaries/library.so", 9, content.machine_code),
    ("media/film.mp4", 17, content.incompressible),
    ("media/photographs.zip", 11, content.incompressible),
    ("database/orders.db", 20, content.database_pages),
)


def _large_files(shape: Shape, writer: _Writer) -> None:
    """Large files of several kinds, and newer versions of two of them."""
    for number, (path, hundredths, make) in enumerate(_LARGE):
        random = Random(f"{shape.seed} {path}")
        size = shape.amount * hundredths // 100
        writer.file(path, make(random, size), 0o644, (_EPOCH_S + number) * 10**9 + 5)
    for path, hundredths, make in (_LARGE[2], _LARGE[4]):
        size = min(shape.amount * 6, shape.amount * hundredths) // 100
        pieces = content.edited(
            make(Random(f"{shape.seed} {path}"), size), Random(f"{shape.seed} edits of {path}")
        )
        writer.file(f"{path}.new", pieces, 0o640, (_EPOCH_S + 99) * 10**9 + 7)
