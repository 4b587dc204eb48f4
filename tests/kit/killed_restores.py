"""Kill a process that makes a machine of an image, when it says that it is at a step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.wire.machine_work import MachineRestoreWork


def kill_at(work: MachineRestoreWork, step: str, *, pool: Path, cache: Path) -> None:
    """Begin the work in a process of its own, and kill that at a step of `restoring_machine`."""
    words = [os.fspath(pool), os.fspath(cache), json.dumps(work.to_json()), step]
    command = [sys.executable, "-m", "tests.kit.restoring_machine", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = child.stdout.readline().strip()
        child.send_signal(signal.SIGKILL)
    assert said == "now"
