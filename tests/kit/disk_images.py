"""Small virtual disks of every format, made by qemu's own programs, and what is in them."""

from __future__ import annotations

import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1024 * 1024
_LOCK_S = 10.0

needs_qemu = pytest.mark.skipif(
    not (shutil.which("qemu-img") and shutil.which("qemu-nbd") and shutil.which("qemu-io")),
    reason="qemu's tools are not installed (Debian's package qemu-utils)",
)
needs_nbdinfo = pytest.mark.skipif(
    not shutil.which("nbdinfo"), reason="nbdinfo is not installed (Debian's package libnbd-bin)"
)


# QEMU's lock goes with the last process that had the file open, which may be ending; and what a
# key costs can't be measured while the machine is busy.
_PASSING = ('Failed to get "write" lock', "Unable to get accurate CPU usage")


def run(*command: object) -> str:
    """Run a program that has to succeed; what it says."""
    until = time.monotonic() + _LOCK_S
    while True:
        done = subprocess.run(
            [str(one) for one in command], capture_output=True, text=True, check=False, timeout=120
        )
        if not any(said in done.stderr for said in _PASSING) or time.monotonic() > until:
            break
        time.sleep(0.05)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def create(path: Path, image_format: str, size: int, *options: str) -> Path:
    """An empty disk."""
    given = [word for option in options for word in ("-o", option)]
    run("qemu-img", "create", "-q", "-f", image_format, *given, path, size)
    return path


def overlay(path: Path, backing: Path | str, backing_format: str = "qcow2", *options: str) -> Path:
    """A qcow2 disk over another one."""
    given = [word for option in options for word in ("-o", option)]
    run(
        "qemu-img", "create", "-q", "-f", "qcow2", *given, "-b", backing, "-F", backing_format, path
    )
    return path


def write(path: Path, image_format: str, *commands: str) -> Path:
    """Write into a disk, by commands of qemu-io: ``write -P 7 1M 64k``."""
    given = [word for command in commands for word in ("-c", command)]
    run("qemu-io", "-f", image_format, *given, path)
    return path


def fill(path: Path, image_format: str, seed: int = 1) -> Path:
    """Write runs of bytes, in odd places too, and zeroes, into the first four megabytes."""
    return write(
        path,
        image_format,
        f"write -P {seed} 0 4k",
        f"write -P {seed + 1} 1M 1M",
        f"write -P {seed + 2} 3145216 1536",
        "write -z 1100k 64k",
        f"write -P {seed + 3} 4190208 512",
    )


def content(path: Path, image_format: str, into: Path, *options: str) -> bytes:
    """What is in a disk, as `qemu-img convert` reads it."""
    run("qemu-img", "convert", "-f", image_format, "-O", "raw", *options, path, into)
    return into.read_bytes()
