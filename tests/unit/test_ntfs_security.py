"""Descriptors of NTFS: read out of its own table, kept on an NTFS, told as Windows tells them."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.engine import Pool, PoolConfig
from holdfast.movers.machines.file_restore import FileRestore
from holdfast.movers.machines.image_restore import restore_paths
from holdfast.movers.restore_run import RestoreOrder
from holdfast.sources.filesystems.entries import DESCRIPTOR
from holdfast.sources.filesystems.ntfs_security import owner_of, to_sddl
from holdfast.sources.filesystems.sandboxed import SandboxedFiles
from tests.kit.disks import MIB, FileDisk, blank, mounted, need, run
from tests.kit.machine_images import back_up

ADMINISTRATORS = bytes([1, 2, 0, 0, 0, 0, 0, 5]) + struct.pack("<II", 32, 544)
SYSTEM = bytes([1, 1, 0, 0, 0, 0, 0, 5]) + struct.pack("<I", 18)


def somebody(number: int) -> bytes:
    """A SID of a domain."""
    return bytes([1, 5, 0, 0, 0, 0, 0, 5]) + struct.pack("<5I", 21, 111, 222, 333, number)


def entry(kind: int, flags: int, rights: int, sid: bytes) -> bytes:
    return struct.pack("<BBHI", kind, flags, 8 + len(sid), rights) + sid


def descriptor(owner: bytes, group: bytes, *entries: bytes, control: int = 0x9004) -> bytes:
    body = b"".join(entries)
    acl = struct.pack("<BBHHH", 2, 0, 8 + len(body), len(entries), 0) + body
    owner_at = 20 + len(acl)
    head = struct.pack("<BBHIIII", 1, 0, control, owner_at, owner_at + len(owner), 0, 20)
    return head + acl + owner + group


def test_a_descriptor_is_told_as_windows_tells_it() -> None:
    made = descriptor(
        somebody(1001),
        ADMINISTRATORS,
        entry(1, 0, 0x2, somebody(1002)),
        entry(0, 3, 0x1F01FF, SYSTEM),
        entry(0, 0x13, 0x1200A9, ADMINISTRATORS),
    )
    assert owner_of(made) == "S-1-5-21-111-222-333-1001"
    assert to_sddl(made) == (
        "O:S-1-5-21-111-222-333-1001G:S-1-5-32-544D:P"
        "(D;;0x2;;;S-1-5-21-111-222-333-1002)"
        "(A;OICI;0x1f01ff;;;S-1-5-18)"
        "(A;OICIID;0x1200a9;;;S-1-5-32-544)"
    )
    assert to_sddl(descriptor(SYSTEM, SYSTEM, control=0x8004)) == "O:S-1-5-18G:S-1-5-18D:"
    assert to_sddl(b"") is None
    assert to_sddl(made[:-70]) is None or "D:" in str(to_sddl(made[:-70]))


@given(st.binary(max_size=300), st.integers(0, 400))
def test_no_bytes_are_too_odd(noise: bytes, at: int) -> None:
    made = bytearray(descriptor(somebody(7), SYSTEM, entry(0, 3, 0x1F01FF, somebody(8))))
    made[at : at + len(noise)] = noise
    for one in (bytes(made), noise):
        assert to_sddl(one) is None or len(str(to_sddl(one))) < 100_000
        owner_of(one)


@pytest.fixture
def disk(tmp_path: Path) -> tuple[Path, dict[str, bytes]]:
    """An NTFS, and descriptors of its files; so many that they need more than one block."""
    pytest.importorskip("pytsk3", reason="pytsk3 is not installed: see the extra 'vm'")
    need("mkfs.ntfs", "ntfs-3g")
    path = blank(tmp_path / "disk", 64 * MIB)
    run("mkfs.ntfs", "-q", "-Q", "-F", path)
    with mounted(path, tmp_path / "mnt", "ntfs-3g", "-o", "permissions") as at:
        os.mkdir(at / "folder")
        for number in range(2000):
            file = at / "folder" / f"file-{number}"
            file.write_bytes(b"%d" % number)
            made = descriptor(
                somebody(5000 + number), SYSTEM,
                entry(0, 0, 0x1F01FF, somebody(5000 + number)),
                entry(0, 0, 0x1200A9, ADMINISTRATORS),
            )  # fmt: skip
            os.setxattr(file, "system.ntfs_acl", made)
        os.setxattr(
            at / "folder",
            "system.ntfs_acl",
            descriptor(ADMINISTRATORS, SYSTEM, entry(0, 3, 0x1F01FF, SYSTEM)),
        )
    with mounted(path, tmp_path / "mnt", "ntfs-3g", "-o", "permissions,ro") as at:
        names = ["folder", *(f"folder/file-{number}" for number in range(2000))]
        return path, {name: os.getxattr(at / name, "system.ntfs_acl") for name in names}


def test_descriptors_are_those_that_ntfs_3g_tells(disk: tuple[Path, dict[str, bytes]]) -> None:
    path, expected = disk
    with FileDisk(path) as opened, SandboxedFiles(opened, "ntfs", "vda/fs") as files:
        for name in ("folder", *(f"folder/file-{number}" for number in (0, 1, 900, 1999))):
            place = b"/" + name.encode()
            found = files.details(files.entry(place), place).xattrs
            assert found == {DESCRIPTOR: expected[name]}, name


def test_descriptors_come_back_onto_an_ntfs_and_are_listed_elsewhere(
    disk: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    path, expected = disk
    (tmp_path / "pool").mkdir()
    pool = Pool.create(str(tmp_path / "pool"), bytes(range(32)), PoolConfig(), 0)
    image = back_up(pool, {"sda": path})
    target = blank(tmp_path / "target", 64 * MIB)
    run("mkfs.ntfs", "-q", "-Q", "-F", target)
    with mounted(target, tmp_path / "new", "ntfs-3g", "-o", "permissions") as at:
        order = RestoreOrder(image, (b"/sda/fs/folder",), os.fsencode(at / "to"), None, 2)
        assert restore_paths(pool, order).findings_total == 0
        for name in ("folder", "folder/file-0", "folder/file-1999"):
            assert os.getxattr(at / "to" / name, "system.ntfs_acl") == expected[name]
    order = RestoreOrder(image, (b"/sda/fs/folder",), os.fsencode(tmp_path / "to"))
    done = restore_paths(pool, order)
    assert isinstance(done, FileRestore)
    assert [(one.path, one.code) for one in done.findings] == [(b"/sda/fs/folder", "access-list")]
    assert "2,001 files" in done.findings[0].message
    told = done.lost_access.told()
    assert len(told) == 2001
    owners = {path: owner for owner, _, one in told for path in one.paths}
    assert owners[b"/sda/fs/folder/file-12"] == "S-1-5-21-111-222-333-5012"
    assert owners[b"/sda/fs/folder"] == "S-1-5-32-544"
