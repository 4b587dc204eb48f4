"""Large files of several kinds, and newer versions of two of them."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from benchmarks import content
from benchmarks.corpora.writer import EPOCH_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.corpora.writer import Writer

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


def make(seed: int, size_bytes: int, writer: Writer) -> None:
    """Write about this many bytes."""
    for number, (path, hundredths, contents) in enumerate(_LARGE):
        random = Random(f"{seed} {path}")
        size = size_bytes * hundredths // 100
        writer.file(path, contents(random, size), 0o644, (EPOCH_S + number) * 10**9 + 5)
    for path, hundredths, contents in (_LARGE[2], _LARGE[4]):
        size = min(size_bytes * 6, size_bytes * hundredths) // 100
        pieces = content.edited(
            contents(Random(f"{seed} {path}"), size), Random(f"{seed} edits of {path}")
        )
        writer.file(f"{path}.new", pieces, 0o640, (EPOCH_S + 99) * 10**9 + 7)
