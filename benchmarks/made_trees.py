"""Trees of files made from a seed, and a pool of them, in place of the engine.

Batches are ready before they are asked for, so that what is fed from them is measured alone.
"""

from __future__ import annotations

import bisect
import hashlib
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holdfast.base.errors import ImageMissing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from holdfast.control.catalog import ChangeRow, Manifest

SEED = 20240229
FILES_IN_A_DIRECTORY = 12
BATCH_ROWS = 50_000
ENDINGS = (".py", ".txt", ".JPG", ".c", ".h", ".html", ".o", ".json", ".pdf", "")
RARE = b"Zq7-xj93.bak"
"""A name that is once in each tree."""


@dataclass(frozen=True, slots=True)
class Batch:
    """As the engine's ``ChangeBatch``."""

    dirs: list[bytes]
    rows: list[ChangeRow]


@dataclass(frozen=True, slots=True)
class Image:
    """As the engine's ``Image``; `feed` is the place of its changes among the pool's."""

    id: str
    number: int
    source: str
    feed: int
    started_ns: int
    host: str = "bench"
    finished_ns: int = 0
    parent: str | None = None
    status: str = "completed"
    findings_total: int = 0
    software: str = "benchmark"
    labels: dict[str, str] = field(default_factory=dict)
    client_key: str | None = None
    has_sealed_names: bool = False

    @property
    def stats(self) -> dict[str, int]:
        # enough for a first feed to be given a processor of its own
        return {"files": 10**6}


class Tree:
    """A tree of files, and changes to it, in batches as the engine hands them out."""

    def __init__(self, files: int) -> None:
        self._rng = random.Random(SEED)
        self._words = ["".join(self._letters(self._rng.randint(3, 9))) for _ in range(3000)]
        self.whole = list(self._full(files))
        self.entries = sum(len(batch.rows) for batch in self.whole)
        self._begins = [0]
        for batch in self.whole:
            self._begins.append(self._begins[-1] + len(batch.rows))

    def changed(self, count: int, neighbours: int = 1) -> list[Batch]:
        """Changes of so many files, in the order of the tree, some of them side by side."""
        count = min(count, self.entries // 2)
        # some of what is met are directories, and stay
        possible = range(0, self.entries - neighbours, neighbours)
        groups = min(len(possible), count * 11 // (10 * neighbours) + 1)
        places = sorted(self._rng.sample(possible, groups))
        dirs: list[bytes] = []
        rows: list[ChangeRow] = []
        for begin in places:
            at = bisect.bisect_right(self._begins, begin) - 1
            batch, offset = self.whole[at], begin - self._begins[at]
            for slot, name, _, kind, *_ in batch.rows[offset : offset + neighbours]:
                if kind == 0 and len(rows) < count:
                    if not dirs or dirs[-1] != batch.dirs[slot]:
                        dirs.append(batch.dirs[slot])
                    rows.append(self._row(len(dirs) - 1, name, 3))
        return [Batch(dirs, rows)]

    def _letters(self, count: int) -> list[str]:
        return self._rng.choices("abcdefghijklmnopqrstuvwxyz", k=count)

    def _name(self) -> bytes:
        rng, words = self._rng, self._words
        ending = rng.choice(ENDINGS)
        if rng.random() < 0.4:
            return f"{rng.choice(words)}{ending}".encode()
        return (
            f"{rng.choice(words)}_{rng.choice(words).title()}{rng.randrange(9999)}{ending}".encode()
        )

    def _row(self, slot: int, name: bytes, change: int) -> ChangeRow:
        rng = self._rng
        mtime_ns = 1_700_000_000_000_000_000 + rng.randrange(10**15)
        return (slot, name, change, 0, rng.randrange(10**6), mtime_ns, 0o644, 1000, 1000,
                rng.randrange(10**8))  # fmt: skip

    def _full(self, files: int) -> Iterator[Batch]:
        left, number = files, 0
        dirs: list[bytes] = [b"/"]
        rows: list[ChangeRow] = [self._row(0, RARE, 1)]
        pending = [b"/"]
        while left > 0:
            parent = pending[number // 20]
            name = f"{self._words[number % len(self._words)]}{number}".encode()
            path = (b"" if parent == b"/" else parent) + b"/" + name
            pending.append(path)
            number += 1
            slot = len(dirs)
            dirs += [parent, path]
            rows.append((slot, name, 1, 1, 0, 1_700_000_000_000_000_000, 0o755, 1000, 1000, number))
            names = sorted({self._name() for _ in range(min(FILES_IN_A_DIRECTORY, left))})
            rows += [self._row(slot + 1, name, 1) for name in names]
            left -= len(names)
            if len(rows) >= BATCH_ROWS:
                yield Batch(dirs, rows)
                dirs, rows = [b"/"], []
        yield Batch(dirs, rows)


class MadePool:
    """Images of sources that all have the same tree. Its feeds: the tree, then changes to it."""

    id = bytes(16)

    def __init__(self, feeds: list[list[Batch]], images: Sequence[Image] = ()) -> None:
        self.feeds = feeds
        self._images = {one.id: one for one in images}

    def images(self) -> list[Manifest]:
        return list(self._images.values())

    def made(self) -> list[Image]:
        return list(self._images.values())

    def image(self, id: str, /) -> Manifest:  # noqa: A002
        if id not in self._images:
            raise ImageMissing(f"no image {id}")
        return self._images[id]

    def changes(self, old: str | None, new: str | None, /) -> Iterator[Batch]:
        assert new is not None
        feed = self._images[new].feed
        assert (old is None) == (feed == 0)
        return iter(self.feeds[feed])

    def add(self, source: str, feed: int) -> Image:
        number = len(self._images) + 1
        identity = hashlib.blake2b(f"{source} {number}".encode(), digest_size=16).hexdigest()
        made = Image(identity, number, source, feed, started_ns=number * 10**9)
        self._images[identity] = made
        return made

    def expire(self, image: str) -> None:
        del self._images[image]

    def only(self, source: str) -> MadePool:
        """A pool of one source's images."""
        return MadePool(self.feeds, [one for one in self.made() if one.source == source])
