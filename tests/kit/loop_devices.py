"""Block devices of a test's own: files that the kernel shows as disks. Takes root."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


def why_no_loop_devices() -> str | None:
    if shutil.which("losetup") is None and not Path("/usr/sbin/losetup").exists():
        return "needs losetup"
    if os.geteuid() != 0:
        return "needs root, to make loop devices"
    return None if Path("/dev/loop-control").exists() else "needs a kernel with loop devices"


_reason = why_no_loop_devices()
needs_loop_devices = pytest.mark.skipif(_reason is not None, reason=str(_reason))


@contextlib.contextmanager
def loop_device(file: Path, size: int) -> Iterator[Path]:
    """A block device of that size over a new file, for the time of the block."""
    with file.open("wb") as made:
        made.truncate(size)
    said = _losetup("--find", "--show", str(file))
    device = Path(said.strip())
    before = device.stat()
    try:
        yield device
    finally:
        _losetup("--detach", str(device))
        # libvirt gives a device to QEMU's user, and does not know whose it was.
        os.chown(device, before.st_uid, before.st_gid)
        file.unlink()


def _losetup(*words: str) -> str:
    found = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    done = subprocess.run(
        ["losetup", *words], env=found, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout
