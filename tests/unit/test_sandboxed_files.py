"""Files on disks are told by the worker as a mount of the same disk shows them."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.base.errors import IntegrityError, Unsupported
from holdfast.sources.filesystems.entries import DIRECTORY, FilesUnreadable
from holdfast.sources.filesystems.recognise import recognise
from holdfast.sources.filesystems.sandboxed import Limits, SandboxedFiles
from tests.kit.disks import MIB, BytesDisk, FileDisk, blank, loop, mounted, need, run
from tests.kit.guest_files import content, fill, told, walked

pytest.importorskip("pytsk3", reason="pytsk3 is not installed: see the extra 'vm'")

EXT = [
    ("ext2", ["mkfs.ext2"]),
    ("ext3", ["mkfs.ext3"]),
    ("ext4", ["mkfs.ext4"]),
    ("ext4-1k-inline", ["mkfs.ext4", "-b", "1024", "-I", "256", "-O", "inline_data"]),
    ("ext4-old-inodes", ["mkfs.ext4", "-I", "128", "-O", "^metadata_csum,^64bit"]),
]


@pytest.mark.parametrize(("name", "command"), EXT, ids=[one[0] for one in EXT])
def test_an_ext_is_told_as_the_kernel_shows_it(
    tmp_path: Path, name: str, command: list[str]
) -> None:
    need(command[0])
    path = blank(tmp_path / "disk", 48 * MIB)
    run(*command, "-q", "-F", path)
    with mounted(path, tmp_path / "mnt") as at:
        fill(at)
    with mounted(path, tmp_path / "mnt", "ro") as at:
        expected = walked(at)
    with FileDisk(path) as disk, SandboxedFiles(disk, recognise(disk).kind, "vda/fs") as files:
        found = told(files)
        assert found.keys() == expected.keys()
        for one, seen in expected.items():
            if name in ("ext2", "ext3"):
                # what reads them knows their times in seconds only
                assert found[one].mtime_ns == seen.mtime_ns // 10**9 * 10**9
                found[one] = replace(found[one], mtime_ns=seen.mtime_ns)
            assert found[one] == seen, one
        assert files.remarks == []


def test_an_ntfs_is_told_as_ntfs_3g_shows_it(tmp_path: Path) -> None:
    need("mkfs.ntfs", "ntfs-3g")
    path = blank(tmp_path / "disk", 48 * MIB)
    run("mkfs.ntfs", "-q", "-Q", "-F", path)
    with mounted(path, tmp_path / "mnt", "ntfs-3g", "-o", "streams_interface=windows") as at:
        fill(at, plain_names=True)
        (at / "plain").write_bytes(b"first")
        (at / "plain:second").write_bytes(b"hidden" * 1000)
        (at / "many:of a directory").write_bytes(b"x")
        expected = walked(at)
    with FileDisk(path) as disk, SandboxedFiles(disk, "ntfs", "vda/fs") as files:
        found = told(files)
        assert found.keys() == expected.keys()
        for one, seen in expected.items():
            # rights are not those of Linux, and links of directories are counted otherwise
            mode, nlink = found[one].mode, found[one].nlink
            assert found[one] == replace(seen, mode=mode, uid=0, gid=0, nlink=nlink), one
            assert seen.kind == "dir" or nlink == seen.nlink
        streams = told(files, streams=True)
        assert streams.keys() - found.keys() == {b"/plain:second", b"/many:of a directory"}
        assert streams[b"/plain:second"].content == b"hidden" * 1000


def test_what_ntfs_knows_of_a_file_is_told(tmp_path: Path) -> None:
    need("mkfs.ntfs", "ntfs-3g")
    path = blank(tmp_path / "disk", 16 * MIB)
    run("mkfs.ntfs", "-q", "-Q", "-F", path)
    with mounted(path, tmp_path / "mnt", "ntfs-3g", "-o", "compression") as at:
        (at / "hidden").write_bytes(b"x")
        os.setxattr(at / "hidden", "system.ntfs_attrib_be", (0x23).to_bytes(4, "big"))
        os.mkdir(at / "small")
        os.setxattr(at / "small", "system.ntfs_attrib_be", (0x800).to_bytes(4, "big"))
        (at / "small" / "text").write_bytes(b"again and again " * 50_000)
    with FileDisk(path) as disk, SandboxedFiles(disk, "ntfs", "vda/fs") as files:
        assert files.details(files.entry(b"/hidden"), b"/hidden").dos & 0xFF == 0x23
        compressed = files.entry(b"/small/text")
        assert content(files, compressed, b"/small/text") == b"again and again " * 50_000


@pytest.mark.parametrize("kind", ["12", "16", "32"])
def test_a_fat_is_told_as_mtools_wrote_it(tmp_path: Path, kind: str) -> None:
    need("mkfs.vfat", "mcopy", "mmd", "mdel")
    path = blank(tmp_path / "disk", {"12": 4, "16": 32, "32": 64}[kind] * MIB)
    run("mkfs.vfat", "-F", kind, "-n", "LABEL", path)
    source = tmp_path / "A long name.txt"
    source.write_bytes(os.urandom(70_000))
    run("mmd", "-i", path, "::sub", "::sub/below")
    run("mcopy", "-m", "-i", path, source, "::sub/below/")
    run("mcopy", "-i", path, source, "::gone")
    run("mdel", "-i", path, "::gone")
    with FileDisk(path) as disk, SandboxedFiles(disk, recognise(disk).kind, "vda/fs") as files:
        found = told(files)
    assert found.keys() == {b"/sub", b"/sub/below", b"/sub/below/A long name.txt"}
    file = found[b"/sub/below/A long name.txt"]
    assert file.content == source.read_bytes()
    assert abs(file.mtime_ns - source.stat().st_mtime_ns) <= 2_000_000_000 + 26 * 3600 * 10**9


def test_an_exfat_is_told_as_a_mount_shows_it(tmp_path: Path) -> None:
    need("mkfs.exfat", "mount.exfat-fuse")
    path = blank(tmp_path / "disk", 64 * MIB)
    run("mkfs.exfat", "-L", "LABEL", path)
    at = tmp_path / "mnt"
    at.mkdir()
    if not os.path.exists("/dev/fuse"):
        pytest.skip("this machine has no /dev/fuse")
    with loop(path) as device:
        run("mount.exfat-fuse", device, at)
        try:
            os.makedirs(at / "sub" / "below" / "deepest")
            (at / "sub/A long name, as long as names may be here.txt").write_bytes(
                os.urandom(70_000)
            )
            (at / "sub/below/Grüße 日本語").write_bytes(b"wide")
            (at / "empty").write_bytes(b"")
            (at / "large").write_bytes(os.urandom(5_000_000))
            # in pieces: two files that grow in turn
            with (at / "one").open("wb") as one, (at / "other").open("wb") as other:
                for _ in range(40):
                    for file in (one, other):
                        file.write(os.urandom(20_000))
                        file.flush()
                        os.fsync(file.fileno())
            (at / "gone").write_bytes(b"deleted")
            os.mkdir(at / "many")
            for number in range(600):
                (at / "many" / f"file-{number:05d}").write_bytes(b"%d" % number)
            for number in range(0, 600, 3):
                (at / "many" / f"file-{number:05d}").unlink()
            (at / "gone").unlink()
            expected = walked(at)
        finally:
            run("umount", at)
    with FileDisk(path) as disk:
        assert recognise(disk).kind == "exfat"
        with SandboxedFiles(disk, "exfat", "vda/fs") as files:
            found = told(files)
            assert files.remarks == []
    assert found.keys() == expected.keys()
    for name, seen in expected.items():
        assert (found[name].kind, found[name].content) == (seen.kind, seen.content), name
        if seen.kind == "file":
            assert found[name].size == seen.size
            # written in the time of a zone that it does not tell
            assert abs(found[name].mtime_ns - seen.mtime_ns) <= 2_000_000_000 + 26 * 3600 * 10**9


def test_paths_are_found_and_directories_told_alone(tmp_path: Path) -> None:
    with made_ext4(tmp_path) as disk, SandboxedFiles(disk, "ext4", "vda/fs") as files:
        assert files.entry(b"/").kind == DIRECTORY
        assert content(files, files.entry(b"/etc/hosts"), b"/etc/hosts") == b"127.0.0.1 localhost\n"
        below = [
            (batch.directories[one.directory], one.name)
            for batch in files.tree(b"/etc/deep")
            for one in batch.entries
        ]
        assert below == [
            (b"/etc/deep", b"deeper"),
            (b"/etc/deep/deeper", b"deepest"),
            (b"/etc/deep/deeper/deepest", b"file"),
        ]
        for wrong in (b"/etc/nothing", b"/etc/hosts/below", b"/nothing/at/all"):
            with pytest.raises(KeyError):
                files.entry(wrong)
        # who stops in the middle may ask again
        next(iter(files.tree()))
        assert files.entry(b"/etc/hosts").size == 20


@pytest.mark.parametrize("kind", ["ext4", "ntfs"])
def test_parts_of_files_are_read_here_and_there(tmp_path: Path, kind: str) -> None:
    need(f"mkfs.{kind}", *(["ntfs-3g"] if kind == "ntfs" else []))
    path = blank(tmp_path / "disk", 32 * MIB)
    run(f"mkfs.{kind}", "-q", "-F", *(["-Q"] if kind == "ntfs" else []), path)
    how = ("ntfs-3g", "-o", "compression") if kind == "ntfs" else ()
    rng = random.Random(7)
    with mounted(path, tmp_path / "mnt", *how) as at:
        if kind == "ntfs":
            os.setxattr(at, "system.ntfs_attrib_be", (0x800).to_bytes(4, "big"))
        fill(at, plain_names=True)
        (at / "text").write_bytes(b"again and again " * 90_000)
        with (at / "torn").open("wb") as file:
            for place in rng.sample(range(400), 60):
                file.seek(place * 16384)
                file.write(rng.randbytes(5000))
        expected = {name: (at / name).read_bytes() for name in ("large", "sparse", "torn", "text")}
        expected["hosts"] = (at / "etc/hosts").read_bytes()
    with FileDisk(path) as disk, SandboxedFiles(disk, kind, "vda/fs") as files:
        for name, whole in expected.items():
            path_there = b"/etc/hosts" if name == "hosts" else b"/" + name.encode()
            entry = files.entry(path_there)
            for _ in range(40):
                begin = rng.randrange(len(whole) + 10)
                length = rng.choice((1, 4096, 100_000, 9 << 20))
                at_most = whole[begin : begin + min(length, 8 << 20)]
                assert files.piece(entry, path_there, begin, length) == at_most, (
                    name,
                    begin,
                    length,
                )
        # two files in turn
        one, other = files.entry(b"/large"), files.entry(b"/torn")
        for begin in range(0, 1 << 20, 1 << 17):
            assert files.piece(one, b"/large", begin, 99) == expected["large"][begin : begin + 99]
            assert files.piece(other, b"/torn", begin, 99) == expected["torn"][begin : begin + 99]


def made_ext4(tmp_path: Path) -> FileDisk:
    need("mkfs.ext4")
    path = blank(tmp_path / "disk", 32 * MIB)
    run("mkfs.ext4", "-q", "-F", path)
    with mounted(path, tmp_path / "mnt") as at:
        fill(at)
    return FileDisk(path)


class Damaged:
    """A disk some of whose bytes are others."""

    def __init__(self, disk: FileDisk, seed: int) -> None:
        rng = random.Random(seed)
        self.size = disk.size if seed % 3 else disk.size // rng.randint(2, 9)
        data = bytearray(disk.read_at(0, self.size))
        used = [at for at in range(0, self.size, 1024) if any(data[at : at + 1024])]
        for _ in range(200):
            at = rng.choice(used) + rng.randrange(1024)
            # what tells the file system stays, for it to be read at all
            if not 1024 + 24 <= at < 1024 + 128 and at < self.size:
                data[at] = rng.randrange(256)
        self._data = bytes(data)

    def read_at(self, offset: int, length: int, /) -> bytes:
        return self._data[offset : min(offset + length, self.size)]


@pytest.mark.parametrize("kind", ["ext4", "ntfs"])
def test_a_damaged_file_system_never_harms_who_reads_it(tmp_path: Path, kind: str) -> None:
    need(f"mkfs.{kind}")
    path = blank(tmp_path / "disk", 16 * MIB)
    run(f"mkfs.{kind}", "-q", "-F", *(["-Q"] if kind == "ntfs" else []), path)
    how = ("ntfs-3g",) if kind == "ntfs" else ()
    with mounted(path, tmp_path / "mnt", *how) as at:
        fill(at, plain_names=True)
    read = failed = 0
    with FileDisk(path) as disk:
        for seed in range(12):
            limits = Limits(memory_bytes=1 << 30, cpu_s=20, patience_s=20)
            with SandboxedFiles(Damaged(disk, seed), kind, "vda/fs", limits) as files:
                try:
                    entries = [one for batch in files.tree() for one in batch.entries]
                except FilesUnreadable:
                    failed += 1
                    continue
                for one in entries[:: len(entries) // 20 + 1]:
                    try:
                        for _ in files.read(one, one.name):
                            read += 1
                    except FilesUnreadable:
                        failed += 1
    assert read > 0


def test_a_directory_that_holds_itself_comes_to_an_end(tmp_path: Path) -> None:
    need("mkfs.ext4", "debugfs")
    path = blank(tmp_path / "disk", 16 * MIB)
    run("mkfs.ext4", "-q", "-F", "-O", "^metadata_csum,^dir_index", path)
    for command in ("mkdir /a", "mkdir /a/b", "link /a /a/b/up", "link /a/b /a/again"):
        run("debugfs", "-w", "-R", command, path)
    with FileDisk(path) as disk, SandboxedFiles(disk, "ext4", "vda/fs") as files:
        seen = [
            batch.directories[one.directory].rstrip(b"/") + b"/" + one.name
            for batch in files.tree()
            for one in batch.entries
        ]
    assert {b"/a", b"/a/b", b"/a/b/up"} <= set(seen)
    assert len(seen) < 20


def test_a_file_that_says_it_is_larger_than_all_disks_costs_no_space(tmp_path: Path) -> None:
    need("mkfs.ext4", "debugfs")
    path = blank(tmp_path / "disk", 16 * MIB)
    run("mkfs.ext4", "-q", "-F", "-O", "^metadata_csum", path)
    (tmp_path / "small").write_bytes(b"here")
    run("debugfs", "-w", "-R", f"write {tmp_path / 'small'} absurd", path)
    run("debugfs", "-w", "-R", "set_inode_field absurd size 0x3ffffffffff", path)
    limits = Limits(memory_bytes=1 << 30, cpu_s=20, patience_s=20)
    with FileDisk(path) as disk, SandboxedFiles(disk, "ext4", "vda/fs", limits) as files:
        entry = files.entry(b"/absurd")
        assert entry.size == 0x3FFFFFFFFFF
        got = 0
        try:
            for _, data in files.read(entry, b"/absurd"):
                got += len(data)
        except FilesUnreadable:
            pass
        assert got < 16 * MIB
        assert files.piece(entry, b"/absurd", 1 << 40, 4096) == bytes(4096)
        assert files.piece(entry, b"/absurd", 0, 4) == b"here"


def test_a_file_system_that_is_cut_off_is_told(tmp_path: Path) -> None:
    need("mkfs.ext4", "mkfs.ntfs", "mkfs.vfat")
    for kind, command in {
        "ext4": ("mkfs.ext4", "-q", "-F"),
        "ntfs": ("mkfs.ntfs", "-q", "-Q", "-F"),
        "fat32": ("mkfs.vfat", "-F", "32"),
    }.items():
        path = blank(tmp_path / kind, 64 * MIB)
        run(*command, path)
        os.truncate(path, 40_000)
        with FileDisk(path) as disk, SandboxedFiles(disk, kind, "vda/fs") as files:
            try:
                entries = [one for batch in files.tree() for one in batch.entries]
            except FilesUnreadable as error:
                assert "vda/fs" in str(error)  # noqa: PT017 - either is right
            else:
                assert entries == [] or files.remarks


def test_a_worker_that_dies_costs_one_question(tmp_path: Path) -> None:
    with made_ext4(tmp_path) as disk, SandboxedFiles(disk, "ext4", "vda/fs") as files:
        list(files.tree())
        assert files._process is not None
        files._process.kill()
        with pytest.raises(FilesUnreadable, match="signal 9"):
            list(files.tree())
        assert files.entry(b"/etc/hosts").size == 20


class Failing:
    """A disk that can't be read from some moment on."""

    def __init__(self, disk: FileDisk, error: Exception) -> None:
        self.size = disk.size
        self._disk = disk
        self._error = error
        self.left = 3

    def read_at(self, offset: int, length: int, /) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise self._error
        return self._disk.read_at(offset, length)


