"""Backups in processes of their own, each killed at a given step.

`python -m tests.kit.dying_proxy` reads an order a line, and answers each with how its process
ended: ``[KIND, URL, ORDER, STEP, DIRECTORY]``, JSON. The process is a fork of one that has imported
all that a proxy does, and has no thread and no connection. It takes the snapshot that ORDER says,
and kills itself at call number STEP to the hypervisor, with other words instead of a number:

- ``frozen``: when the guest stands still, and before it is woken;
- ``begun``: when the snapshot is made, and before the guest is woken;
- ``read``: when all disks are read, and before the checkpoint is kept;
- ``kept``: after it is.

An ORDER that says ``trial`` is not one for a snapshot: the machine is tried out.

It leaves what the disks held in DIRECTORY, what it says in ``said``: the checkpoint; and the
checkpoint in ``committed`` when the image stands.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from holdfast.sources.machines.provider import SnapshotOrder
from holdfast.sources.machines.providers import open_provider
from tests.kit.qemu import read_disk

_ASKS_NOBODY = {"connect", "getName", "name", "UUIDString"}
"""What libvirt's library knows by itself."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Counter:
    """Dies at one of the calls of the backup itself; what its threads ask is not in their order."""

    def __init__(self, step: int) -> None:
        self._step = step
        self._calls = 0

    def watch(self, owner: Any, names: Iterable[str]) -> None:
        for name in names:
            setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, function: Any) -> Any:
        def counted(*given: Any, **named: Any) -> Any:
            if threading.current_thread() is threading.main_thread():
                self._calls += 1
                if self._calls == self._step:
                    die()
            return function(*given, **named)

        return counted


def die_at_call(kind: str, step: int) -> None:
    """Count every command of QMP, or every call of libvirt's library that asks libvirtd."""
    counter = Counter(step)
    if kind == "qmp":
        from holdfast.sources.machines.qmp.monitor import Monitor

        counter.watch(Monitor, ["execute"])
        return
    import libvirt

    counter.watch(libvirt, ["openAuth"])
    for owner in (
        libvirt.virConnect,
        libvirt.virDomain,
        libvirt.virDomainCheckpoint,
        libvirt.virStoragePool,
        libvirt.virStorageVol,
    ):
        calls = {name for name, one in vars(owner).items() if callable(one) and name[0] != "_"}
        counter.watch(owner, sorted(calls - _ASKS_NOBODY))


def die_around_thaw(step: str) -> None:
    """Die as soon as a guest of libvirt stands still, or when it is to be woken."""
    import libvirt

    freeze = libvirt.virDomain.fsFreeze

    def frozen(*given: Any) -> Any:
        print(f"stands still: {freeze(*given)} file systems", flush=True)
        if step == "frozen":
            die()

    libvirt.virDomain.fsFreeze = frozen
    libvirt.virDomain.fsThaw = lambda *_: die()


def back_up(kind: str, url: str, order: dict[str, Any], step: str, directory: Path) -> None:
    order["scratch"] = Path(order["scratch"])
    provider = open_provider(kind, url)
    if step.isdigit():
        die_at_call(kind, int(step))
    elif step in ("frozen", "begun"):
        die_around_thaw(step)
    if order.pop("trial", False):
        print(provider.try_out(order["uuid"], order["scratch"]), flush=True)
        return
    with provider.snapshot(SnapshotOrder(**order)) as snapshot:
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


def forked(given: list[Any]) -> int:
    """How a process ends that makes a backup: its status, or minus the signal."""
    kind, url, order, step, directory = given
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        # Not a pipe: what outlives the proxy would hold it open.
        said = os.open(Path(directory, "said"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        back_up(kind, url, order, step, Path(directory))
        status = 0
    finally:
        if status:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(status)


def main() -> None:
    for one in ("qmp", "libvirt.provider"):
        with contextlib.suppress(ImportError):  # one that can't be had here is skipped
            importlib.import_module(f"holdfast.sources.machines.{one}")
    for line in sys.stdin:
        print(forked(json.loads(line)), flush=True)


if __name__ == "__main__":
    main()
