"""A directory of a million names: backed up, found unchanged, brought back."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.command import Command

COUNT = 1_000_000
# tmpfs takes about 1 KiB of memory for each file; the command and this test take some as well.
MEMORY_BYTES = 3 << 30


def mtime_ns(number: int) -> int:
    """The time of a file, different in seconds and in nanoseconds for each."""
    return number * 1_000_000_007


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    """A directory with room for that many files: in memory if that is possible, which is quick."""
    places = [tmp_path, Path("/dev/shm")] if _available_bytes() >= MEMORY_BYTES else [tmp_path]
    while places:
        place = places.pop()
        if place.is_dir() and os.access(place, os.W_OK) and _takes(place, COUNT + 10_000):
            break
    else:
        pytest.skip(f"no room for {COUNT:,} files in /dev/shm or in {tmp_path}")
    made = tempfile.mkdtemp(prefix="holdfast-test-", dir=place)
    yield Path(made)
    # Several times as quick as shutil.rmtree.
    subprocess.run(["rm", "-rf", made], check=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_directory_of_a_million_files_comes_back_with_names_and_times(
    site: Command, room: Path
) -> None:
    tree, back = room / "tree", room / "back"
    tree.mkdir()
    fill(tree)
    first = site("backup", tree, "--json").assert_ok().json()
    second = site("backup", tree, "--json").assert_ok().json()
    assert first["findings"] == second["findings"] == []
    assert first["stats"]["files"] == second["stats"]["files"] == COUNT
    assert second["stats"]["files_changed"] == 0
    assert second["stats"]["bytes_new"] < 10_000

    # What was there is known, so that there need not be room for two of them.
    subprocess.run(["rm", "-rf", tree], check=True)
    restored = site("restore", "latest", "--to", back, "--json").assert_ok().json()
    assert restored["findings_total"] == 0
    assert_filled(Path(f"{back}{tree}"))


def fill(directory: Path) -> None:
    inside = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for number in range(COUNT):
            name = f"{number:07}"
            os.mknod(name, stat.S_IFREG | 0o600, dir_fd=inside)
            os.utime(name, ns=(0, mtime_ns(number)), dir_fd=inside)
    finally:
        os.close(inside)


def assert_filled(directory: Path) -> None:
    seen = bytearray(COUNT)
    kinds = set()
    with os.scandir(directory) as entries:
        for entry in entries:
            found, number = entry.stat(follow_symlinks=False), int(entry.name)
            assert found.st_mtime_ns == mtime_ns(number), entry.name
            assert entry.name == f"{number:07}"
            seen[number] += 1
            kinds.add((stat.filemode(found.st_mode), found.st_size))
    assert seen.count(1) == COUNT
    assert kinds == {("-rw-------", 0)}


def _takes(place: Path, files: int) -> bool:
    found = os.statvfs(place)
    # A file system that makes inodes when it needs them says that it has none.
    return (found.f_files == 0 or found.f_favail >= files) and (
        found.f_bavail * found.f_frsize >= 1 << 30
    )


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0
