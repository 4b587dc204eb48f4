"""Eight disk images: one operating system, work data of their own, days of change.

Must not leave holes: free space is zeros that are written. Invariants: everything lies on blocks
of 4 KiB; the same seed and generation give the same bytes anywhere.

An image is three regions: the operating system, work data, free space. The files of the operating
system are the same in all images but for a few in a hundred, and begin at another block in each.
A day rewrites runs of blocks in the work data, most of them in a busy part; puts new data into
free space; moves some. On one day all images get the same update of the operating system.
"""

from __future__ import annotations

import os
from itertools import chain
from random import Random
from typing import TYPE_CHECKING

from benchmarks import content
from benchmarks.corpora.writer import EPOCH_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.corpora.writer import Writer

IMAGES = 8
BLOCK_BYTES = 4096

_SYSTEM, _WORK = 0.42, 0.26
"""Of the size; what is left is free."""
_OWN_SYSTEM_FILES = 0.03
_DAILY = 0.015
"""Of all blocks: rewritten, added or moved in a generation."""
_UPDATE_GENERATION = 3
_UPDATED = 0.02
_PIECE_BYTES = 1 << 20


def make(seed: int, size_bytes: int, writer: Writer) -> None:
    """Write generation 0: eight images of this size."""
    for number in range(IMAGES):
        pieces = _image(seed, number, _blocks(size_bytes))
        writer.file(name(number), pieces, 0o640, EPOCH_S * 10**9 + number)


def name(number: int) -> str:
    """Of an image."""
    return f"machine-{number + 1}.img"


def advance(root: Path, seed: int, generation: int) -> None:
    """Make one generation from the one before it, in place.

    Args:
        root: Where the images are.
        seed: As for `make`.
        generation: From 1.
    """
    for number in range(IMAGES):
        path = root / name(number)
        descriptor = os.open(path, os.O_RDWR)
        try:
            size = os.fstat(descriptor).st_size
            _change(descriptor, _blocks(size), seed, number, generation)
        finally:
            os.close(descriptor)
        mtime_ns = (EPOCH_S + generation * 86400) * 10**9 + number
        os.utime(path, ns=(mtime_ns, mtime_ns))


def _blocks(size_bytes: int) -> int:
    return max(size_bytes // BLOCK_BYTES, 256)


def _image(seed: int, number: int, blocks: int) -> Iterator[bytes]:
    system, work = int(blocks * _SYSTEM), int(blocks * _WORK)
    own = Random(f"{seed} image {number}")
    # Tables that are each machine's own, so that what follows begins at another block.
    head = min(1 + number * 7 + own.randrange(5), system // 4)
    files = chain(_file(own, own.random(), head), _system_files(seed, number, system - head))
    yield from files
    yield from _work_files(own, work)
    for left in range(blocks - system - work, 0, -256):
        yield bytes(min(left, 256) * BLOCK_BYTES)


def _system_files(seed: int, number: int, blocks: int) -> Iterator[bytes]:
    """The same files in each image, cut off where its region ends."""
    shared = Random(f"{seed} system")
    own = Random(f"{seed} system of {number}")
    while blocks > 0:
        length = min(int(shared.lognormvariate(2.5, 1.5)) + 1, 4096, blocks)
        kind, file_seed = shared.random(), shared.getrandbits(64)
        random = own if own.random() < _OWN_SYSTEM_FILES else Random(file_seed)
        yield from _file(random, kind, length)
        blocks -= length


def _work_files(own: Random, blocks: int) -> Iterator[bytes]:
    while blocks > 0:
        length = min(int(own.lognormvariate(4.5, 1.5)) + 1, 16384, blocks)
        yield from _file(own, own.random(), length)
        blocks -= length


def _file(random: Random, kind: float, blocks: int) -> Iterator[bytes]:
    """A file that ends within its last block; what is left of that is zeros."""
    padding = random.randrange(BLOCK_BYTES)
    size = blocks * BLOCK_BYTES - padding
    if kind < 0.40:
        yield from content.machine_code(random, size)
    elif kind < 0.60:
        yield from content.log_text(random, size)
    elif kind < 0.75:
        yield from content.database_pages(random, size)
    else:
        yield from content.incompressible(random, size)
    yield bytes(padding)


def _change(descriptor: int, blocks: int, seed: int, number: int, generation: int) -> None:
    system, work = int(blocks * _SYSTEM), int(blocks * _WORK)
    random = Random(f"{seed} image {number} generation {generation}")
    daily = max(int(blocks * _DAILY), 8)
    _rewrite(descriptor, random, system, work, daily * 5 // 10)
    # Each generation has a part of the free space to itself: new files, then moved ones.
    free = system + work + (generation - 1) * daily
    added, moved = daily * 4 // 10, daily // 10
    if free + added + moved < blocks:
        _write(descriptor, free, b"".join(_file(random, random.random(), added)))
        start = system + random.randrange(max(work - moved, 1))
        old = os.pread(descriptor, moved * BLOCK_BYTES, start * BLOCK_BYTES)
        _write(descriptor, free + added, old)
    if generation == _UPDATE_GENERATION:
        # At the end of the region, where no image has anything of its own but by chance.
        update = Random(f"{seed} update")
        length = int(system * _UPDATED)
        _write(descriptor, system - length, b"".join(_file(update, 0.1, length)))


def _rewrite(descriptor: int, random: Random, start: int, blocks: int, wanted: int) -> None:
    """Runs of 1 to 64 blocks; four of five in the busy fifth of the region."""
    busy = max(blocks // 5, 64)
    while wanted > 0:
        run = min(random.choice((1, 2, 4, 8, 16, 32, 64)), wanted)
        room = busy if random.random() < 0.8 else blocks
        at = start + random.randrange(max(min(room, blocks) - run, 1))
        kind = random.random()
        _write(descriptor, at, b"".join(_file(random, kind, run)))
        wanted -= run


def _write(descriptor: int, block: int, new: bytes) -> None:
    os.pwrite(descriptor, new, block * BLOCK_BYTES)
