"""What is mounted where on this machine.

Must not look into what is mounted. The source is the kernel's own list, see proc_pid_mountinfo(5).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")

KERNEL_ONLY = frozenset(
    {
        *("proc", "sysfs", "cgroup", "cgroup2", "devpts", "securityfs", "debugfs", "tracefs"),
        *("bpf", "pstore", "efivarfs", "configfs", "mqueue", "binfmt_misc", "fusectl", "selinuxfs"),
        *("autofs", "rpc_pipefs", "nsfs", "hugetlbfs"),
    }
)
"""File systems that only show the kernel's state."""

_REMOTE = ("nfs", "cifs", "smb", "9p", "ceph", "afs", "glusterfs", "lustre", "fuse.sshfs")
_ESCAPE = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One file system at one place.

    Attributes:
        place: Absolute.
        kind: ``ext4``, ``nfs4``, ``fuse.sshfs``.
        device: What is mounted: a device, or ``server:/export``.
    """

    place: bytes
    kind: str
    device: str

    @property
    def is_remote(self) -> bool:
        """Whether another machine has it."""
        return self.kind.startswith(_REMOTE)

    @property
    def is_fuse(self) -> bool:
        """Whether a program shows it, to whom it likes."""
        return self.kind.startswith("fuse") and self.kind != "fusectl"

    def __str__(self) -> str:
        return f"{self.kind} of {self.device}"


def mounts(listed: Path = MOUNTS) -> list[Mount]:
    """Everything that is mounted, in the order in which it was."""
    found = []
    for line in listed.read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        kind, device = (_plain(part).decode("utf-8", "replace") for part in after.split(b" ")[:2])
        found.append(Mount(_plain(before.split(b" ")[4]), kind, device))
    return found


def mount_of(path: bytes, listed: list[Mount]) -> Mount | None:
    """What a path lies on; asks no file system, which might not answer."""
    above = [
        one for one in listed if path == one.place or path.startswith(one.place.rstrip(b"/") + b"/")
    ]
    # Of two at the same place, the later hides the other.
    return max(enumerate(above), key=lambda one: (len(one[1].place), one[0]))[1] if above else None


def _plain(text: bytes) -> bytes:
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), text)
