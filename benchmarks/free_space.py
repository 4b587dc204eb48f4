"""What free space of file systems costs a backup of the disk that they are on.

    python benchmarks/free_space.py [--mib 1024] [--work DIRECTORY]

Takes root, and the tools of ext4, XFS and NTFS. On a sparse disk of each, files of noise are
written and half of them deleted; it is backed up, then trimmed, and backed up once more, each time
into a new pool. Says how much of the disk was allocated and read, and what the pool takes. A file
system that this kernel does not mount is only made. All is mounted in a mount namespace of its own:
in one that others copy meanwhile, a file system stays mounted with them, and XFS is then not
mounted a second time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from holdfast.engine import DiskInput, Pool, PoolConfig
from holdfast.sources.machines.provider import SnapshotOrder
from holdfast.sources.machines.providers import open_provider

MIB = 1 << 20
MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-F"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "ntfs": ("mkntfs", "-q", "-F", "-Q"),
}
MOUNT = {
    "ext4": ("mount",),
    "xfs": ("mount",),
    "ntfs": ("ntfs-3g",),
}


def run(*words: object) -> str:
    """Run a program; what it says."""
    found = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    command = [str(one) for one in words]
    return subprocess.run(command, check=True, env=found, stdout=subprocess.PIPE, text=True).stdout


def back_up(store: Path, disk: Path) -> dict[str, int]:
    """Back a disk file up into a new pool: what was read, and what the pool took."""
    with tempfile.TemporaryDirectory(dir=store.parent) as place:
        pool = Pool.create(place, bytes(32), PoolConfig(), 0)
        provider = open_provider("diskfiles", str(store))
        (machine,) = [one for one in provider.machines() if one.name == disk.stem]
        order = SnapshotOrder(machine.uuid, None, False, False, store, "bench")
        with provider.snapshot(order) as frozen:
            (one,) = frozen.disks
            ranges = [(each.offset, each.length, int(each.kind)) for each in one.ranges()]
            read = sum(length for _, length, kind in ranges if kind == 1)
            image = pool.backup_machine(
                files={"machine.json": b"{}"},
                disks=[DiskInput("vda", one.size, ranges, one.source(), 0)],
                source="machine:bench",
                host="bench",
                started_ns=1,
            ).result()
        files = (each for each in Path(place).rglob("*") if each.is_file())
        return {
            "allocated": read,
            "read": image.stats["bytes_read"],
            "stored": sum(each.stat().st_size for each in files),
        }


def measure(work: Path, system: str, mib: int) -> dict[str, dict[str, int]]:
    """One file system: after files were deleted, and after it was trimmed."""
    store, place = work / system, work / f"{system}.mounted"
    store.mkdir()
    place.mkdir()
    disk = store / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(mib * MIB)
    run(*MAKE[system], disk)
    found = {"new": back_up(store, disk)}
    for step in ("deleted", "trimmed"):
        device = run("losetup", "--find", "--show", disk).strip()
        try:
            run(*MOUNT[system], device, place)
        except subprocess.CalledProcessError:
            run("losetup", "--detach", device)
            return found
        try:
            if step == "deleted":
                for number in range(mib // 4):
                    (place / f"{number}").write_bytes(os.urandom(MIB))
                os.sync()
                for number in range(0, mib // 4, 2):
                    (place / f"{number}").unlink()
            else:
                run("fstrim", place)
            os.sync()
        finally:
            run("umount", place)
            run("losetup", "--detach", device)
        found[step] = back_up(store, disk)
    return found


def main() -> None:
    """Read the command line, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not given.inside:
        words = ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv]
        os.execvp("unshare", [*words, "--inside"])
    with tempfile.TemporaryDirectory(dir=given.work) as work:
        found = {one: measure(Path(work), one, given.mib) for one in MAKE}
    print(json.dumps({"disk": given.mib * MIB, "systems": found}, indent=1))


if __name__ == "__main__":
    main()
