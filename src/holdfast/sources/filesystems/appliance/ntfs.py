"""An NTFS that was in use, as it is when its log was replayed; in the appliance's guest alone.

Must not be used anywhere else: the disk that it is given is an overlay that is thrown away.
Invariant: what can't be replayed whole is an error, never half of it. Files are then read as those
of an NTFS at rest are, so streams, owners and attributes are told too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from holdfast.sources.filesystems.appliance.guest import DISK, RECOVER
from holdfast.sources.filesystems.tsk import TskFiles

_SAID = "/tmp/said"  # noqa: S108 - there is nobody else in the guest
_WORDS_AT_MOST = 64 << 10


@dataclass(frozen=True, slots=True)
class _Attached:
    fd: int
    size: int

    def read_at(self, offset: int, length: int, /) -> bytes:
        return os.pread(self.fd, length, offset)


def open_replayed(size: int) -> TskFiles:
    """Replay the log of the attached disk, and read its files.

    Raises:
        OSError: The log can't be replayed.
    """
    _replay()
    return TskFiles(_Attached(os.open(DISK, os.O_RDONLY), size), "ntfs")


def _replay() -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    number = os.posix_spawn(
        RECOVER,
        # what it calls a fast restart is each log of Windows 8 and later that was in use; what
        # was in the memory of that Windows alone is in no image
        [RECOVER, "--sync", "--kill-fast-restart", DISK],
        {"LC_ALL": "C.UTF-8"},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 1, _SAID, flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
    )
    status = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    with open(_SAID, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _WORDS_AT_MOST))
        said = file.read().decode("utf-8", "replace").splitlines()
    os.unlink(_SAID)
    if status != 0:
        why = next((one.strip("* ") for one in said if one.startswith("**")), f"status {status}")
        raise OSError(f"its log can't be replayed: {why}")
