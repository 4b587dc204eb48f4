"""Disks for tests: of bytes, of files, and made by the programs that people make theirs with."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

MIB = 1 << 20
_BUSY_S = 60.0


class BytesDisk:
    """A disk in memory, that counts what is read of it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)
        self.reads = 0
        self.bytes_read = 0

    def read_at(self, offset: int, length: int, /) -> bytes:
        assert offset >= 0
        assert 0 < length <= 32 * MIB, "a hostile disk asks for too much"
        self.reads += 1
        found = self.data[offset : offset + length]
        self.bytes_read += len(found)
        return found


class FileDisk:
    """A raw file as a disk; closed when its test ends it."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._fd).st_size
        self.bytes_read = 0

    def read_at(self, offset: int, length: int, /) -> bytes:
        data = os.pread(self._fd, length, offset)
        self.bytes_read += len(data)
        return data

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def need(*programs: str) -> None:
    """Skip where a program is not installed."""
    for one in programs:
        if shutil.which(one, path=f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin") is None:
            pytest.skip(f"{one} is not installed: see tests/install-system-packages")


def run(*arguments: str | Path, text: str | None = None) -> str:
    """Run a program of the system; its output."""
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin"}
    done = subprocess.run(
        [os.fspath(one) for one in arguments],
        input=text,
        capture_output=True,
        text=True,
        env={**environment, "LC_ALL": "C", "LVM_SUPPRESS_FD_WARNINGS": "1"},
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout


def blank(path: Path, size: int) -> Path:
    """A file of zeroes that takes no space."""
    with path.open("wb") as file:
        file.truncate(size)
    return path


def need_root() -> None:
    """Skip where disks can't be mounted."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk")


@contextmanager
def loop(path: Path, offset: int = 0) -> Iterator[str]:
    """A file as a block device."""
    need("losetup")
    need_root()
    device = run("losetup", "-f", "--show", "-o", str(offset), path).strip()
    try:
        yield device
    finally:
        run("losetup", "-d", device)


def _mount(path: Path, at: Path, options: tuple[str, ...]) -> None:
    """Mount a file; who was given a mount namespace meanwhile keeps it as it was mounted before."""
    until = time.monotonic() + _BUSY_S
    while True:
        try:
            run("mount", "-o", ",".join(("loop", *options)), path, at)
        except AssertionError as failed:
            if "busy" not in str(failed) or time.monotonic() > until:
                raise
        else:
            return
        time.sleep(0.5)


@contextmanager
def mounted(path: Path, at: Path, *options: str) -> Iterator[Path]:
    """A file system in a file, mounted by the kernel or by FUSE."""
    need_root()
    at.mkdir(exist_ok=True)
    if "ntfs-3g" in options:
        run("ntfs-3g", *[one for one in options if one != "ntfs-3g"], path, at)
    else:
        # not every machine knows every file system
        _mount(path, at, options)
    try:
        yield at
    finally:
        run("umount", at)


LVM_CONFIG = (
    "devices {{ scan_lvs=0 use_devicesfile=0 filter=[{filters}] }} "
    "activation {{ udev_sync=0 udev_rules=0 monitoring=0 }} backup {{ backup=0 archive=0 }}"
)


def lvm(devices: list[str], program: str, *arguments: str) -> str:
    """Run a program of LVM2 on some devices, without a device mapper."""
    filters = ",".join([*(f'"a|^{one}$|"' for one in devices), '"r|.*|"'])
    config = LVM_CONFIG.format(filters=filters)
    return run(program, "--driverloaded", "n", "--config", config, *arguments)
