"""Files that are whole or not there.

Must not know what is in them.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def writing_whole(path: Path) -> Iterator[IO[bytes]]:
    """Write a file for its owner alone, in place of one that may be there.

    It is there, and durable, when the block has ended without an exception.

    Raises:
        OSError: It can't be written; an older one is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file as `writing_whole` does, of content that is there already.

    Raises:
        OSError: It can't be written; an older one is as it was.
    """
    with writing_whole(path) as file:
        file.write(content)


def remove_unfinished(directory: Path) -> None:
    """Remove what `writing_whole` had not finished in a directory when its process was killed.

    What a process that lives may still write is left alone; so is what can't be removed.
    """
    for path in directory.glob(".*.*"):
        writer = path.name.rpartition(".")[2]
        if writer.isdecimal() and not Path("/proc", writer).exists():
            with contextlib.suppress(OSError):
                path.unlink()


def mark_as_cache(directory: Path) -> None:
    """Make a directory that backups leave out, by the Cache Directory Tagging Specification.

    Raises:
        OSError: It can't be made.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    tag = directory / "CACHEDIR.TAG"
    if not tag.exists():
        tag.write_text(
            "Signature: 8a477f597d28d172789f06886806bc55\n"
            "# Copies of what is in the pool. Holdfast makes them again when they are gone.\n"
        )
