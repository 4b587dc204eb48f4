"""A directory of disk files as a hypervisor is: machines that are off, backed up and restored.

Must not start a machine. Incrementals read everything: files tell no changes.
"""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

from holdfast.base.errors import Unsupported
from holdfast.sources.machines import trimming
from holdfast.sources.machines.diskfiles import frozen, restoring
from holdfast.sources.machines.overlays import RunsNoImages
from holdfast.sources.machines.provider import Remark
from holdfast.sources.nbd import qemu_nbd

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from holdfast.sources.machines.diskfiles.frozen import FileSnapshot
    from holdfast.sources.machines.diskfiles.store import Store
    from holdfast.sources.machines.machine import Machine
    from holdfast.sources.machines.provider import DiskWriter, NewMachine, SnapshotOrder


class DiskFiles(RunsNoImages):
    """Machines of one directory. Thread-safe."""

    _kind = "a directory of disk files"

    def __init__(self, store: Store) -> None:
        """Nobody is asked yet."""
        self._store = store

    def machines(self) -> Sequence[Machine]:
        """All machines that have a definition, and every disk file that has none."""
        return self._store.machines()

    def machine(self, uuid: str) -> Machine:
        """One of them, looked at anew."""
        return self._store.machine(self._store.find(uuid))

    def try_out(
        self,
        uuid: str,
        scratch: Path,  # noqa: ARG002 - nothing is overwritten meanwhile
        *,
        trim: bool = False,
        leave_out: Collection[str] = (),
    ) -> Sequence[Remark]:
        """Open every disk, and let go of it at once."""
        found = frozen.look(self._store, self._store.find(uuid), leave_out)
        return [*found, trimming.of_nothing()] if trim else found

    @contextlib.contextmanager
    def snapshot(
        self, order: SnapshotOrder, alive: Callable[[], None] = lambda: None
    ) -> Iterator[FileSnapshot]:
        """Open the disks of a machine that is off, and keep it from starting meanwhile."""
        qemu_nbd.clear_leftovers()
        with frozen.frozen(self._store, order, alive) as found:
            yield found

    def restore(self, order: NewMachine, write: DiskWriter) -> Machine:
        """Make a machine in a directory of its own."""
        made = restoring.restore(self._store, order, write)
        return self._store.machine(self._store.defined_by(made))

    def throw_away(self, order: NewMachine) -> Sequence[str]:
        """Take away the directory of a machine that is not whole."""
        return restoring.throw_away(self._store, order)

    def start(self, uuid: str) -> None:
        """Files start nothing.

        Raises:
            Unsupported: Always.
        """
        known = self._store.find(uuid)
        raise Unsupported(
            f"machine '{known.name}' can't be started: there is no hypervisor here",
            f"define it where it is to run, for example: virsh define '{known.path}'",
        )

    def clean_up(self) -> Sequence[Remark]:
        """Take away what dead backups and restores left."""
        found = []
        for directory in qemu_nbd.clear_leftovers():
            message = f"'{directory}' of a backup that was killed is removed"
            found.append(Remark("info", "leftover", message))
        for directory in restoring.unfinished(self._store):
            shutil.rmtree(directory, ignore_errors=True)
            message = f"'{directory}' of a restore that was killed is removed"
            found.append(Remark("info", "leftover", message))
        return found
