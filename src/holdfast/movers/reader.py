"""Who this process is to the file system, and why it is refused something.

Must not read what files hold. The true cause is named: the directory that is in the way, whose it
is, the right that is missing, or that no right would help.
"""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from holdfast.movers.mounts import mount_of, mounts

STATUS = Path("/proc/self/status")

_CAP_DAC_OVERRIDE = 1
_CAP_DAC_READ_SEARCH = 2

SYSTEMD_HINT = (
    "run it as root, or give it the right to read everything: "
    "AmbientCapabilities=CAP_DAC_READ_SEARCH in its systemd unit"
)


@dataclass(frozen=True, slots=True)
class Reader:
    """The process that reads.

    Attributes:
        user_id: By which the kernel judges it.
        reads_all: Whether modes and owners of files are no obstacle to it.
    """

    user_id: int
    reads_all: bool

    @classmethod
    def of_this_process(cls, status: Path = STATUS) -> Reader:
        """Find out about the running process; see capabilities(7)."""
        rights = 0
        for line in status.read_text().splitlines():
            if line.startswith("CapEff:"):
                rights = int(line.split()[1], 16)
        able = rights & (1 << _CAP_DAC_READ_SEARCH | 1 << _CAP_DAC_OVERRIDE)
        return cls(os.geteuid(), bool(able))

    def __str__(self) -> str:
        right = "" if self.reads_all else ", without CAP_DAC_READ_SEARCH"
        return f"user {user_name(self.user_id)} (uid {self.user_id}{right})"


def why_refused(path: bytes, reader: Reader) -> tuple[str, str]:
    """Why a reader may not read a path, and what to do about it.

    Args:
        path: Absolute; the kernel has refused it.
        reader: To whom.
    """
    place = _obstacle(path)
    shown = place.decode("utf-8", "backslashreplace")
    if reader.reads_all:
        return _why_in_spite_of_rights(place, shown)
    try:
        state = os.lstat(place)
    except OSError as error:
        return f"{reader} may not look at '{shown}': {error.strerror}", SYSTEMD_HINT
    mode = stat.S_IMODE(state.st_mode)
    does = "pass through" if place != path else "read"
    owner = f"it is {user_name(state.st_uid)}'s, with mode {mode:04o}"
    return f"{reader} may not {does} '{shown}': {owner}", SYSTEMD_HINT


def user_name(user_id: int) -> str:
    """A user's name, or the number if there is none."""
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return str(user_id)


def _obstacle(path: bytes) -> bytes:
    """The outermost directory above a path that can't be passed, else the path."""
    parts = path.split(b"/")
    for end in range(1, len(parts)):
        above = b"/".join(parts[:end]) or b"/"
        if not os.access(above, os.X_OK, effective_ids=True):
            return above
    return path


def _why_in_spite_of_rights(place: bytes, shown: str) -> tuple[str, str]:
    mount = mount_of(place, mounts())
    if mount is not None and mount.is_fuse:
        return (
            f"'{shown}' is on {mount}: a program shows it to whoever mounted it alone, not to root",
            "mount it with the option allow_other, or run Holdfast as the user who mounted it",
        )
    if mount is not None and mount.is_remote:
        return (
            f"'{shown}' is on {mount}: its server forbids it, to root too",
            "back it up on the server itself, or let the server export it with no_root_squash",
        )
    return (
        f"'{shown}' is forbidden in spite of all rights, such as by SELinux or AppArmor",
        "look at what the kernel's audit log says of it: ausearch -m avc",
    )
