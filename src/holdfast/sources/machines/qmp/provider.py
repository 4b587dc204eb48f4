"""A host's QEMU machines by their monitors: ``NAME.qmp`` in a directory, ``NAME.qga`` beside it.

Must not remember what a machine was: each question is asked anew. A machine that is off has no
monitor, so it is not among these; its disk files can be backed up all the same, as disk files.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.base.errors import (
    Busy,
    HoldfastError,
    Invalid,
    MachineMissing,
    NoPermission,
    Unreachable,
    storage_error,
)
from holdfast.sources import places
from holdfast.sources.machines import overlays, trimming
from holdfast.sources.machines.guest_agent import GuestAgent
from holdfast.sources.machines.machine import Machine, State
from holdfast.sources.machines.provider import Remark
from holdfast.sources.machines.qmp import discards, fleece, instant, rebuild, trial
from holdfast.sources.machines.qmp.devices import (
    command_line,
    devices,
    firmware_variables,
    networks,
)
from holdfast.sources.machines.qmp.monitor import MONITORS
from holdfast.sources.machines.qmp.past_qemu import left_out_past_qemu
from holdfast.sources.machines.qmp.snapshot import PREFIX, QmpSnapshot, remove_stale
from holdfast.sources.machines.scratch_room import short_of_room

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from holdfast.sources.machines.overlays import Moved, Over, Standing
    from holdfast.sources.machines.provider import DiskWriter, NewMachine, SnapshotOrder
    from holdfast.sources.machines.qmp.monitor import Monitor

_AT_ONCE = 8
_PATIENCE_S = 2.0
_STATES = {
    "running": State.RUNNING,
    "paused": State.PAUSED,
    "suspended": State.SUSPENDED,
    "shutdown": State.OFF,
    "prelaunch": State.PAUSED,
    "io-error": State.PAUSED,
}

_TRIAL_S = 60.0

_under_way: set[str] = set()
_being_tried: set[str] = set()
_turn = threading.Condition()


class QmpProvider:
    """See `Provider`. Thread-safe."""

    def __init__(self, place: str) -> None:
        """Name the directory, or one socket in it; nobody is asked."""
        self._place = Path(place)
        if not self._place.is_absolute():
            raise Invalid(
                f"'{place}' is not where monitors of QEMU lie",
                "name a directory of sockets NAME.qmp, or one such socket: /run/machines",
            )

    def machines(self) -> Sequence[Machine]:
        """See `Provider.machines`: those that run."""

        def look(path: Path) -> Machine | None:
            try:
                return self._look(path)
            except (Unreachable, NoPermission, Busy):
                if self._place == path:
                    raise
                return None  # off, or not for us: told when it is asked for

        sockets = self._sockets()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return [one for one in pool.map(look, sockets) if one is not None]

    def machine(self, uuid: str) -> Machine:
        """See `Provider.machine`."""
        return self._look(self._find(uuid))

    def try_out(
        self, uuid: str, scratch: Path, *, trim: bool = False, leave_out: Collection[str] = ()
    ) -> Sequence[Remark]:
        """See `Provider.try_out`."""
        path = self._find(uuid)
        found = []
        with MONITORS.use(str(path)) as monitor:
            known = [one for one in devices(monitor) if one.disk.name not in leave_out]
            for device in known:
                if device.disk.left_out:
                    text = f"disk '{device.disk.name}' is left out: {device.disk.left_out}"
                    found.append(Remark("warning", "disk-left-out", text, device.disk.name))
                elif device.driver != "qcow2" and not device.ours:
                    text = (
                        f"disk '{device.disk.name}' is '{device.driver}': which of it changed is "
                        "forgotten when the machine is shut down, and then all of it is read"
                    )
                    found.append(Remark("info", "bitmap-in-memory", text, device.disk.name))
                os.close(fleece.scratch_file(scratch, device.disk.size))
            found += left_out_past_qemu(monitor, leave_out)
            found += short_of_room(scratch)
            if trim:
                kept = discards.keeping(known, command_line(monitor))
                found += trimming.keeping(kept, discards.HOW)
            if monitor.version < (7, 1):
                text = f"QEMU {monitor.version[0]}.{monitor.version[1]} is too old: 7.1 is needed"
                found.append(Remark("error", "too-old", text))
            if not any(one.severity == "error" for one in found):
                found += _tried(path, monitor, scratch, leave_out)
        agent = _agent_socket(path)
        try:
            if agent is None:
                raise Unreachable("the machine has no socket of a guest agent beside its monitor")
            GuestAgent(agent).close()
        except HoldfastError as error:
            found.append(Remark("warning", "not-quiesced", error.message))
        return found

    @contextlib.contextmanager
    def snapshot(
        self, order: SnapshotOrder, alive: Callable[[], None] = lambda: None
    ) -> Iterator[QmpSnapshot]:
        """See `Provider.snapshot`."""
        path = self._find(order.uuid)
        with _alone(path), MONITORS.use(str(path)) as monitor:
            remarks = self._leftovers(path, monitor, order)
            machine = self._describe(path, monitor).without(order.leave_out)
            made = QmpSnapshot(monitor, order, machine, {})
            made.definitions = rebuild.definitions(
                made.machine, command_line(monitor), firmware_variables(monitor)
            )
            made.remarks += remarks
            agent = _agent_socket(path)
            try:
                if order.trim_s:
                    made.trim(devices(monitor), command_line(monitor), agent, alive)
                made.take(devices(monitor), agent, alive)
                yield made
            except BaseException:
                with contextlib.suppress(HoldfastError):  # what failed first is what is told
                    made.release()
                raise
            made.release()

    def restore(self, order: NewMachine, write: DiskWriter) -> Machine:
        """See `Provider.restore`: disks, and a file that says how QEMU is started with them."""
        for known in self.machines():
            if order.keep_identity and known.uuid == order.machine.uuid:
                rebuild.refuse(known)
        return rebuild.restore(order, write, self._monitors)

    def throw_away(self, order: NewMachine) -> Sequence[str]:
        """See `Provider.throw_away`."""
        return rebuild.throw_away(order, self._monitors)

    def start(self, uuid: str) -> None:
        """See `Provider.start`: of machines that `restore` made."""
        rebuild.start(self._monitors, uuid)

    def start_over(self, order: NewMachine, over: Over) -> Machine:
        """See `Provider.start_over`."""
        path = self._running(over)
        if path is None:
            if order.keep_identity:
                for known in self.machines():
                    if known.uuid == over.uuid:
                        rebuild.refuse(known)
            instant.prepare(order, over, self._monitors)
            rebuild.start(self._monitors, over.uuid)
        return self.machine(over.uuid)

    def standing(self, over: Over) -> Standing:
        """See `Provider.standing`."""
        path = self._running(over)
        if path is None:
            return instant.off(instant.startable(self._monitors, over), over)
        with MONITORS.use(str(path)) as monitor:
            return instant.standing(monitor, over)

    def go_on(self, over: Over) -> None:
        """See `Provider.go_on`."""
        if (path := self._running(over)) is not None:
            with MONITORS.use(str(path)) as monitor:
                instant.go_on(monitor)

    def migrate(
        self, over: Over, moved: Callable[[Moved], None], alive: Callable[[], None] = lambda: None
    ) -> None:
        """See `Provider.migrate`."""
        found, path = instant.startable(self._monitors, over), self._running(over)
        if found is None or path is None:
            instant.off(found, over)
            overlays.refuse_move_while_off(over)
        with MONITORS.use(str(path)) as monitor:
            instant.move(monitor, found, over, moved, alive)

    def discard(self, over: Over) -> None:
        """See `Provider.discard`."""
        found, path = instant.startable(self._monitors, over), self._running(over)
        if path is not None:
            with MONITORS.use(str(path)) as monitor:
                overlays.require_own(over, instant.standing(monitor, over).needs)
                instant.end(monitor)
        elif found is not None:
            overlays.require_own(over, found.needs(over))
        instant.forget(over, self._monitors)

    def carrying(self, over: Over) -> contextlib.AbstractContextManager[Callable[[], None]]:  # noqa: ARG002
        """See `Provider.carrying`: what is served here is reached."""
        return contextlib.nullcontext(_nothing_to_do)

    def reads_as(self) -> int | None:
        """See `Provider.reads_as`: it is started by this process."""
        return None

    def clean_up(self) -> Sequence[Remark]:
        """See `Provider.clean_up`: that a monitor lets us in shows that nobody else is at work."""
        found = [Remark("info", "leftover", f"directory '{one}'") for one in places.clear(PREFIX)]
        for path in self._sockets():
            with (
                contextlib.suppress(Unreachable, NoPermission, Busy),
                _alone(path),
                MONITORS.use(str(path)) as monitor,
            ):
                found += [
                    Remark("info", "leftover", f"{what} in the QEMU at '{path}'")
                    for what in fleece.remove_all(monitor)
                ]
        return found

    @property
    def _monitors(self) -> Path:
        """Where monitors lie."""
        return self._place if self._place.is_dir() else self._place.parent

    def _running(self, over: Over) -> Path | None:
        """The monitor of a machine that was started over served disks; None where it is off."""
        path = self._monitors / f"{over.name}.qmp"
        try:
            with MONITORS.use(str(path)) as monitor:
                return path if _uuid(path, monitor) == over.uuid else None
        except Unreachable:
            return None

    def _leftovers(self, path: Path, monitor: Monitor, order: SnapshotOrder) -> list[Remark]:
        places.clear(PREFIX)
        found = fleece.remove_all(monitor)
        keep = {*order.keep, str(order.since)}
        found += [f"bitmap {one}" for one in remove_stale(monitor, order.label, keep)]
        if not found:
            return []
        text = f"of an earlier backup that died was taken away: {', '.join(found)}"
        return [Remark("info", "leftover", f"'{path}': {text}")]

    def _sockets(self) -> list[Path]:
        if not self._place.is_dir():
            return [self._place]
        try:
            return sorted(one for one in self._place.iterdir() if one.suffix == ".qmp")
        except OSError as error:
            raise storage_error(error)(
                f"the directory '{self._place}' can't be read: {error.strerror}"
            ) from error

    def _find(self, uuid: str) -> Path:
        refused: HoldfastError | None = None
        for path in self._sockets():
            try:
                with MONITORS.use(str(path)) as monitor:
                    if _uuid(path, monitor) == uuid:
                        return path
            except (Unreachable, NoPermission, Busy) as error:
                refused = error
        if refused is not None and len(self._sockets()) == 1:
            raise refused
        raise MachineMissing(
            f"no machine of uuid {uuid} runs under '{self._place}'"
            + ("" if refused is None else f"; one does not answer: {refused.message}"),
            "start it; files of a machine that is off are backed up by a hypervisor of the kind "
            "'diskfiles'",
        )

    def _look(self, path: Path) -> Machine:
        with MONITORS.use(str(path)) as monitor:
            return self._describe(path, monitor)

    def _describe(self, path: Path, monitor: Monitor) -> Machine:
        guest = ""
        if (agent := _agent_socket(path)) is not None:
            with contextlib.suppress(HoldfastError):
                asked = GuestAgent(agent, timeout_s=_PATIENCE_S)
                guest = asked.system()
                asked.close()
        disks = tuple(one.disk for one in devices(monitor))
        status = str(monitor.execute("query-status")["status"])
        return Machine(
            uuid=_uuid(path, monitor),
            name=str(monitor.execute("query-name").get("name") or path.stem),
            host=socket.gethostname(),
            state=_STATES.get(status, State.UNKNOWN),
            guest=guest,
            disks=disks,
            networks=networks(command_line(monitor)),
            memory=int(monitor.execute("query-memory-size-summary")["base-memory"]),
            cpus=len(monitor.execute("query-cpus-fast")),
            datastores=tuple(sorted({str(Path(one.place).parent) for one in disks})),
        )


def _uuid(path: Path, monitor: Monitor) -> str:
    """QEMU's own, or one made of the socket's place where it was given none."""
    found = str(monitor.execute("query-uuid")["UUID"])
    if uuid.UUID(found).int:
        return found
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"qmp://{socket.gethostname()}{path.resolve()}"))


def _agent_socket(path: Path) -> str | None:
    beside = path.with_suffix(".qga")
    return str(beside) if beside.exists() else None


def _tried(path: Path, monitor: Monitor, scratch: Path, leave_out: Collection[str]) -> list[Remark]:
    """Whether the disks can be read as a backup reads them, which only doing that shows."""
    try:
        with _alone(path, is_trial=True):
            return trial.tried(monitor, scratch, leave_out)
    except Busy as error:
        text = f"whether it can be read was not tried: {error.message}"
        return [Remark("info", "busy", text)]
    except HoldfastError as error:
        return [Remark("error", "not-readable", trial.reason(error))]


@contextlib.contextmanager
def _alone(path: Path, *, is_trial: bool = False) -> Iterator[None]:
    """One backup of a machine at a time in this process; the monitor keeps other processes out.

    A trial is waited for, which takes a moment: no backup is to fail because somebody looked.
    """
    key = str(path.resolve())
    with _turn:
        _turn.wait_for(lambda: key not in _being_tried, _TRIAL_S)
        if key in _under_way:
            raise Busy(f"the machine at '{path}' is being backed up")
        _under_way.add(key)
        if is_trial:
            _being_tried.add(key)
    try:
        yield
    finally:
        with _turn:
            _under_way.discard(key)
            if is_trial:
                _being_tried.discard(key)
            _turn.notify_all()


def _nothing_to_do() -> None:
    pass
