"""Directories of one backup: private, known by whom they belong to, and gone with it.

Must not hold what has to outlive a backup, but for what a restore goes on with. Invariant: a
directory whose owner lives is locked, so what can be locked is left over and may go.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.base.errors import Busy

if TYPE_CHECKING:
    from collections.abc import Iterator

_OWNER = "owner"


@contextlib.contextmanager
def private_directory(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """Have a directory of this user alone, for the time of the block.

    Args:
        prefix: How its name begins.
        parent: Where it is made; None for the system's place for what is temporary.
    """
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        owner = os.open(directory / _OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(owner, fcntl.LOCK_EX)
            yield directory
        finally:
            os.close(owner)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Have a directory of a restore to oneself for the time of the block; it may outlive that.

    Raises:
        Busy: Another restore has it.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise Busy(f"another restore writes to '{directory}'", "wait for its end") from error
    finally:
        os.close(fd)


def lives(directory: Path) -> bool:
    """Whether the process whose directory that is still runs on this machine."""
    try:
        owner = os.open(directory / _OWNER, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(owner)
    return False


def clear(prefix: str, parent: Path | None = None) -> list[Path]:
    """Take away directories that dead processes of this user left; which those were."""
    found = []
    for directory in Path(parent or tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            # The directory itself may be given to the user that a hypervisor runs as.
            mine = (directory / _OWNER).lstat().st_uid == os.geteuid()
            if mine and not directory.is_symlink() and not lives(directory):
                shutil.rmtree(directory, ignore_errors=True)
                found.append(directory)
    return found
