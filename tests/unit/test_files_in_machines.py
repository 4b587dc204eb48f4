"""Files inside of a machine's image are listed and restored as they were in the machine."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.base.errors import InputOutput, Invalid, PathMissing, TargetNotEmpty
from holdfast.base.ids import ImageId
from holdfast.engine import Pool, PoolConfig
from holdfast.movers.machines import file_restore
from holdfast.movers.machines.file_restore import FileRestore, restore_files
from holdfast.movers.machines.image_restore import restore_paths
from holdfast.movers.machines.inside import Inside
from holdfast.movers.restore_run import Overwrite, RestoreOrder
from holdfast.sources.filesystems.entries import Details, Entry, Files, FilesUnreadable
from holdfast.sources.filesystems.opening import open_files
from holdfast.sources.filesystems.volumes import Volume
from tests.kit.disks import MIB, blank, mounted, need, run
from tests.kit.guest_files import Seen, fill, walked
from tests.kit.machine_images import back_up

pytest.importorskip("pytsk3", reason="pytsk3 is not installed: see the extra 'vm'")


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """A new pool in a directory."""
    (tmp_path / "pool").mkdir()
    return Pool.create(str(tmp_path / "pool"), bytes(range(32)), PoolConfig(), 0)


@pytest.fixture
def guest(tmp_path: Path, pool: Pool) -> tuple[ImageId, dict[bytes, Seen]]:
    """An image of a machine with an ext4 on a partition, and a swap; and what the ext4 holds."""
    need("mkfs.ext4", "sfdisk", "mkswap")
    part = blank(tmp_path / "part", 40 * MIB)
    run("mkfs.ext4", "-q", "-F", part)
    with mounted(part, tmp_path / "mnt") as at:
        fill(at)
        os.setxattr(at / "large", "user.note", b"kept")
        os.setxattr(at / "many", "user.note", b"of a directory")
    with mounted(part, tmp_path / "mnt", "ro") as at:
        expected = walked(at)
    disk = blank(tmp_path / "vda", 64 * MIB)
    run("sfdisk", "--quiet", disk, text="label: gpt\nsize=40M\nsize=10M\n")
    with disk.open("r+b") as file:
        file.seek(MIB)
        file.write(part.read_bytes())
    swap = blank(tmp_path / "vdb", 8 * MIB)
    run("mkswap", "-q", swap)
    return back_up(pool, {"vda": disk, "vdb": swap}), expected


def test_what_is_inside_is_listed(pool: Pool, guest: tuple[ImageId, dict[bytes, Seen]]) -> None:
    image, expected = guest
    with Inside.of_image(pool, image) as inside:
        assert [one.name for one in inside.children(b"/")] == [b"vda", b"vdb"]
        assert [one.name for one in inside.children(b"/vda")] == [b"p1"]
        names = {path[1:] for path in expected if path.count(b"/") == 1}
        assert {one.name for one in inside.children(b"/vda/p1/")} == names
        assert {path for path, _ in inside.below(b"/vda/p1")} == {
            b"/vda/p1" + path for path in expected
        }
        assert inside.entry(b"/vda/p1").kind == "dir"
        soft = inside.entry(b"/vda/p1/soft")
        assert (soft.kind, soft.target) == ("symlink", b"etc/hosts")
        assert {path for path, _ in inside.below(b"/vda")} > {b"/vda/p1", b"/vda/p1/etc"}
        for wrong in (b"/vda/p7", b"/vdc", b"/vda/p1/nothing"):
            with pytest.raises(PathMissing):
                inside.entry(wrong)
        with pytest.raises(InputOutput, match="swap"):
            inside.entry(b"/vdb/fs")


def test_one_reader_lists_and_another_reads_what_is_listed_meanwhile(
    pool: Pool, guest: tuple[ImageId, dict[bytes, Seen]], monkeypatch: pytest.MonkeyPatch
) -> None:
    image, expected = guest
    begun: list[str] = []

    def counted(volume: Volume) -> Files:
        begun.append(volume.name)
        return open_files(volume)

    monkeypatch.setattr("holdfast.movers.machines.inside.open_files", counted)
    with Inside.of_image(pool, image) as inside:
        for _ in range(2):
            assert inside.entry(b"/vda/p1/etc").kind == "dir"
            assert len(list(inside.below(b"/vda/p1"))) == len(expected)
        assert begun == ["vda/p1"]
        read = {}
        for path, one in inside.below(b"/vda/p1"):
            if one.size and one.kind == "file" and one.volume and one.found:
                pieces = inside.files(one.volume).read(one.found, one.place)
                read[path.removeprefix(b"/vda/p1")] = sum(len(data) for _, data in pieces)
        assert begun == ["vda/p1"] * 2
    assert read[b"/large"] == expected[b"/large"].size
    assert read.keys() == {at for at, one in expected.items() if one.kind == "file" and one.size}


def restored(target: Path) -> dict[bytes, Seen]:
    return walked(target)


def test_a_whole_volume_is_restored_as_it_was(
    tmp_path: Path, pool: Pool, guest: tuple[ImageId, dict[bytes, Seen]]
) -> None:
    image, expected = guest
    target = tmp_path / "to"
    order = RestoreOrder(image, (b"/vda/p1",), os.fsencode(target), strip_components=2, verify=True)
    done = restore_paths(pool, order)
    assert isinstance(done, FileRestore)
    assert done.findings == []
    found = restored(target)
    assert found.keys() == expected.keys()
    for path, seen in expected.items():
        # how many names a directory has is the file system's own affair
        nlink = found[path].nlink if seen.kind == "dir" else seen.nlink
        assert found[path] == replace(seen, nlink=nlink), path
    assert os.getxattr(target / "large", "user.note") == b"kept"
    assert os.getxattr(target / "many", "user.note") == b"of a directory"
    assert os.stat(target / "hard").st_ino == os.stat(target / "etc" / "hosts").st_ino
    assert (target / "sparse").stat().st_blocks * 512 < 3 * MIB
    assert done.files == sum(one.kind != "dir" for one in expected.values())
    # a further name of a file is no second file
    names = sum(one.kind == "file" for one in expected.values())
    assert done.verified_files == names - 1


def test_what_is_not_as_it_was_written_is_told(
    tmp_path: Path,
    pool: Pool,
    guest: tuple[ImageId, dict[bytes, Seen]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A disk that keeps other bytes than it was given is stood in for by whoever writes."""
    image, expected = guest
    write = file_restore._write_all

    def lies(fd: int, data: bytes, offset: int) -> None:
        write(fd, data.replace(b"localhost", b"localhose"), offset)
        if b"in the middle" in data:
            write(fd, b"x", 1 << 20)

    monkeypatch.setattr(file_restore, "_write_all", lies)
    order = RestoreOrder(image, (b"/vda/p1",), os.fsencode(tmp_path / "to"), verify=True)
    done = restore_paths(pool, order)
    assert {(one.code, one.severity) for one in done.findings} == {("verify", "error")}
    differ = {one.path for one in done.findings}
    # the first name of a file is the one that is written
    assert differ - {b"/vda/p1/etc/hosts", b"/vda/p1/hard"} == {b"/vda/p1/sparse"}
    assert len(differ) == len(done.findings) == 2
    assert done.verified_files == sum(one.kind == "file" for one in expected.values()) - 3


