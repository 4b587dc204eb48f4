"""Which file systems of this machine are drives of its own.

Must not read what is in them. The source is the kernel's own list, see proc_pid_mountinfo(5).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from holdfast.base.errors import NotFound

ALL_LOCAL_DRIVES = "ALL_LOCAL_DRIVES"
"""The word in a backup selection that stands for all of them."""

_ON_DRIVES = frozenset(
    {
        *("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "reiserfs", "bcachefs"),
        *("vfat", "exfat", "ntfs", "ntfs3", "fuseblk", "hfsplus", "apfs", "nilfs2", "ufs"),
    }
)
_ESCAPE = re.compile(rb"\\([0-7]{3})")


def local_drives(mounts: Path = Path("/proc/self/mountinfo")) -> tuple[bytes, ...]:
    """Where drives are mounted; of a drive that is mounted twice, the place mounted first.

    What the root lies on counts as a drive, whatever it is: a machine that runs from an overlay
    or from memory has nothing else.

    Raises:
        NotFound: There is none, which can't be.
    """
    found: dict[bytes, bytes] = {}
    for line in mounts.read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        device, root, point = before.split(b" ")[2:5]
        kind = after.split(b" ")[0].decode("ascii", "replace")
        place = _ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), point)
        # A bind mount of a part of a drive is in the drive already.
        whole = root == b"/" or (kind == "btrfs" and place == b"/")
        if place == b"/" or (kind in _ON_DRIVES and whole and os.path.isdir(place)):
            # What hides another mount at the same place comes after it.
            found = {one: where for one, where in found.items() if where != place}
            found.setdefault(device, place)
    if not found:
        raise NotFound("this machine shows no mounted drive", "name the paths instead")
    return tuple(sorted(found.values()))


def local_paths(_client: str) -> list[str]:
    """The same as text, for whoever asks by client: so far there is this machine alone."""
    return [os.fsdecode(path) for path in local_drives()]
