"""Files of an XFS in a logical volume and of a Btrfs with a subvolume, by the usual commands.

Only a kernel reads these, here that of the appliance's guest. What it tells, and what comes back,
is compared with what this machine's kernel showed while it had both mounted. Neither was brought
to rest: what was written last is in their logs alone.
"""

from __future__ import annotations

import os
import stat
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import pytest

pytest.importorskip("lxml", reason="lxml is not installed: see the extra 'vm'")

from holdfast.sources.filesystems.appliance import appliance
from tests.kit.asking import ask
from tests.kit.disks import MIB, blank, loop, mounted, need, run
from tests.kit.guest_files import Seen, fill, walked
from tests.kit.logical_volumes import EXTENT, FIRST_EXTENT, GROUP, over_all
from tests.kit.machine_images import UUID
from tests.kit.machine_providers import domain_xml
from tests.kit.served import served, until
from tests.system.virtual_machines.test_policy_to_restore import run_and_wait

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.command import Command

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not appliance.is_here(), reason="no guest: needs qemu-system-x86 and a kernel in /boot"
    ),
]

XFS = f"lvm/{GROUP}/data"
BTRFS = "vdb/fs"
EXTENTS = 78
"""XFS is made on nothing below 300 MiB."""

SINGLE = (
    "hard", "etc/hosts", "etc/empty", "etc/Grüße aus Köln.txt", "large", "sparse", "soft-long",
    "home/notes", "home/tool", "home/synced",
)  # fmt: skip
"""What is restored, each by its own path."""

NET_RAW = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
"""The capability to send raw packets, as `setcap cap_net_raw=ep` writes it."""

BOOT_S = 600.0
"""Until two guests have begun and told of everything, beside whatever else runs here."""

POLICY = """
[[policy]]
name = "estate"
type = "machines"
active = false
machines = {query = "*"}

[[policy.schedules]]
name = "nightly"
kind = "full"
every = "20h"
"""


@dataclass(frozen=True)
class Whole:
    """All that is compared of one file that comes back."""

    kind: int
    mode: int
    owner: tuple[int, int]
    times_ns: tuple[int, int]
    xattrs: dict[str, bytes]
    content: bytes | str

    @classmethod
    def of(cls, path: Path) -> Self:
        status = os.lstat(path)
        names = os.listxattr(path, follow_symlinks=False)
        return cls(
            stat.S_IFMT(status.st_mode),
            stat.S_IMODE(status.st_mode),
            (status.st_uid, status.st_gid),
            (status.st_atime_ns, status.st_mtime_ns),
            {one: os.getxattr(path, one, follow_symlinks=False) for one in names},
            os.readlink(path) if path.is_symlink() else path.read_bytes(),
        )


@dataclass(frozen=True)
class Shown:
    """What a mount showed of a file system."""

    names: dict[bytes, Seen]
    single: dict[str, Whole]


def furnish(root: Path) -> Shown:
    """Fill a file system, and tell what is in it; `home` may be there, as a subvolume."""
    fill(root)
    home = root / "home"
    home.mkdir(exist_ok=True)
    for name, data in (("notes", b"not for everybody\n"), ("tool", b"#!/bin/sh\n")):
        (home / name).write_bytes(data)
    os.chown(home / "notes", 1234, 4321)
    (home / "notes").chmod(0o640)
    run("setfacl", "-m", "u:77:rw", home / "notes")
    os.setxattr(home / "notes", "user.note", b"\0\xff, and more")
    os.utime(home / "notes", ns=(1_400_000_000_000_000_001, 1_300_000_000_999_999_999))
    (home / "tool").chmod(0o2755)
    os.setxattr(home / "tool", "security.capability", NET_RAW)
    run("sync", "-f", root)
    with (home / "synced").open("wb") as file:
        file.write(b"safe")
        file.flush()
        os.fsync(file.fileno())
    # of what is above a file that is written so, Btrfs logs the name alone
    above = os.open(home, os.O_RDONLY)
    os.fsync(above)
    os.close(above)
    return Shown(walked(root), {one: Whole.of(root / one) for one in SINGLE})


def make_xfs(disk: Path, at: Path) -> Shown:
    """An XFS in a logical volume, that went without a word."""
    blank(disk, FIRST_EXTENT + EXTENTS * EXTENT)
    begin = over_all(disk, "data")
    with loop(disk, begin) as device:
        run("mkfs.xfs", "-q", "-f", device)
    with mounted(disk, at, "noatime", f"offset={begin}") as root:
        shown = furnish(root)
        # its log is written, and nothing after that: unmounted as it is, it stays in use
        run("xfs_io", "-x", "-c", "shutdown -f", root)
    return shown


