"""Which format a disk file has: what its name says, and what its first bytes say.

Must not decide whom to believe: see `chain`. A guest writes the first bytes of a raw disk as it
likes; it does not choose the name of the file.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from holdfast.base.errors import DiskUnreadable, NotFound, storage_error

if TYPE_CHECKING:
    from pathlib import Path

QCOW2 = "qcow2"
RAW = "raw"
VMDK = "vmdk"
VPC = "vpc"
VHDX = "vhdx"
VDI = "vdi"

_BY_SUFFIX = {
    ".qcow2": QCOW2,
    ".qcow": "qcow",
    ".qed": "qed",
    ".vmdk": VMDK,
    ".vhd": VPC,
    ".vpc": VPC,
    ".vhdx": VHDX,
    ".avhdx": VHDX,
    ".vdi": VDI,
    ".raw": RAW,
}
_UNTOLD = (".img", ".disk", ".qemu", "")

_MAGIC = (
    (0, b"vhdxfile", VHDX),
    (0, b"conectix", VPC),
    (0, b"KDMV", VMDK),
    (0, b"COWD", VMDK),
    (0, struct.pack("<Q", 0xCAFEBABE), VMDK),
    (0, b"# Disk DescriptorFile", VMDK),
    (0, b"QED\0", "qed"),
    (64, struct.pack("<I", 0xBEDA107F), VDI),
)
_FOOTER = b"conectix"
_ENOUGH = 4096


def said_by_name(path: Path) -> str | None:
    """The format that a file's name says, None if it says none."""
    return _BY_SUFFIX.get(path.suffix.lower())


def may_be_disk(path: Path) -> bool:
    """Whether a file of that name may hold a disk, for all that the name says."""
    suffix = path.suffix.lower()
    return suffix in _BY_SUFFIX or suffix in _UNTOLD


def shown_by_bytes(path: Path) -> str | None:
    """The format that a file's bytes look like, None for none that is known.

    Raises:
        NotFound, NoPermission, InputOutput: It can't be read.
    """
    head = read_part(path, 0, _ENOUGH)
    if head[:4] == b"QFI\xfb" and len(head) >= 8:
        return "qcow" if head[4:8] == b"\0\0\0\1" else QCOW2
    for offset, magic, name in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return name
    size = file_size(path)
    if size >= 512 and read_part(path, size - 512, 8) == _FOOTER:
        return VPC
    return None


def file_size(path: Path) -> int:
    """How long a file, or how large a block device, is.

    Raises:
        NotFound, NoPermission, InputOutput: It can't be looked at.
    """
    try:
        with path.open("rb") as file:
            return file.seek(0, os.SEEK_END)
    except OSError as error:
        raise unreadable(path, error) from error


def read_part(path: Path, offset: int, length: int) -> bytes:
    """Bytes of a file; fewer at its end.

    Raises:
        NotFound, NoPermission, InputOutput: It can't be read.
        DiskUnreadable: It is neither a file nor a block device.
    """
    try:
        # Opening a pipe would wait for its other end.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not path.is_file() and not path.is_block_device():
                raise DiskUnreadable(f"'{path}' is neither a file nor a block device")
            file.seek(offset)
            return file.read(length)
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> Exception:
    """The error for a file that the system does not let be read."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return NotFound(
            f"file '{path}' is missing", "see whether it was moved, or a file system is not mounted"
        )
    return storage_error(error)(f"file '{path}' can't be read: {error.strerror}")