def test_single_files_are_restored_below_their_paths(
    tmp_path: Path, pool: Pool, guest: tuple[ImageId, dict[bytes, Seen]]
) -> None:
    image, expected = guest
    target = tmp_path / "to"
    paths = (b"/vda/p1/etc/hosts", b"/vda/p1/soft")
    restore_paths(pool, RestoreOrder(image, paths, os.fsencode(target)))
    assert set(restored(target)) == {
        b"/vda", b"/vda/p1", b"/vda/p1/etc", b"/vda/p1/etc/hosts", b"/vda/p1/soft",
    }  # fmt: skip
    assert (target / "vda/p1/etc/hosts").read_bytes() == expected[b"/etc/hosts"].content
    with pytest.raises(TargetNotEmpty):
        restore_paths(pool, RestoreOrder(image, paths, os.fsencode(target)))
    with pytest.raises(Invalid, match="nothing is left"):
        restore_paths(pool, RestoreOrder(image, paths, b"/x", strip_components=4))
    with pytest.raises(PathMissing):
        restore_paths(pool, RestoreOrder(image, (b"/vda/p1/no",), os.fsencode(tmp_path / "n")))
    assert not (tmp_path / "n").exists()


@pytest.mark.parametrize(
    ("overwrite", "stays"), [("never", True), ("older", True), ("always", False)]
)
def test_what_is_there_is_replaced_only_as_asked(
    tmp_path: Path,
    pool: Pool,
    guest: tuple[ImageId, dict[bytes, Seen]],
    overwrite: Overwrite,
    stays: bool,
) -> None:
    image, expected = guest
    target = tmp_path / "to"
    target.mkdir()
    (target / "hosts").write_text("mine")
    order = RestoreOrder(
        image,
        (b"/vda/p1/etc/hosts",),
        os.fsencode(target),
        overwrite,
        3,
    )
    done = restore_paths(pool, order)
    was = expected[b"/etc/hosts"].content
    assert (target / "hosts").read_bytes() == (b"mine" if stays else was)
    assert [one.code for one in done.findings] == (["exists"] if stays else [])
    os.utime(target / "hosts", (0, 0))
    restore_paths(pool, replace(order, overwrite="older"))
    assert (target / "hosts").read_bytes() == was


def test_the_disks_themselves_are_restored_as_before(
    tmp_path: Path, pool: Pool, guest: tuple[ImageId, dict[bytes, Seen]]
) -> None:
    image, _ = guest
    target = os.fsencode(tmp_path / "to")
    restore_paths(pool, RestoreOrder(image, (b"/disks/vdb",), target))
    assert (tmp_path / "to/disks/vdb").read_bytes() == (tmp_path / "vdb").read_bytes()
    with pytest.raises(Invalid, match="some are inside"):
        restore_paths(pool, RestoreOrder(image, (b"/disks/vdb", b"/vda/p1/soft"), b"/x"))


