"""Change 1 % of a corpus, and put it back.

Must not change names. Invariant: what is overwritten is in a journal, on the disk, before the
first byte changes; so a corpus that an interrupted run left changed is put back by the next.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from dataclasses import asdict, dataclass
from random import Random
from typing import TYPE_CHECKING

from benchmarks import content

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHARE = 0.01
"""Of the bytes of each large file, or of all small files."""

_LATER_NS = 3600 * 10**9 + 1
_SPOT_BYTES = 256 << 10
_SPOTS = 16


@dataclass(frozen=True, slots=True)
class _Spot:
    """Bytes of a file that get others.

    Attributes:
        path: Relative to the corpus.
        offset: Where they begin.
        length: How many there are.
        size: Of the whole file, before.
        mtime_ns: Of the file, before.
    """

    path: str
    offset: int
    length: int
    size: int
    mtime_ns: int


def make(root: Path, journal: Path, seed: int, *, within: bool) -> None:
    """Change the corpus.

    Args:
        root: Its directory.
        journal: A directory that is made, for what was there before.
        seed: Where the choice and the new bytes come from.
        within: Rewrite parts of every file in place; else a line is put into some files.
    """
    undo(root, journal)
    random = Random(f"{seed} changes")
    spots = list(_parts(root, random) if within else _some_files(root, random))
    journal.mkdir()
    with open(journal / "bytes", "wb") as kept:
        for spot in spots:
            with open(root / spot.path, "rb") as stream:
                stream.seek(spot.offset)
                kept.write(stream.read(spot.length))
        kept.flush()
        os.fsync(kept.fileno())
    growing = journal / "spots.unfinished"
    growing.write_text(json.dumps([asdict(one) for one in spots]))
    os.sync()
    growing.rename(journal / "spots")
    for number, spot in enumerate(spots):
        path = root / spot.path
        if within:
            _overwrite(path, spot.offset, b"".join(content.machine_code(random, spot.length)))
        else:
            old = path.read_bytes()
            middle = len(old) // 2
            line = b"\n/* change %d: %s */\n" % (number, random.randbytes(12).hex().encode())
            _overwrite(path, 0, old[:middle] + line + old[middle:])
        os.utime(path, ns=(spot.mtime_ns + _LATER_NS, spot.mtime_ns + _LATER_NS))


def undo(root: Path, journal: Path) -> None:
    """Put back what `make` changed; do nothing if nothing is changed."""
    index = journal / "spots"
    if index.exists():
        with open(journal / "bytes", "rb") as kept:
            for known in json.loads(index.read_text()):
                spot = _Spot(**known)
                path = root / spot.path
                _overwrite(path, spot.offset, kept.read(spot.length))
                os.truncate(path, spot.size)
                os.utime(path, ns=(spot.mtime_ns, spot.mtime_ns))
        os.sync()
    shutil.rmtree(journal, ignore_errors=True)


def _parts(root: Path, random: Random) -> Iterator[_Spot]:
    for path, state in _files(root):
        count = min(max(int(state.st_size * SHARE) // _SPOT_BYTES, 1), _SPOTS)
        length = int(state.st_size * SHARE) // count
        room = state.st_size // count
        for number in range(count):
            offset = number * room + random.randrange(max(room - length, 1))
            yield _Spot(path, offset, length, state.st_size, state.st_mtime_ns)


def _some_files(root: Path, random: Random) -> Iterator[_Spot]:
    # Each name of a file with hard links would have to be changed, too.
    found = [(path, state) for path, state in _files(root) if state.st_nlink == 1]
    for path, state in random.sample(found, max(int(len(found) * SHARE), 1)):
        yield _Spot(path, 0, state.st_size, state.st_size, state.st_mtime_ns)


def _files(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """All regular files, in an order that does not depend on the file system."""
    for above, directories, names in os.walk(root):
        directories.sort()
        for name in sorted(names):
            path = os.path.join(above, name)
            state = os.lstat(path)
            if stat.S_ISREG(state.st_mode):
                yield os.path.relpath(path, root), state


def _overwrite(path: Path, offset: int, new: bytes) -> None:
    with open(path, "r+b") as stream:
        stream.seek(offset)
        stream.write(new)
