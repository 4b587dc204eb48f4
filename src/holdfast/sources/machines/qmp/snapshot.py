"""A running QEMU as it was at one moment: freeze, put filters in, thaw; and let go.

Must not talk about images. Order, which makes everything right whatever dies when: leftovers go;
bitmaps for the next time begin before the moment; file systems come to rest; filters go in; the
guest goes on; only then is looked at what changed. So the old bitmaps tell a little too much, the
new ones too, and neither ever too little.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from holdfast.base.errors import HoldfastError, NoSpace, NotQuiesced, SnapshotBroken
from holdfast.sources.machines import trimming
from holdfast.sources.machines.guard import guarded
from holdfast.sources.machines.guest_agent import GuestAgent
from holdfast.sources.machines.labels import new_checkpoint
from holdfast.sources.machines.nbd_disk import NbdDisk
from holdfast.sources.machines.provider import Remark
from holdfast.sources.machines.qmp import bitmaps, discards, fleece
from holdfast.sources.machines.qmp.past_qemu import left_out_past_qemu
from holdfast.sources.nbd.extents import Extent
from holdfast.sources.nbd.protocol import DIRTY
from holdfast.sources.nbd.wire import Address
from holdfast.sources.places import private_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.sources.machines.machine import Machine
    from holdfast.sources.machines.provider import SnapshotOrder
    from holdfast.sources.machines.qmp.devices import Device
    from holdfast.sources.machines.qmp.monitor import Monitor

PREFIX = "holdfast-qmp-"
"""How directories begin in which the sockets lie."""
_MUTE = "the machine has no socket of a guest agent"
_WATCH_S = 0.5


class QmpSnapshot:
    """See `Snapshot`. Thread-safe after it was made."""

    def __init__(
        self,
        monitor: Monitor,
        order: SnapshotOrder,
        machine: Machine,
        definitions: dict[str, bytes],
    ) -> None:
        """Begin with nothing; `QmpSnapshot.take` freezes."""
        self.machine = machine
        self.definitions = definitions
        self.disks: Sequence[NbdDisk] = ()
        self.checkpoint: str | None = None
        self.remarks: list[Remark] = []
        self.frozen_s = 0.0
        self._monitor = monitor
        self._order = order
        self._scratch: list[int] = []
        self._broken: HoldfastError | None = None
        self._kept = False
        self._is_trimming = False
        self._over = threading.Event()
        self._turn = threading.Lock()
        self._places = contextlib.ExitStack()

    def check(self) -> None:
        """See `Snapshot.check`."""
        self._watch_once()
        if self._broken is not None:
            raise SnapshotBroken(self._broken.message, self._broken.hint)
        self._monitor.execute("query-status")
        for disk in self.disks:
            try:
                disk.check()
            except HoldfastError as error:
                raise SnapshotBroken(
                    f"what disk '{disk.name}' of '{self.machine.name}' was can no longer be read; "
                    f"its scratch file in '{self._order.scratch}' had no more room: {error.message}"
                ) from error

    def keep_checkpoint(self) -> None:
        """See `Snapshot.keep_checkpoint`."""
        self._kept = True

    def trim(
        self,
        devices: Sequence[Device],
        words: Sequence[str],
        agent: str | None,
        alive: Callable[[], None],
    ) -> None:
        """Have the guest trim, which may take a while: nothing is begun yet.

        Args:
            devices: Its disks.
            words: The command line of its QEMU.
            agent: The socket of its agent; None for none.
            alive: Called again and again.
        """
        left_out = self._order.leave_out
        wanted = [one.disk for one in devices if one.writable and not one.disk.left_out]
        done = trimming.trim_before(
            self._order,
            alive,
            guest=_MUTE if agent is None else trimming.SocketGuest(agent),
            disks=[one.name for one in wanted if one.name not in left_out],
            kept=discards.keeping(devices, words),
            how=discards.HOW,
        )
        self.remarks += done.remarks
        self._is_trimming = done.is_at_work

    def take(self, devices: Sequence[Device], agent: str | None, alive: Callable[[], None]) -> None:
        """Freeze the machine, and let it go on."""
        order = self._order
        for device in devices:
            for reason in filter(None, [self._left_out(device)]):
                self.remarks.append(reason)
        self.remarks += left_out_past_qemu(self._monitor, order.leave_out)
        wanted = [
            one for one in devices if not one.disk.left_out and one.disk.name not in order.leave_out
        ]
        frozen = {at: one for at, one in enumerate(wanted) if one.writable}
        trusted = self._trusted(frozen)
        for at, device in frozen.items():
            self._scratch.append(fleece.scratch_file(order.scratch, device.disk.size))
            fleece.prepare(self._monitor, at, self._scratch[-1])
        alive()
        checkpoint = new_checkpoint(order.label)
        refused = {
            at: remark
            for at, one in frozen.items()
            if (remark := bitmaps.add(self._monitor, one, checkpoint))
        }
        self.remarks += refused.values()
        self._freeze(frozen, agent)
        alive()
        for at in trusted:
            bitmaps.copy_for_reading(self._monitor, frozen[at], str(order.since))
        marked = {at: checkpoint for at in frozen if at not in refused}
        self._serve(wanted, frozen, trusted, marked)
        if len(refused) < len(frozen):
            self.checkpoint = checkpoint
        threading.Thread(target=self._watch, name="scratch-watch", daemon=True).start()

    def release(self) -> None:
        """Take out all of it, and the checkpoints that nobody follows any more.

        Raises:
            HoldfastError: That is not possible, as when the machine is gone; what was put in is
                then gone with it.
        """
        self._over.set()
        for disk in self.disks:
            disk.close()
        with self._turn, self._places:
            try:
                fleece.remove_all(self._monitor)
                keep = {*self._order.keep}
                keep |= {str(self.checkpoint)} if self._kept else {str(self._order.since)}
                remove_stale(self._monitor, self._order.label, keep)
            finally:
                for fd in self._scratch:
                    os.close(fd)
                self._scratch.clear()

    def _left_out(self, device: Device) -> Remark | None:
        if device.disk.left_out is None:
            return None
        return Remark(
            "warning",
            "disk-left-out",
            f"disk '{device.disk.name}' is not in the image: {device.disk.left_out}",
            device.disk.name,
        )

    def _trusted(self, frozen: dict[int, Device]) -> list[int]:
        """Numbers of the disks whose changes since the last image are known."""
        if self._order.since is None:
            return []
        found = []
        for at, device in frozen.items():
            if reason := bitmaps.why_not(device, self._order.since):
                self.remarks.append(
                    Remark(
                        "warning",
                        "bitmap-lost",
                        f"all of disk '{device.disk.name}' is read: {reason}",
                        device.disk.name,
                    )
                )
            else:
                found.append(at)
        return found

    def _freeze(self, frozen: dict[int, Device], agent: str | None) -> None:
        """The moment itself."""
        held = self._agent(agent)
        running = bool(self._monitor.execute("query-status")["running"])
        wake: dict[str, str] = {}
        if held is not None and agent is not None:
            wake["agent"] = agent
        if running and len(frozen) > 1:
            wake["monitor"] = self._monitor.path
        with contextlib.ExitStack() as stack:
            if held is not None:
                stack.callback(held.close)
            if wake:
                stack.enter_context(guarded(**wake))
            began = time.monotonic()
            if held is not None:
                held = self._quiet(held)
            # Without an agent's help, several disks are of one moment only if nothing runs.
            stopped = held is None and running and len(frozen) > 1
            try:
                if stopped:
                    self._monitor.execute("stop")
                for at, device in frozen.items():
                    fleece.insert(self._monitor, at, device)
            finally:
                if stopped:
                    self._monitor.execute("cont")
                if held is not None:
                    self._thaw(held)
            if stopped or held is not None:
                self.frozen_s = time.monotonic() - began

    def _agent(self, path: str | None) -> GuestAgent | None:
        if not self._order.quiesce:
            return None
        if path is None or self._is_trimming:
            self._unquiet(_MUTE if path is None else trimming.BUSY)
            return None
        try:
            return GuestAgent(path)
        except HoldfastError as error:
            self._unquiet(error.message)
            return None

    def _quiet(self, agent: GuestAgent) -> GuestAgent | None:
        try:
            agent.freeze()
        except HoldfastError as error:
            self._unquiet(error.message)
            return None
        return agent

    def _thaw(self, agent: GuestAgent) -> None:
        try:
            agent.thaw()
        except HoldfastError as error:
            self.remarks.append(
                Remark("error", "thaw-unanswered", f"the guest may stand still: {error.message}")
            )

    def _unquiet(self, reason: str) -> None:
        if self._order.require_quiesce:
            raise NotQuiesced(f"'{self.machine.name}' was not brought to rest: {reason}")
        self.remarks.append(
            Remark("warning", "not-quiesced", f"the guest was not brought to rest: {reason}")
        )

    def _serve(
        self,
        wanted: Sequence[Device],
        frozen: dict[int, Device],
        trusted: list[int],
        marked: dict[int, str],
    ) -> None:
        if not wanted:  # a server that shows nothing would be known to nobody as ours
            return
        socket = str(self._places.enter_context(private_directory(PREFIX)) / "nbd")
        fleece.listen(self._monitor, socket)
        server = Address(socket)
        self.disks = [
            NbdDisk(
                device.disk.name,
                device.disk.size,
                server,
                fleece.show(self._monitor, at, device, frozen=at in frozen, changes=at in trusted),
                bitmaps.READING if at in trusted else None,
                grain=fleece.GRAIN if at in frozen else None,
                written=partial(self._written, at, device, marked.get(at), server)
                if at in frozen
                else None,
            )
            for at, device in enumerate(wanted)
        ]

    def _written(
        self, at: int, device: Device, since: str | None, server: Address
    ) -> Sequence[Extent]:
        """What the guest may have written since the moment: all of it, if nobody marks that."""
        if since is None:
            return [Extent(0, device.disk.size, DIRTY)] if device.disk.size else []
        return fleece.written(self._monitor, at, device, since, server)

    def _watch(self) -> None:
        while not self._over.wait(_WATCH_S):
            self._watch_once()

    def _watch_once(self) -> None:
        """Give the snapshot up once it takes too much: nobody may be reading just now."""
        with self._turn:
            if self._broken is not None or self._over.is_set():
                return
            try:
                fleece.room(self._order.scratch, self._scratch, self._order.scratch_bytes)
            except NoSpace as error:
                self._broken = error
                with contextlib.suppress(HoldfastError):
                    fleece.remove_all(self._monitor)


def remove_stale(monitor: Monitor, label: str, keep: set[str]) -> list[str]:
    """Take away bitmaps of a site that no image is followed by any more; their names."""
    found: list[str] = []
    for node in monitor.execute("query-named-block-nodes"):
        names = bitmaps.stale(node.get("dirty-bitmaps", ()), label, keep)
        bitmaps.remove(monitor, node["node-name"], names)
        found += names
    return found