class HostileFiles:
    """A file system whose links lead out of the directory that it is restored into."""

    def __init__(self, outside: Path) -> None:
        self._outside = os.fsencode(outside)

    def read(self, entry: Entry, path: bytes) -> list[tuple[int, bytes]]:
        return [(0, b"got out")]

    def details(self, entry: Entry, path: bytes) -> Details:
        return Details()

    def close(self) -> None:
        pass


class HostileInside:
    """A link, and names behind it that are said to be below it."""

    def __init__(self, outside: Path) -> None:
        self.files_of = HostileFiles(outside)
        self._outside = os.fsencode(outside)

    def entry(self, path: bytes) -> object:
        return _inner(b"fs", "dir", 1)

    def below(self, path: bytes) -> object:
        yield path + b"/way", _inner(b"way", "symlink", 2, self._outside)
        yield path + b"/way/file", _inner(b"file", "file", 3)
        yield path + b"/dir", _inner(b"dir", "dir", 4)
        yield path + b"/dir", _inner(b"dir", "symlink", 5, self._outside)
        yield path + b"/dir/file", _inner(b"file", "file", 6)

    def files(self, volume: object) -> HostileFiles:
        return self.files_of


def _inner(name: bytes, kind: str, inode: int, target: bytes | None = None) -> object:
    from holdfast.movers.machines.inside import InnerEntry

    size = 7 if kind == "file" else 0
    entry = Entry(0, 0, 0o644, 0, 0, size, 0, 0, 0, inode, 1, 0xFFFF, name, target or b"")
    return InnerEntry(
        name,
        kind,
        0o755,
        size=size,
        target=target,
        found=entry,
        volume=object(),  # type: ignore[arg-type]
    )


def test_no_link_of_a_guest_leads_out(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    target = tmp_path / "to"
    inside = HostileInside(outside)
    done = restore_files(inside, [b"/vda/fs"], os.fsencode(target))  # type: ignore[arg-type]
    assert list(outside.iterdir()) == []
    assert (target / "vda/fs/way").is_symlink()
    assert (target / "vda/fs/dir/file").read_bytes() == b"got out"
    assert {one.path for one in done.findings} >= {b"/vda/fs/way/file", b"/vda/fs/dir"}


def test_what_ntfs_has_more_of_is_kept_where_there_is_a_place_for_it(
    tmp_path: Path, pool: Pool
) -> None:
    need("mkfs.ntfs", "ntfs-3g")
    path = blank(tmp_path / "disk", 16 * MIB)
    run("mkfs.ntfs", "-q", "-Q", "-F", path)
    with mounted(path, tmp_path / "mnt", "ntfs-3g", "-o", "streams_interface=windows") as at:
        (at / "file").write_bytes(b"plain")
        (at / "file:small").write_bytes(b"a stream")
        (at / "file:large").write_bytes(b"x" * 100_000)
        os.setxattr(at / "file", "system.ntfs_attrib_be", (0x22).to_bytes(4, "big"))
        descriptor = os.getxattr(at / "file", "system.ntfs_acl")
    image = back_up(pool, {"sda": path})
    target = tmp_path / "to"
    done = restore_paths(pool, RestoreOrder(image, (b"/sda/fs",), os.fsencode(target)))
    file = target / "sda/fs/file"
    assert file.read_bytes() == b"plain"
    assert os.getxattr(file, "user.small") == b"a stream"
    assert [(one.path, one.code) for one in done.findings] == [
        (b"/sda/fs/file", "attribute"),
        (b"/sda/fs/file:large", "stream"),
        (b"/sda/fs", "access-list"),
    ]
    assert isinstance(done, FileRestore)
    assert done.lost_access.by_descriptor[descriptor].paths == [b"/sda/fs/file"]
    assert "1 files" in done.findings[2].message
    assert "hidden" in done.findings[0].message
    alone = tmp_path / "alone"
    restore_paths(pool, RestoreOrder(image, (b"/sda/fs/file:large",), os.fsencode(alone)))
    assert (alone / "sda/fs/file:large").read_bytes() == b"x" * 100_000
    assert stat.S_ISREG((alone / "sda/fs/file:large").stat().st_mode)


def test_a_file_that_can_not_be_read_is_a_finding(
    tmp_path: Path,
    pool: Pool,
    guest: tuple[ImageId, dict[bytes, Seen]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image, _ = guest
    from holdfast.sources.filesystems.sandboxed import SandboxedFiles

    read = SandboxedFiles.read

    def fails(self: SandboxedFiles, entry: Entry, path: bytes) -> object:
        if entry.name == b"hosts":
            raise FilesUnreadable("vda/p1: reading it failed")
        return read(self, entry, path)

    monkeypatch.setattr(SandboxedFiles, "read", fails)
    target = tmp_path / "to"
    done = restore_paths(pool, RestoreOrder(image, (b"/vda/p1/etc",), os.fsencode(target)))
    assert [(one.path, one.severity) for one in done.findings] == [(b"/vda/p1/etc/hosts", "error")]
    assert not (target / "vda/p1/etc/hosts").exists()
    assert (target / "vda/p1/etc/empty").exists()