def test_an_error_of_the_disk_comes_out_as_it_is(tmp_path: Path) -> None:
    with made_ext4(tmp_path) as disk:
        failing = Failing(disk, IntegrityError("a chunk is not what it was"))
        with SandboxedFiles(failing, "ext4", "vda/fs") as files:
            with pytest.raises(IntegrityError):
                list(files.tree())
            failing.left = 1000
            assert files.entry(b"/etc/hosts").size == 20


def test_a_worker_that_says_nothing_new_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "worker.py"
    script.write_text(
        "import os, sys, time\n"
        "os.write(int(sys.argv[1]), bytes([20, 0, 0, 0, 0]))\n"
        "time.sleep(600)\n"
    )
    fake_worker(monkeypatch, script)
    began = time.monotonic()
    with SandboxedFiles(BytesDisk(bytes(MIB)), "ext4", "v", Limits(patience_s=1.0)) as files:
        with pytest.raises(FilesUnreadable, match="took too long"):
            files.entry(b"/x")
        assert files._process is None
    assert time.monotonic() - began < 60


def fake_worker(monkeypatch: pytest.MonkeyPatch, script: Path) -> None:
    popen = subprocess.Popen

    def start(command: list[str], **more: object) -> object:
        return popen([sys.executable, str(script), *command[4:]], **more)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", start)


