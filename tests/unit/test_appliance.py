"""File systems that need a kernel are read by a guest's, as a mount of the same disk shows them."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.base.errors import IntegrityError
from holdfast.movers.machines.inside import Inside
from holdfast.sources.filesystems.appliance import appliance, initramfs
from holdfast.sources.filesystems.appliance.appliance import ApplianceFiles
from holdfast.sources.filesystems.entries import FilesUnreadable
from holdfast.sources.filesystems.opening import open_files
from holdfast.sources.filesystems.recognise import State
from holdfast.sources.filesystems.volumes import look
from tests.kit.disks import MIB, BytesDisk, FileDisk, blank, mounted, need, run
from tests.kit.guest_files import content, fill, told, walked

guest = pytest.mark.skipif(
    not appliance.is_here(), reason="no guest: needs qemu-system-x86 and a kernel in /boot"
)
SIZES = {"xfs": 320, "btrfs": 128}


@guest
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_a_file_system_is_told_as_the_kernel_shows_it(tmp_path: Path, kind: str) -> None:
    need(f"mkfs.{kind}")
    path = blank(tmp_path / "disk", SIZES[kind] * MIB)
    run(f"mkfs.{kind}", "-q", "-f", path)
    with mounted(path, tmp_path / "mnt") as at:
        fill(at)
        os.setxattr(at / "large", "user.note", b"kept")
    with mounted(path, tmp_path / "mnt", "ro") as at:
        expected = walked(at)
    before = hashlib.sha256(path.read_bytes()).digest()
    with FileDisk(path) as disk:
        (volume,) = look({"vda": disk}).volumes
        files = open_files(volume)
        assert isinstance(files, ApplianceFiles)
        with files:
            # what is in many small files is read of some
            some = {b"/etc/hosts", b"/large", b"/sparse", b"/etc/not utf-8 \xff\xfe"}
            found = told(files, some=some)
            assert found.keys() == expected.keys()
            for one, seen in expected.items():
                read = seen.content if one in some else None
                assert found[one] == replace(seen, content=read), one
            large = files.entry(b"/large")
            assert files.details(large, b"/large").xattrs == {b"user.note": b"kept"}
            with pytest.raises(KeyError):
                files.entry(b"/soft/behind a link")
    assert hashlib.sha256(path.read_bytes()).digest() == before


@guest
@pytest.mark.slow
def test_what_is_only_in_a_journal_is_there(tmp_path: Path) -> None:
    need("mkfs.ext4")
    path = blank(tmp_path / "disk", 32 * MIB)
    run("mkfs.ext4", "-q", "-F", path)
    with mounted(path, tmp_path / "mnt") as at:
        fd = os.open(at / "synced", os.O_CREAT | os.O_WRONLY)
        os.write(fd, b"safe")
        os.fsync(fd)
        os.close(fd)
        shutil.copyfile(path, tmp_path / "frozen")
    with FileDisk(tmp_path / "frozen") as disk:
        (volume,) = look({"vda": disk}).volumes
        assert volume.files.state is State.NEEDS_REPLAY
        files = open_files(volume)
        assert isinstance(files, ApplianceFiles)
        with files:
            assert content(files, files.entry(b"/synced"), b"/synced") == b"safe"
        # so there is nothing to be told of
        with Inside({"vda": disk}) as inside:
            assert inside.remarks == []


@guest
@pytest.mark.slow
def test_an_error_of_the_disk_is_no_broken_file_system(tmp_path: Path) -> None:
    need("mkfs.ext4")
    path = blank(tmp_path / "disk", 16 * MIB)
    run("mkfs.ext4", "-q", "-F", path)

    class Failing(BytesDisk):
        def read_at(self, offset: int, length: int, /) -> bytes:
            raise IntegrityError("a chunk is not what it was")

    with (
        ApplianceFiles(Failing(path.read_bytes()), "ext4", "vda/fs") as files,
        pytest.raises(IntegrityError),
    ):
        files.entry(b"/")


@guest
def test_a_guest_that_does_not_begin_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appliance, "EMULATOR", "true")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with (
        ApplianceFiles(BytesDisk(bytes(MIB)), "xfs", "vda/fs") as files,
        pytest.raises(FilesUnreadable, match="did not begin"),
    ):
        list(files.tree())
    assert list(tmp_path.iterdir()) == []


def test_without_a_kernel_or_an_emulator_it_is_said_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FilesUnreadable, match="no kernel for a guest"):
        initramfs.find_kernel(tmp_path, tmp_path)
    monkeypatch.setattr(appliance, "EMULATOR", "no-such-emulator")
    assert not appliance.is_here()
    with (
        ApplianceFiles(BytesDisk(bytes(MIB)), "xfs", "vda/fs") as files,
        pytest.raises(FilesUnreadable, match="no-such-emulator is not installed"),
    ):
        list(files.tree())


def test_the_newest_kernel_that_has_its_modules_is_taken(tmp_path: Path) -> None:
    boot, lib = tmp_path / "boot", tmp_path / "lib"
    for version, modules in (("6.1.0-9-amd64", True), ("6.1.0-56-amd64", True), ("6.12.1", False)):
        boot.mkdir(exist_ok=True)
        (boot / f"vmlinuz-{version}").write_text("")
        (lib / version).mkdir(parents=True)
        if modules:
            (lib / version / "modules.dep").write_text("")
    assert initramfs.find_kernel(boot, lib).image.name == "vmlinuz-6.1.0-56-amd64"
