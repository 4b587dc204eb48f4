"""A source tree: many small files, a few objects and pictures, copies, links of both sorts."""

from __future__ import annotations

import os
from random import Random
from typing import TYPE_CHECKING

from benchmarks import content
from benchmarks.corpora.writer import EPOCH_S

if TYPE_CHECKING:
    from benchmarks.corpora.writer import Writer

_MIB = 1 << 20


def make(seed: int, files: int, writer: Writer) -> None:
    """Write this many files."""
    random = Random(f"{seed} source tree")
    words = content.vocabulary(Random(f"{seed} words"), 6000)
    directories = _directories(random, max(1, files // 12))
    copied: list[str] = []
    for number in range(files):
        directory = random.choice(directories)
        mtime_ns = (EPOCH_S + random.randrange(10**8)) * 10**9 + random.randrange(10**9)
        kind = random.random()
        # A copy has the same seed, so the same bytes, as a file that was made before it.
        own_seed = f"{seed} file {number}"
        if copied and kind < 0.06:
            own_seed = random.choice(copied)
        elif number % 7 == 0:
            copied.append(own_seed)
        own = Random(own_seed)
        size = min(int(own.lognormvariate(8.2, 1.2)), 2 * _MIB)
        if own.random() < 0.04:
            suffix, pieces = ".o", content.machine_code(own, size * 4)
        elif own.random() < 0.02:
            suffix, pieces = ".png", content.incompressible(own, size * 2)
        else:
            suffix, pieces = ".c", content.source_text(own, words, size)
        path = f"{directory}/{word(random)}_{number}{suffix}"
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
            made.append(f"{above}/{word(random)}-{len(made)}")
    return made


def word(random: Random) -> str:
    """Part of a name."""
    return "".join(random.choices("abcdefghiklmnoprstuw", k=random.randrange(4, 12)))
