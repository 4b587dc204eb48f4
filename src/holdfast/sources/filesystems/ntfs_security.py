"""Who owns a file of NTFS and who may do what with it, in Windows' own notation (SDDL).

Must not decide what becomes of it. Invariant: whatever the bytes are, reading them is bounded; what
is no descriptor gives None, never a guess.

Format: self-relative security descriptors and SDDL, [MS-DTYP] 2.4.2 to 2.5.1.
"""

from __future__ import annotations

import struct

DESCRIPTOR_AT_MOST = 64 << 10
"""Windows keeps no larger one."""

_HEAD = struct.Struct("<BBHIIII")
_ACL = struct.Struct("<BBHHH")
_ACE = struct.Struct("<BBHI")

_OWN_PART_FIRST = 0x8000
_PRESENT = 0x0004
_CONTROL = ((0x1000, "P"), (0x0100, "AR"), (0x0400, "AI"))
_FLAGS = ((0x01, "OI"), (0x02, "CI"), (0x04, "NP"), (0x08, "IO"), (0x10, "ID"))
_TYPES = {0: "A", 1: "D"}


def owner_of(descriptor: bytes) -> str | None:
    """The SID of the owner; None where there is none."""
    head = _head(descriptor)
    return None if head is None else _sid(descriptor, head[1])


def to_sddl(descriptor: bytes) -> str | None:
    """Owner, group and access list as SDDL.

    Returns:
        As ``O:S-1-5-32-544G:S-1-5-18D:P(A;OICI;0x1f01ff;;;S-1-5-18)``; None for what is no
        descriptor. Entries that are no plain allowances and refusals are left out.
    """
    head = _head(descriptor)
    if head is None:
        return None
    control, owner_at, group_at, access_at = head
    owner, group = _sid(descriptor, owner_at), _sid(descriptor, group_at)
    parts = []
    if owner is not None:
        parts.append(f"O:{owner}")
    if group is not None:
        parts.append(f"G:{group}")
    if control & _PRESENT:
        entries = _entries(descriptor, access_at) if access_at else ["NO_ACCESS_CONTROL"]
        if entries is None:
            return None
        flags = "".join(word for bit, word in _CONTROL if control & bit)
        parts.append(f"D:{flags}{''.join(entries)}")
    return "".join(parts) or None


def _head(descriptor: bytes) -> tuple[int, int, int, int] | None:
    if not _HEAD.size <= len(descriptor) <= DESCRIPTOR_AT_MOST:
        return None
    revision, _, control, owner, group, _, access = _HEAD.unpack_from(descriptor)
    if revision != 1 or not control & _OWN_PART_FIRST:
        return None
    return control, owner, group, access


def _sid(data: bytes, at: int) -> str | None:
    if not at or at + 8 > len(data):
        return None
    revision, count = data[at], data[at + 1]
    if revision != 1 or count > 15 or at + 8 + 4 * count > len(data):
        return None
    authority = int.from_bytes(data[at + 2 : at + 8], "big")
    numbers = struct.unpack_from(f"<{count}I", data, at + 8)
    return "-".join(["S-1", str(authority), *map(str, numbers)])


def _entries(data: bytes, at: int) -> list[str] | None:
    if at + _ACL.size > len(data):
        return None
    _, _, size, count, _ = _ACL.unpack_from(data, at)
    end = min(at + size, len(data))
    at += _ACL.size
    found = []
    for _ in range(count):
        if at + _ACE.size > end:
            return None
        kind, flags, length, rights = _ACE.unpack_from(data, at)
        if length < _ACE.size or at + length > end:
            return None
        sid = _sid(data[: at + length], at + _ACE.size)
        if kind in _TYPES and sid is not None:
            words = "".join(word for bit, word in _FLAGS if flags & bit)
            found.append(f"({_TYPES[kind]};{words};0x{rights:x};;;{sid})")
        at += length
    return found
