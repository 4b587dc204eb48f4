"""Tiny files: lines of settings, cache entries, mails; a few hundred bytes each."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from benchmarks import content
from benchmarks.corpora.writer import EPOCH_S

if TYPE_CHECKING:
    from benchmarks.corpora.writer import Writer

_IN_A_DIRECTORY = 100
_LONGEST_BYTES = 1500


def make(seed: int, files: int, writer: Writer) -> None:
    """Write this many files, of some hundred bytes, no two alike."""
    random = Random(f"{seed} tiny files")
    words = content.vocabulary(Random(f"{seed} words"), 6000)
    # A cut out of one long text costs little, and a million files are made in minutes. It is so
    # long that files which lie near each other hardly ever share a cut.
    length = min(max(files * 64, 1 << 20), 64 << 20)
    text = b"".join(content.source_text(random, words, length))
    for number in range(files):
        directory = number // _IN_A_DIRECTORY
        size = min(int(random.lognormvariate(5.3, 0.8)) + 20, _LONGEST_BYTES)
        at = random.randrange(length - _LONGEST_BYTES)
        noise = random.randbytes(size // 8)
        head = b"%d %s\n" % (number, noise.hex().encode())
        path = f"{directory // 100:03}/{directory % 100:02}/{number % _IN_A_DIRECTORY:02}.entry"
        mtime_ns = (EPOCH_S + number) * 10**9 + random.randrange(10**9)
        writer.file(path, (head + text[at : at + size],), 0o644, mtime_ns)
