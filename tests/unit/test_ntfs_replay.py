"""An NTFS that Windows had in use is read as it is when its log was replayed."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from holdfast.movers.machines.inside import Inside
from holdfast.sources.filesystems.appliance import appliance
from holdfast.sources.filesystems.opening import is_replayed, open_files
from holdfast.sources.filesystems.recognise import State
from holdfast.sources.filesystems.replayed import ReplayedFiles
from holdfast.sources.filesystems.sandboxed import SandboxedFiles
from holdfast.sources.filesystems.volumes import NOT_REPLAYED, look
from tests.kit.disks import MIB, BytesDisk, FileDisk, blank, mounted, need, need_root, run
from tests.kit.guest_files import content
from tests.kit.ntfs_log import Volume, with_logged_files

pytest.importorskip("pytsk3", reason="pytsk3 is not installed: see the extra 'vm'")

guest = pytest.mark.skipif(
    not appliance.replays("ntfs"),
    reason="no guest: needs qemu-system-x86, a kernel in /boot, and ntfs-3g",
)
HOW = ("ntfs-3g", "-o", "streams_interface=windows")


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes, dict[str, int]]:
    """An NTFS, the same with two more files, and numbers of names."""
    need("mkfs.ntfs", "ntfs-3g", "ntfsrecover")
    need_root()
    place = tmp_path_factory.mktemp("ntfs")
    path = blank(place / "disk", 16 * MIB)
    run("mkfs.ntfs", "-q", "-Q", "-F", path)
    numbers = {}
    with mounted(path, place / "mnt", *HOW) as at:
        (at / "docs").mkdir()
        (at / "docs/old").write_bytes(b"there")
        numbers["docs"] = (at / "docs").stat().st_ino
        # so many records has the table already
        for name in ("a", "b"):
            (at / name).write_bytes(b"")
        for name in ("a", "b"):
            (at / name).unlink()
    before = path.read_bytes()
    with mounted(path, place / "mnt", *HOW) as at:
        for name, data in (("synced", b"safe"), ("unfinished", b"not yet")):
            (at / "docs" / name).write_bytes(data)
            numbers[name] = (at / "docs" / name).stat().st_ino
        (at / "docs/synced:more").write_bytes(b"beside it")
    return before, path.read_bytes(), numbers


def logged(states: tuple[bytes, bytes, dict[str, int]], version: int) -> bytes:
    before, after, numbers = states
    files = {numbers["synced"]: True, numbers["unfinished"]: False}
    return with_logged_files(before, after, numbers["docs"], files, version)


@guest
@pytest.mark.slow
@pytest.mark.parametrize("version", [1, 2])
def test_what_is_only_in_the_log_is_there(
    states: tuple[bytes, bytes, dict[str, int]], version: int
) -> None:
    disk = BytesDisk(logged(states, version))
    with SandboxedFiles(disk, "ntfs", "vda/fs") as files:
        names = {one.name for batch in files.tree() for one in batch.entries}
        assert names == {b"docs", b"old"}, "it is not in the tables"
    with Inside({"vda": disk}) as inside:
        # so there is nothing to be told of
        assert inside.remarks == []
    (volume,) = look({"vda": disk}).volumes
    with closing(open_files(volume)) as reader:
        found = {one.name: one for batch in reader.tree() for one in batch.entries}
        assert set(found) == {b"docs", b"old", b"synced", b"synced:more"}
        for name, data in ((b"synced", b"safe"), (b"synced:more", b"beside it")):
            assert content(reader, found[name], b"/docs/" + name) == data
        details = reader.details(found[b"synced"], b"/docs/synced")
        assert details.dos == 32
        assert b"system.ntfs_acl" in details.xattrs
        assert reader.remarks == []
    assert disk.data == logged(states, version)


@guest
@pytest.mark.slow
def test_a_log_that_can_t_be_replayed_is_told_and_the_files_are_read_as_they_are(
    states: tuple[bytes, bytes, dict[str, int]],
) -> None:
    data = bytearray(logged(states, 1))
    volume = Volume(bytes(data))
    start, size = volume.run(2, 0x80)
    begin = start * volume.cluster
    # of its beginning, which says that it is in use, nothing is missing
    data[begin + 0x2000 : begin + size] = bytes(size - 0x2000)
    with Inside({"vda": BytesDisk(bytes(data))}) as inside:
        assert {path for path, _ in inside.below(b"/vda/fs")} == {
            b"/vda/fs/docs",
            b"/vda/fs/docs/old",
        }
        (said,) = inside.remarks
        assert (said.severity, said.code, said.about) == ("warning", NOT_REPLAYED, "vda/fs")
        assert "could not be replayed (its log can't be replayed:" in said.message


def test_without_what_replays_it_that_is_told(
    states: tuple[bytes, bytes, dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appliance, "find_replay", lambda: None)
    disk = BytesDisk(logged(states, 2))
    (volume,) = look({"vda": disk}).volumes
    assert volume.files.state is State.NEEDS_REPLAY
    assert not is_replayed(volume)
    with closing(open_files(volume)) as files:
        assert not isinstance(files, ReplayedFiles)
        assert content(files, files.entry(b"/docs/old"), b"/docs/old") == b"there"
    with Inside({"vda": disk}) as inside:
        assert [one.code for one in inside.remarks] == [NOT_REPLAYED]


def test_what_linux_has_written_and_synced_is_in_the_tables(tmp_path: Path) -> None:
    """It writes no log: there is nothing to replay, and nothing is missing."""
    need("mkfs.ntfs", "ntfs-3g")
    path = blank(tmp_path / "disk", 16 * MIB)
    run("mkfs.ntfs", "-q", "-Q", "-F", path)
    with mounted(path, tmp_path / "mnt", "ntfs-3g") as at:
        fd = os.open(at / "synced", os.O_CREAT | os.O_WRONLY)
        os.write(fd, b"safe")
        os.fsync(fd)
        os.close(fd)
        frozen = path.read_bytes()
    (tmp_path / "frozen").write_bytes(frozen)
    with FileDisk(tmp_path / "frozen") as disk:
        (volume,) = look({"vda": disk}).volumes
        assert volume.files.state is not State.NEEDS_REPLAY
        with closing(open_files(volume)) as files:
            assert content(files, files.entry(b"/synced"), b"/synced") == b"safe"