NONSENSE = {
    "a frame of no kind": b"\x63\x00\x00\x00\x00",
    "a frame without end": b"\x11\xff\xff\xff\xff",
    "rows that are none": b"\x11\x04\x00\x00\x00\xff\xff\xff\xff",
    "a question for too much": b"\x10\x0c\x00\x00\x00" + bytes(8) + b"\xff\xff\xff\xff",
    "an end": b"",
}


@pytest.mark.parametrize("said", NONSENSE.values(), ids=NONSENSE.keys())
def test_a_worker_that_talks_nonsense_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    script = tmp_path / "worker.py"
    done = bytes([20, 0, 0, 0, 0])
    script.write_text(f"import os, sys\nos.write(int(sys.argv[1]), {done + done + said!r})\n")
    fake_worker(monkeypatch, script)
    with (
        SandboxedFiles(BytesDisk(bytes(MIB)), "ext4", "v", Limits(patience_s=20.0)) as files,
        pytest.raises(FilesUnreadable),
    ):
        list(files.tree())


def test_without_what_reads_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "worker.py"
    script.write_text("import os, sys\nos.write(int(sys.argv[1]), bytes([21, 0, 0, 0, 0]))\n")
    fake_worker(monkeypatch, script)
    with (
        SandboxedFiles(BytesDisk(bytes(MIB)), "ext4", "v") as files,
        pytest.raises(Unsupported) as caught,
    ):
        list(files.tree())
    assert "holdfast[vm]" in str(caught.value.hint)


INSIDE = """
import os, socket, sys
from holdfast.sources.filesystems import sandbox
sandbox.confine(memory_bytes=1 << 30, cpu_s=60)
tries = {
    "open": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "write": lambda: os.open("/tmp/sandbox-was-here", os.O_CREAT | os.O_WRONLY),
    "connect": lambda: socket.socket(),
    "fork": lambda: os.fork(),
    "run": lambda: os.execv("/bin/true", ["true"]),
    "kill": lambda: os.kill(os.getppid(), 0),
    "look": lambda: os.stat("/"),
    "rights": lambda: os.setuid(0),
}
done = []
for name, attempt in tries.items():
    try:
        attempt()
    except OSError:
        continue
    done.append(name)
try:
    bytearray(4 << 30)
except MemoryError:
    pass
else:
    done.append("memory")
os.write(1, (",".join(done) or "nothing").encode())
os._exit(0)
"""


def test_nothing_can_be_done_in_the_sandbox() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INSIDE], capture_output=True, check=False, timeout=60
    )
    assert done.stdout == b"nothing", done.stderr.decode()
