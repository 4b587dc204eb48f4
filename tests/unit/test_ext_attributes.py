"""Extended attributes of an ext are those that a mount shows."""

from __future__ import annotations

import contextlib
import os
import random
from pathlib import Path

import pytest

from holdfast.sources.filesystems.entries import FilesUnreadable
from holdfast.sources.filesystems.sandboxed import SandboxedFiles
from tests.kit.disks import MIB, FileDisk, blank, mounted, need, run

pytest.importorskip("pytsk3", reason="pytsk3 is not installed: see the extra 'vm'")

KINDS = {
    "ext2": ["mkfs.ext2"],
    "ext3": ["mkfs.ext3", "-I", "128"],
    "ext4": ["mkfs.ext4"],
    "ext4-inline": ["mkfs.ext4", "-b", "1024", "-O", "inline_data"],
    "ext4-large-values": ["mkfs.ext4", "-O", "ea_inode"],
    "ext4-narrow": ["mkfs.ext4", "-O", "^64bit"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_attributes_are_those_that_a_mount_shows(tmp_path: Path, kind: str) -> None:
    need(KINDS[kind][0], "setfacl")
    path = blank(tmp_path / "disk", 64 * MIB)
    run(*KINDS[kind], "-q", "-F", path)
    rng = random.Random(3)
    with mounted(path, tmp_path / "mnt", "user_xattr,acl") as at:
        os.mkdir(at / "folder")
        # inodes of more than one group
        for number in range(40):
            os.mkdir(at / f"dir-{number}")
            (at / f"dir-{number}" / "file").write_bytes(b"x" * number)
            os.setxattr(at / f"dir-{number}" / "file", "user.number", b"%d" % number)
        for name in ("plain", "few", "many", "rights", "program", "empty"):
            (at / name).write_bytes(b"content of " + name.encode())
        os.setxattr(at / "few", "user.note", b"kept")
        os.setxattr(at / "empty", "user.empty", b"")
        os.setxattr(at / "few", "trusted.secret", b"\0\1\2")
        for number in range(9):
            os.setxattr(at / "many", f"user.value-{number}", rng.randbytes(70))
        if "large" in kind:
            os.setxattr(at / "many", "user.large", rng.randbytes(20_000))
        capability = bytes.fromhex("0100000200200000") + bytes(12)
        os.setxattr(at / "program", "security.capability", capability)
        run("setfacl", "-m", "u:1234:rwx,g:77:r,m:rx", at / "rights")
        run("setfacl", "-d", "-m", "u:1234:rwx", at / "folder")
    expected = {}
    with mounted(path, tmp_path / "mnt", "ro") as at:
        for one in sorted(at.rglob("*")):
            place = b"/" + os.fsencode(one.relative_to(at))
            listed = os.listxattr(one)
            expected[place] = {os.fsencode(key): os.getxattr(one, key) for key in listed}
    assert len(expected[b"/many"]) >= 9
    with FileDisk(path) as disk, SandboxedFiles(disk, "ext4", "vda/fs") as files:
        for path_there, xattrs in expected.items():
            found = files.details(files.entry(path_there), path_there).xattrs
            assert found == xattrs, path_there


def test_damage_never_harms_who_reads(tmp_path: Path) -> None:
    need("mkfs.ext4")
    path = blank(tmp_path / "disk", 16 * MIB)
    run("mkfs.ext4", "-q", "-F", "-O", "^metadata_csum", path)
    with mounted(path, tmp_path / "mnt") as at:
        for number in range(20):
            (at / f"file-{number}").write_bytes(b"x")
            for name in range(6):
                os.setxattr(at / f"file-{number}", f"user.{name}", b"y" * 60)
    data = path.read_bytes()
    rng = random.Random(5)
    for seed in range(6):
        broken = bytearray(data)
        for place in (at for at in range(0, len(data), 256) if data[at : at + 256].count(0) < 200):
            if place > 4096 and rng.random() < 0.5:
                broken[place + rng.randrange(256)] = rng.randrange(256)
        (tmp_path / f"broken-{seed}").write_bytes(broken)
        with (
            FileDisk(tmp_path / f"broken-{seed}") as disk,
            SandboxedFiles(disk, "ext4", "vda/fs") as files,
            # whatever it is, it is told as what it is
            contextlib.suppress(FilesUnreadable),
        ):
            for one in [one for batch in files.tree() for one in batch.entries]:
                files.details(one, b"/" + one.name)
