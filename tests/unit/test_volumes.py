"""What lies on disks is told by name, and what can't be read is told with the reason."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from holdfast.sources.filesystems.recognise import State, recognise
from holdfast.sources.filesystems.volumes import look
from tests.kit.disks import MIB, BytesDisk, FileDisk, blank, mounted, need, need_root, run

MADE = [
    ("ext2", ["mkfs.ext2", "-q", "-F", "-L", "name"], 8),
    ("ext3", ["mkfs.ext3", "-q", "-F", "-L", "name"], 16),
    ("ext4", ["mkfs.ext4", "-q", "-F", "-L", "name"], 16),
    ("xfs", ["mkfs.xfs", "-q", "-f", "-L", "name"], 320),
    ("btrfs", ["mkfs.btrfs", "-q", "-f", "-L", "name"], 128),
    ("ntfs", ["mkfs.ntfs", "-q", "-Q", "-F", "-L", "name"], 16),
    ("fat12", ["mkfs.vfat", "-F", "12", "-n", "NAME"], 4),
    ("fat16", ["mkfs.vfat", "-F", "16", "-n", "NAME"], 32),
    ("fat32", ["mkfs.vfat", "-F", "32", "-n", "NAME"], 64),
    ("exfat", ["mkfs.exfat"], 16),
    ("swap", ["mkswap", "-q", "-L", "name"], 8),
]


@pytest.mark.parametrize(("kind", "command", "size"), MADE, ids=[one[0] for one in MADE])
def test_a_file_system_is_told_from_the_others(
    tmp_path: Path, kind: str, command: list[str], size: int
) -> None:
    need(command[0])
    path = blank(tmp_path / "disk", size * MIB)
    run(*command, path)
    with FileDisk(path) as disk:
        found = recognise(disk)
        layout = look({"vda": disk})
    assert found.kind == kind
    assert found.label.lower() == ("" if kind == "exfat" else "name")
    assert found.state is (State.UNKNOWN if kind == "xfs" else State.CLEAN)
    said = run("blkid", "-p", "-o", "value", "-s", "UUID", path).strip()
    assert found.uuid == said
    # a boot sector is no table of partitions, though it ends as one
    assert [one.name for one in layout.volumes] == ["vda/fs"]
    assert layout.volumes[0].holds_files == (kind != "swap")
    assert layout.remarks == ()


def test_an_encrypted_volume_is_named(tmp_path: Path) -> None:
    need("cryptsetup")
    path = blank(tmp_path / "disk", 32 * MIB)
    subprocess.run(
        ["/usr/sbin/cryptsetup", "luksFormat", "-q", "--pbkdf", "pbkdf2",
         "--pbkdf-force-iterations", "1000", str(path)],
        input=b"secret", check=True, capture_output=True,
    )  # fmt: skip
    with FileDisk(path) as disk:
        layout = look({"sda": disk})
    assert [one.files.kind for one in layout.volumes] == ["luks"]
    assert [(one.code, one.about) for one in layout.remarks] == [("volume-encrypted", "sda/fs")]
    bitlocker = bytearray(MIB)
    bitlocker[:11] = b"\xeb\x58\x90-FVE-FS-"
    bitlocker[510:512] = b"\x55\xaa"
    assert recognise(BytesDisk(bytes(bitlocker))).kind == "bitlocker"


@pytest.mark.parametrize(("data", "kind"), [(bytes(MIB), "empty"), (b"\x5a" * MIB, "unknown")])
def test_what_is_not_known_is_said_to_be(data: bytes, kind: str) -> None:
    layout = look({"vda": BytesDisk(data)})
    assert [one.files.kind for one in layout.volumes] == [kind]
    assert [one.code for one in layout.remarks] == (
        ["volume-not-read"] if kind == "unknown" else []
    )


def test_a_file_system_in_use_needs_its_journal(tmp_path: Path) -> None:
    need("mkfs.ext4")
    need_root()
    path = blank(tmp_path / "disk", 16 * MIB)
    run("mkfs.ext4", "-q", "-F", path)
    with mounted(path, tmp_path / "mnt") as at:
        (at / "file").write_text("x")
        run("sync")
        with FileDisk(path) as disk:
            layout = look({"vda": disk})
    assert layout.volumes[0].files.state is State.NEEDS_REPLAY
    assert [one.code for one in layout.remarks] == ["needs-replay"]


def test_an_ntfs_that_was_not_brought_to_rest_says_so(tmp_path: Path) -> None:
    need("mkfs.ntfs")
    path = blank(tmp_path / "disk", 16 * MIB)
    run("mkfs.ntfs", "-q", "-Q", "-F", path)
    data = bytearray(path.read_bytes())
    cluster = int.from_bytes(data[11:13], "little") * data[13]
    table = int.from_bytes(data[48:56], "little") * cluster
    information = data.index(b"\x70\0\0\0", table + 3 * 1024)
    data[information + 24 + 10] |= 1
    assert recognise(BytesDisk(bytes(data))).state is State.DIRTY
    log = data.index(b"\xff" * 4096)
    page = bytearray(4096)
    page[:8] = b"RSTR\x1e\x00\x09\x00"
    page[24:26] = (0x30).to_bytes(2, "little")
    for sector in range(8):
        page[sector * 512 + 510 : sector * 512 + 512] = page[30:32]
    data[log : log + 4096] = page
    assert recognise(BytesDisk(bytes(data))).state is State.NEEDS_REPLAY
    # nobody here replays it, which is told, with what it means
    (said,) = look({"sda": BytesDisk(bytes(data))}).remarks
    assert (said.severity, said.code, said.about) == ("warning", "not-replayed", "sda/fs")
    assert "newest changes may be missing" in said.message


def test_volumes_of_several_disks_have_names_that_stay(tmp_path: Path) -> None:
    need("sfdisk", "mkfs.ext4", "mkfs.vfat")
    first = blank(tmp_path / "first", 64 * MIB)
    run("sfdisk", "--quiet", first, text="label: gpt\nsize=16M\n3: size=20M\n")
    run("mkfs.vfat", "-F", "16", "--offset", "2048", first, "16384")
    run("mkfs.ext4", "-q", "-F", "-E", f"offset={17 * MIB}", first, "20M")
    second = blank(tmp_path / "second", 16 * MIB)
    run("mkfs.ext4", "-q", "-F", second)
    with FileDisk(first) as one, FileDisk(second) as other:
        layout = look({"vda": one, "vdb": other, "lvm": other})
    assert [(one.name, one.files.kind) for one in layout.volumes] == [
        ("vda/p1", "fat16"), ("vda/p3", "ext4"), ("vdb/fs", "ext4"),
    ]  # fmt: skip
    assert [one.code for one in layout.remarks] == ["disk-name"]
