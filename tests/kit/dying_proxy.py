"""A backup in a process of its own, that is killed at a given step.

`python -m tests.kit.dying_proxy KIND URL ORDER STEP DIRECTORY`: takes the snapshot that ORDER
(JSON) says, and kills itself at command number STEP to the hypervisor; with ``read`` instead of a
number, when all disks are read, whose content it leaves in DIRECTORY, and before the checkpoint is
kept; with ``kept``, after it is. It says the checkpoint on standard output, and leaves it in
``committed`` when the image stands.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from holdfast.sources.machines.provider import SnapshotOrder
from holdfast.sources.machines.providers import open_provider
from tests.kit.qemu import read_disk


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def count(step: int, owner: Any, names: list[str]) -> None:
    """Die at the call number `step` to any of these functions."""
    calls = 0

    def wrap(function: Any) -> Any:
        def counted(*given: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == step:
                die()
            return function(*given, **named)

        return counted

    for name in names:
        setattr(owner, name, wrap(getattr(owner, name)))


def main(kind: str, url: str, order: str, step: str, directory: Path) -> None:
    given = json.loads(order)
    given["scratch"] = Path(given["scratch"])
    provider = open_provider(kind, url)
    if step.isdigit() and kind == "qmp":
        from holdfast.sources.machines.qmp.monitor import Monitor

        count(int(step), Monitor, ["execute"])
    elif step.isdigit():
        import libvirt

        functions = ["XMLDesc", "backupBegin", "abortJob", "fsFreeze", "fsThaw", "backupGetXMLDesc"]
        count(int(step), libvirt.virDomain, functions)
    with provider.snapshot(SnapshotOrder(**given)) as snapshot:
        print(snapshot.checkpoint, flush=True)
        for disk in snapshot.disks:
            before = directory / f"{disk.name}.before"
            held = before.read_bytes() if before.exists() else None
            (directory / f"{disk.name}.read").write_bytes(read_disk(disk, held))
        if step == "read":
            die()
        (directory / "committed").write_text(str(snapshot.checkpoint))
        snapshot.keep_checkpoint()
        if step == "kept":
            die()


if __name__ == "__main__":
    kind, url, order, step, directory = sys.argv[1:]
    main(kind, url, order, step, Path(directory))