def make_btrfs(disk: Path, at: Path) -> Shown:
    """A Btrfs as it was while it was mounted, its next commit far off."""
    used = blank(disk.with_suffix(".used"), 160 * MIB)
    run("mkfs.btrfs", "-q", "-f", used)
    with mounted(used, at, "noatime", "commit=300") as root:
        run("btrfs", "subvolume", "create", root / "home")
        shown = furnish(root)
        run("cp", "--sparse=always", used, disk)
    used.unlink()
    return shown


@pytest.fixture
def guest(tmp_path: Path) -> dict[str, Shown]:
    """A machine that is off, in ``machines``; what was on its volumes, by their names."""
    need("mkfs.xfs", "mkfs.btrfs", "xfs_io", "btrfs", "setfacl", "mkfs.ext4")
    shelf = tmp_path / "machines"
    shelf.mkdir()
    disks = [shelf / "web1-vda.raw", shelf / "web1-vdb.raw"]
    at = tmp_path / "guest"
    shown = {XFS: make_xfs(disks[0], at), BTRFS: make_btrfs(disks[1], at)}
    (shelf / "web1.xml").write_text(domain_xml("web1", UUID, disks))
    return shown


def test_files_that_only_a_kernel_reads_are_found_listed_and_restored(
    site: Command, guest: dict[str, Shown], tmp_path: Path
) -> None:
    image = backed_up_and_indexed(site, tmp_path)
    for volume, shown in guest.items():
        rows = site("find", f"/{volume}/**", "--json").assert_ok().json_lines()
        assert_told(rows, volume, shown)
        assert {row["last_image"] for row in rows} == {image}
    for volume, shown in guest.items():
        words = ("ls", f"{image}:/{volume}", "--recursive", "--json")
        rows = site(*words).assert_ok().json_lines()
        assert_told(rows, volume, shown)
        nlinks = {of_row(row, volume): row["nlink"] for row in rows}
        assert nlinks == {path: seen.nlink for path, seen in shown.names.items()}
    with put_back(site, image, tmp_path) as root:
        for volume, shown in guest.items():
            found = {one: Whole.of(root / volume / one) for one in SINGLE}
            assert found == shown.single, volume
            assert (root / volume / "sparse").stat().st_blocks * 512 < MIB
            assert (root / volume / "hard").samefile(root / volume / "etc/hosts")


def backed_up_and_indexed(site: Command, tmp_path: Path) -> str:
    """Back the machine up by a policy, and wait for the index of its files; the image."""
    (tmp_path / "policy.toml").write_text(POLICY)
    with served(site) as running:
        shelf = ("--kind", "diskfiles", "--at", tmp_path / "machines")
        site("hypervisor", "add", "shelf", *shelf).assert_ok()
        site("policy", "apply", tmp_path / "policy.toml", "--yes").assert_ok()
        (done,) = run_and_wait(site, "policy", "run", "estate")
        assert done["outcome"].startswith("completed"), done

        def found() -> list[Any]:
            told = ask(site.home, "/find?pattern=soft-long")
            return told["items"] if told else []

        assert len(until(found, "the index of the files inside", BOOT_S)) == 2
        running.stop()
    (row,) = site("images", "--json").assert_ok().json_lines()
    assert (row["id"], row["files_inside"]) == (done["image_id"], "indexed")
    assert row["files_inside_detail"] is None
    return str(row["id"])


def of_row(row: dict[str, Any], volume: str) -> bytes:
    """Where in its volume a file is that is told of."""
    return os.fsencode(row["path"]).removeprefix(f"/{volume}".encode())


def assert_told(rows: list[dict[str, Any]], volume: str, shown: Shown) -> None:
    """Every name of a volume is told of once, as the mount showed it."""
    told = {
        of_row(row, volume): (
            row["kind"], row["mode"], row["uid"], row["gid"], row["mtime_ns"],
            row["size"] if row["kind"] == "file" else None,
        )
        for row in rows
    }  # fmt: skip
    assert len(told) == len(rows)
    assert told == {
        path: (
            seen.kind, f"{seen.mode:04o}", seen.uid, seen.gid, seen.mtime_ns,
            seen.size if seen.kind == "file" else None,
        )
        for path, seen in shown.names.items()
    }  # fmt: skip


@contextmanager
def put_back(site: Command, image: str, tmp_path: Path) -> Iterator[Path]:
    """The single files, restored onto an ext4, which holds whatever they had."""
    disk = blank(tmp_path / "target", 64 * MIB)
    run("mkfs.ext4", "-q", "-F", "-I", "256", disk)
    with mounted(disk, tmp_path / "back", "noatime") as root:
        first, *others = (f"/{volume}/{one}" for volume in (XFS, BTRFS) for one in SINGLE)
        words = ("restore", f"{image}:{first}", *others, "--verify", "--json")
        told = site(*words, "--to", root / "to").assert_ok().json()
        assert told["findings_total"] == 0, told["findings"]
        # of two names of a file one is verified, and links have no bytes
        assert (told["files"], told["verified_files"]) == (2 * len(SINGLE), 2 * len(SINGLE) - 4)
        yield root / "to"
