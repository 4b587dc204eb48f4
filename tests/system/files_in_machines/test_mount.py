"""A machine's image, mounted: its disks, and the files on them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast.base.clock import SystemClock
from holdfast.base.ids import ImageId, pool_id
from holdfast.site.secrets import SecretSource
from holdfast.site.site import Site
from holdfast.sources.filesystems.appliance import appliance
from tests.kit.command import Command
from tests.kit.disks import MIB, blank, mounted, need, run
from tests.kit.guest_files import walked
from tests.kit.machine_images import back_up
from tests.kit.shown import shown

pytest.importorskip("pytsk3", reason="pytsk3 is not installed: see the extra 'vm'")


def test_the_files_of_a_machine_are_there_as_in_the_machine(
    site: Command, machine: ImageId, tmp_path: Path
) -> None:
    with mounted(tmp_path / "vda", tmp_path / "guest", "ro") as at:
        expected = walked(at)
        hosts = os.stat(at / "etc" / "hosts")
    with shown(site, tmp_path / "at", machine[:8]) as at:
        assert sorted(os.listdir(at)) == ["disks", "machine.json", "vda"]
        assert os.listdir(at / "vda") == ["fs"]
        found = walked(at / "vda" / "fs")
        assert found.keys() == expected.keys()
        for path, seen in expected.items():
            other = found[path]
            assert (other.kind, other.mode, other.uid, other.gid) == (
                seen.kind, seen.mode, seen.uid, seen.gid,
            ), path  # fmt: skip
            assert (other.size, other.target, other.content) == (
                seen.size if seen.kind != "symlink" else len(seen.target),
                seen.target,
                seen.content,
            ), path
            assert other.mtime_ns == seen.mtime_ns, path
        there = os.stat(at / "vda/fs/etc/hosts")
        assert there.st_mtime_ns == hosts.st_mtime_ns
        # who saves holes must not take a file for one
        sparse = os.stat(at / "vda/fs/large")
        assert sparse.st_blocks * 512 >= sparse.st_size
        # here and there, behind the end, and beside
        with (at / "vda/fs/large").open("rb") as file:
            whole = expected[b"/large"].content
            assert whole is not None
            for begin, length in ((3_000_000, 1000), (17, 5), (1_500_000, 2_000_000)):
                file.seek(begin)
                assert file.read(length) == whole[begin : begin + length]
            file.seek(len(whole) + 5)
            assert file.read() == b""
        # what was there before is there still
        disk = (tmp_path / "vda").read_bytes()
        assert (at / "disks" / "vda").read_bytes() == disk
        with pytest.raises(OSError, match="Read-only"):
            (at / "vda/fs/etc/new").write_bytes(b"x")
        run("tar", "-C", at / "vda/fs", "-cf", tmp_path / "all.tar", "--sparse", "etc", "large")
    run("tar", "-C", tmp_path, "-xf", tmp_path / "all.tar", "large")
    assert (tmp_path / "large").read_bytes() == expected[b"/large"].content


def test_only_the_disks_are_shown_where_that_was_asked_for(
    site: Command, machine: ImageId, tmp_path: Path
) -> None:
    with shown(site, tmp_path / "at", machine, "--disks-only") as at:
        assert sorted(os.listdir(at)) == ["disks", "machine.json"]


def test_a_volume_that_can_not_be_read_is_told_and_the_rest_is_there(
    site: Command, tmp_path: Path
) -> None:
    need("mkfs.ext4", "mkfs.ntfs")
    good, torn = blank(tmp_path / "vda", 16 * MIB), blank(tmp_path / "vdb", 16 * MIB)
    run("mkfs.ext4", "-q", "-F", good)
    with mounted(good, tmp_path / "guest") as at:
        (at / "file").write_bytes(b"here")
    run("mkfs.ntfs", "-q", "-Q", "-F", torn)
    data = bytearray(torn.read_bytes())
    data[512:] = bytes(len(data) - 512)
    torn.write_bytes(data)
    with Site.open(site.home, SecretSource(), SystemClock()) as opened:
        image = back_up(opened.pool, {"vda": good, "vdb": torn})
        opened.catalog.record_image(opened.pool.image(image), pool_id(opened.pool.id))
    with shown(site, tmp_path / "at", image) as at:
        assert (at / "vda/fs/file").read_bytes() == b"here"
        assert sorted(os.listdir(at / "disks")) == ["vda", "vdb"]
        assert not (at / "vdb/fs").exists() or not os.listdir(at / "vdb/fs")
    assert "vdb/fs" in (tmp_path / "said").read_text()


def test_streams_and_attributes_of_an_ntfs_are_read(site: Command, tmp_path: Path) -> None:
    need("mkfs.ntfs", "ntfs-3g")
    disk = blank(tmp_path / "sda", 32 * MIB)
    run("mkfs.ntfs", "-q", "-Q", "-F", disk)
    with mounted(disk, tmp_path / "guest", "ntfs-3g", "-o", "streams_interface=windows") as at:
        (at / "large").write_bytes(os.urandom(9_000_000))
        (at / "plain").write_bytes(b"first")
        (at / "plain:second").write_bytes(b"hidden" * 1000)
        os.setxattr(at / "plain", "system.ntfs_attrib_be", (0x22).to_bytes(4, "big"))
        descriptor = os.getxattr(at / "plain", "system.ntfs_acl")
        expected = walked(at)
    with Site.open(site.home, SecretSource(), SystemClock()) as opened:
        image = back_up(opened.pool, {"sda": disk})
        opened.catalog.record_image(opened.pool.image(image), pool_id(opened.pool.id))
    with shown(site, tmp_path / "at", image) as at:
        top = at / "sda/fs"
        assert (top / "large").read_bytes() == expected[b"/large"].content
        assert (top / "plain").read_bytes() == b"first"
        assert (top / "plain:second").read_bytes() == b"hidden" * 1000
        assert os.getxattr(top / "plain", "system.ntfs_acl") == descriptor
        assert os.getxattr(top / "plain", "system.ntfs_attrib_be") == bytes([0, 0, 0, 0x22])
    # What can't be held elsewhere is told, and with --json in full.
    words = ("restore", f"{image}:/sda/fs/plain", "--to", tmp_path / "to")
    told = site(*words, "--json").json()
    assert {one["code"] for one in told["findings"]} == {"attribute", "access-list"}
    (lost,) = told["access_lists"]
    assert lost["owner"].startswith("S-1-")
    assert lost["sddl"].startswith(f"O:{lost['owner']}G:")
    assert (lost["files"], lost["paths"]) == (1, [{"path": "/sda/fs/plain"}])


@pytest.mark.slow
@pytest.mark.skipif(not appliance.is_here(), reason="no guest: needs qemu-system-x86 and a kernel")
def test_what_needs_a_kernel_is_read_by_the_appliance(site: Command, tmp_path: Path) -> None:
    need("mkfs.xfs")
    disk = blank(tmp_path / "vda", 320 * MIB)
    run("mkfs.xfs", "-q", "-f", disk)
    with mounted(disk, tmp_path / "guest") as at:
        (at / "large").write_bytes(os.urandom(9_000_000))
        (at / "small").write_bytes(b"a line\n")
        os.setxattr(at / "small", "user.note", b"kept")
        with (at / "sparse").open("wb") as file:
            file.seek(20 * MIB)
            file.write(b"end")
        expected = walked(at)
    with Site.open(site.home, SecretSource(), SystemClock()) as opened:
        image = back_up(opened.pool, {"vda": disk})
        opened.catalog.record_image(opened.pool.image(image), pool_id(opened.pool.id))
    with shown(site, tmp_path / "at", image) as at:
        found = walked(at / "vda/fs")
        assert {path: one.content for path, one in found.items()} == {
            path: one.content for path, one in expected.items()
        }
        assert os.getxattr(at / "vda/fs/small", "user.note") == b"kept"
        assert os.listxattr(at / "vda/fs/large") == []
