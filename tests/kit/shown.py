"""An image that is mounted by the real command."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.kit.disks import run
from tests.kit.served import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.command import Command


@contextlib.contextmanager
def shown(site: Command, at: Path, *words: str) -> Iterator[Path]:
    """An image that is mounted while the block lasts; what was said is in ``said`` beside it."""
    if not os.path.exists("/dev/fuse"):
        pytest.skip("this machine has no /dev/fuse")
    at.mkdir()
    log = at.parent / "said"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "holdfast", "mount", *words, str(at)],
            env=site.environment(),
            stdout=said,
            stderr=said,
        )
    try:
        until(lambda: os.path.ismount(at) or process.poll() is not None, "the mount", 120)
        assert process.poll() is None, log.read_text()
        yield at
    finally:
        if os.path.ismount(at):
            run("umount", at)
        assert process.wait(60) == 0, log.read_text()
