"""A directory on a disk of memory, for tests that would wait for fsync thousands of times."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_MEMORY = Path("/dev/shm")


def make() -> Path:
    """A new directory, in memory where the machine has that; the caller removes it."""
    usable = _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK)
    return Path(tempfile.mkdtemp(prefix="holdfast-test-", dir=_MEMORY if usable else None))


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """A new directory that is gone afterwards."""
    made = make()
    try:
        yield made
    finally:
        shutil.rmtree(made)
