"""Machines of one host, by libvirt.

Must not remember what a machine was: each question is asked anew. A machine that runs is read by a
snapshot of QEMU's, one that is off from its disk files.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import libvirt

from holdfast.base.errors import Busy, HoldfastError, MachineMissing
from holdfast.sources.machines import domain_xml, trimming
from holdfast.sources.machines.labels import TRIAL, directory_prefix
from holdfast.sources.machines.libvirt import (
    carried,
    checkpoints,
    guest,
    instant,
    looking,
    rebuild,
)
from holdfast.sources.machines.libvirt.connection import Libvirt, asked
from holdfast.sources.machines.libvirt.far import Far
from holdfast.sources.machines.libvirt.near import Near
from holdfast.sources.machines.libvirt.off import OffSnapshot
from holdfast.sources.machines.libvirt.overlay_files import FarFiles, NearFiles
from holdfast.sources.machines.libvirt.running import (
    RunningSnapshot,
    backup_of,
    busy_with,
    end_backup,
)
from holdfast.sources.machines.libvirt.side import name_of
from holdfast.sources.machines.libvirt.there import reason
from holdfast.sources.machines.machine import NOT_WANTED, State
from holdfast.sources.machines.provider import Remark, SnapshotOrder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from holdfast.sources.machines.domain_xml import DomainDisk
    from holdfast.sources.machines.libvirt.overlay_files import OverlayFiles
    from holdfast.sources.machines.libvirt.side import Side
    from holdfast.sources.machines.machine import Machine
    from holdfast.sources.machines.overlays import Moved, Over, Standing
    from holdfast.sources.machines.provider import DiskWriter, NewMachine
    from holdfast.sources.machines.providers import Credentials

_OLDEST = 7_002_000
_TRIAL_S = 60.0
"""So long a backup waits for a trial of the same machine, which takes a second."""
_LOOK_AGAIN_S = 0.05
_TOLD_BY_TRIAL = ("bitmap-refused", "disk-shared")
"""Codes of what a snapshot remarks that would be so of a backup, too."""

_under_way: dict[tuple[str, str], bool] = {}
"""The machines with a snapshot, and whether that is a trial."""
_turn = threading.Condition()


class LibvirtProvider:
    """See `Provider`. Thread-safe."""

    def __init__(self, url: str, credentials: Credentials) -> None:
        """Name the host; nobody is asked."""
        self._host = Libvirt(url, credentials)
        self._far = bool(self._host.address.host)
        self._side: Side = Far(self._host) if self._far else Near(self._host)

    def machines(self) -> Sequence[Machine]:
        """See `Provider.machines`."""
        connection = self._host.get()
        with asked("libvirt does not tell of its machines"):
            domains = connection.listAllDomains()
        found = []
        for domain in domains:
            with contextlib.suppress(MachineMissing):  # undefined meanwhile
                found.append(looking.machine(connection, domain))
        return sorted(found, key=lambda one: one.name)

    def machine(self, uuid: str) -> Machine:
        """See `Provider.machine`."""
        return looking.machine(self._host.get(), self._host.domain(uuid))

    def try_out(
        self, uuid: str, scratch: Path, *, trim: bool = False, leave_out: Collection[str] = ()
    ) -> Sequence[Remark]:
        """See `Provider.try_out`."""
        connection = self._host.get()
        domain = self._host.domain(uuid)
        _, unread = rebuild.definitions(domain, self._side)
        machine, known, sources = self._look(domain)
        machine = machine.without(leave_out)
        found = _left_out(machine)
        if unread is not None:
            found.append(_no_firmware(unread))
        with asked("libvirt does not tell its version"):
            if connection.getLibVersion() < _OLDEST:
                text = "this libvirt is too old: 7.2 is needed to read machines that run"
                found.append(Remark("error", "too-old", text))
        wanted = _wanted(machine, sources)
        found += self._side.try_out(machine, wanted, scratch)
        if trim:
            found += trimming.keeping(guest.keeping(wanted), guest.HOW)
        if machine.state is State.OFF:
            return found
        for source in wanted:
            if not checkpoints.tracks_changes(source):
                text = f"disk '{source.name}' is '{source.format}': each backup reads all of it"
                found.append(Remark("info", "no-bitmap", text, source.name))
        if not domain_xml.agent_connected(known):
            text = "no guest agent answers in the machine"
            found.append(Remark("warning", "not-quiesced", text))
        if wanted and not any(one.severity == "error" for one in found):
            found += self._trial(uuid, scratch, tuple(leave_out))
        return found

    @contextlib.contextmanager
    def snapshot(
        self, order: SnapshotOrder, alive: Callable[[], None] = lambda: None
    ) -> Iterator[RunningSnapshot | OffSnapshot]:
        """See `Provider.snapshot`."""
        with self._alone(order.uuid, trial=order.label == TRIAL):
            domain = self._host.domain(order.uuid)
            leftovers = self._leftovers(domain, order)
            trimmed = self._trim(domain, order, alive) if order.trim_s else trimming.Trimmed()
            machine, known, sources = self._look(domain)
            machine = machine.without(order.leave_out)
            definitions, unread = rebuild.definitions(domain, self._side)
            wanted = _wanted(machine, sources)
            made: RunningSnapshot | OffSnapshot
            if machine.state is State.OFF:
                made = OffSnapshot(self._host, order, machine, definitions, sources, self._side)
            else:
                made = RunningSnapshot(self._host, order, machine, definitions, sources, self._side)
            made.noted += [*leftovers, *trimmed.remarks, *_left_out(machine)]
            if unread is not None:
                made.noted.append(_no_firmware(unread))
            try:
                if isinstance(made, OffSnapshot):
                    made.take(wanted, alive)
                elif wanted:
                    mute = None if domain_xml.agent_connected(known) else guest.MUTE
                    made.take(wanted, trimming.BUSY if trimmed.is_at_work else mute, alive)
                yield made
            except BaseException:
                with contextlib.suppress(HoldfastError):  # what failed first is what is told
                    made.release()
                raise
            made.release()

    def restore(self, order: NewMachine, write: DiskWriter) -> Machine:
        """See `Provider.restore`."""
        return rebuild.restore(self._host.get(), self._side, order, write)

    def throw_away(self, order: NewMachine) -> Sequence[str]:
        """See `Provider.throw_away`."""
        with self._side.making(order) as making:
            return making.throw_away()

    def start(self, uuid: str) -> None:
        """See `Provider.start`."""
        domain = self._host.domain(uuid)
        with asked(f"machine {uuid} does not start"):
            domain.create()

    def start_over(self, order: NewMachine, over: Over) -> Machine:
        """See `Provider.start_over`."""
        named = self._named(over)
        return instant.start_over(self._host.get(), order, named, self._files(named))

    def standing(self, over: Over) -> Standing:
        """See `Provider.standing`."""
        named = self._named(over)
        return instant.standing(self._host.get(), named, self._files(named))

    def go_on(self, over: Over) -> None:
        """See `Provider.go_on`."""
        named = self._named(over)
        instant.go_on(self._host.get(), named, self._files(named))

    def migrate(
        self, over: Over, moved: Callable[[Moved], None], alive: Callable[[], None] = lambda: None
    ) -> None:
        """See `Provider.migrate`."""
        named = self._named(over)
        instant.migrate(self._host.get(), named, self._files(named), moved, alive)

    def discard(self, over: Over) -> None:
        """See `Provider.discard`."""
        named = self._named(over)
        instant.discard(self._host.get(), named, self._files(named))
        if self._far:
            carried.clear(self._host, named)

    def carrying(self, over: Over) -> contextlib.AbstractContextManager[Callable[[], None]]:
        """See `Provider.carrying`."""
        if self._far:
            return carried.carrying(self._host, over, lambda: instant.reads_as(self._host.get()))
        return contextlib.nullcontext(_nothing_to_do)

    def reads_as(self) -> int | None:
        """See `Provider.reads_as`: what is carried to another host is read here by ssh."""
        return None if self._far else instant.reads_as(self._host.get())

    def clean_up(self) -> Sequence[Remark]:
        """See `Provider.clean_up`: of proxies on this machine that are known to be dead."""
        connection = self._host.get()
        with asked("libvirt does not tell of its machines"):
            domains = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        found = []
        for domain in domains:
            backup = backup_of(domain)
            if backup is not None and self._side.lives(backup) is False:
                end_backup(domain)
                self._side.clear(domain, backup, "", None)
                found.append(f"a backup of '{domain.name()}' that died")
        found += self._side.leftovers()
        return [Remark("info", "leftover", text) for text in found]

    def _trim(
        self, domain: Any, order: SnapshotOrder, alive: Callable[[], None]
    ) -> trimming.Trimmed:
        """Have the guest trim: all is looked at anew afterwards."""
        machine, known, sources = self._look(domain)
        if machine.state is State.OFF:
            return trimming.Trimmed((trimming.of_nothing(),))
        wanted = _wanted(machine.without(order.leave_out), sources)
        return guest.trim(domain, order, wanted, known, alive)

    def _trial(self, uuid: str, scratch: Path, leave_out: tuple[str, ...]) -> list[Remark]:
        """Make a snapshot of a machine that runs, and read of it: nothing else shows it all.

        Rights at libvirt, whether each disk takes a bitmap, and whether QEMU, which is a user of
        its own and may be confined, gets to scratch files and a socket: that is known when it was
        done. The guest is not brought to rest and notices nothing; it goes on meanwhile. What is
        made is released in every outcome, and where this process is killed the next backup of
        whatever site takes it away. A backup of the machine waits for its trial.
        """
        order = SnapshotOrder(uuid, None, False, False, scratch, TRIAL, leave_out=leave_out)
        found: list[Remark] = []
        try:
            with self.snapshot(order) as made:
                found += [one for one in made.noted if one.code in _TOLD_BY_TRIAL]
                for disk in made.disks:
                    try:
                        disk.check()
                    except HoldfastError as error:
                        found.append(Remark("error", "not-readable", reason(error), disk.name))
        except HoldfastError as error:
            if isinstance(error, Busy) or self._is_backed_up(uuid):
                text = f"whether it can be read was not tried: {error.message}"
                return [Remark("info", "busy", text)]
            found.append(Remark("error", "not-readable", reason(error)))
        return found

    def _is_backed_up(self, uuid: str) -> bool:
        """Whether somebody else began to back it up, which got in the way of a trial."""
        with contextlib.suppress(HoldfastError):
            backup = backup_of(self._host.domain(uuid))
            return backup is not None and not name_of(backup).startswith(directory_prefix(TRIAL))
        return False

    def _named(self, over: Over) -> Over:
        """A machine that runs from its image, as it is named at its host."""
        return carried.there(self._host, over) if self._far else over

    def _files(self, over: Over) -> OverlayFiles:
        return FarFiles(self._host, over) if self._far else NearFiles(self._host, over)

    def _look(self, domain: Any) -> tuple[Machine, Any, list[DomainDisk]]:
        connection = self._host.get()
        machine = looking.machine(connection, domain)
        with asked("libvirt does not tell of a machine"):
            known = domain_xml.read(domain.XMLDesc())
        sources = [
            replace(one, place=looking.real_place(connection, one)) if one.volume else one
            for one in domain_xml.disks(known)
        ]
        return machine, known, sources

    def _leftovers(self, domain: Any, order: SnapshotOrder) -> list[Remark]:
        found = []
        prefix = directory_prefix(order.label)
        trial = directory_prefix(TRIAL)
        backup = self._after_trial(domain, trial)
        if backup is not None:
            alive = self._side.lives(backup)
            if alive or (alive is None and not name_of(backup).startswith((prefix, trial))):
                raise busy_with(domain, backup)  # of another site, and perhaps of another proxy
            end_backup(domain)
            found.append("a backup")
        self._side.clear(domain, backup, prefix, order)
        keep = {*order.keep, str(order.since)}
        known = domain_xml.read(domain.XMLDesc())
        stale = checkpoints.delete_stale(
            domain, order.label, keep, domain_xml.disks(known), self._side.bitmap_tool()
        )
        found += [f"checkpoint {one}" for one in stale]
        if not found:
            return []
        text = f"of an earlier backup of '{domain.name()}' was taken away: {', '.join(found)}"
        return [Remark("info", "leftover", text)]

    def _after_trial(self, domain: Any, prefix: str) -> Any | None:
        """The backup that libvirt makes, once a trial of another process is over."""
        until = time.monotonic() + _TRIAL_S
        while True:
            backup = backup_of(domain)
            if not name_of(backup).startswith(prefix) or not self._side.lives(backup):
                return backup
            if time.monotonic() > until:
                return backup
            time.sleep(_LOOK_AGAIN_S)

    @contextlib.contextmanager
    def _alone(self, uuid: str, *, trial: bool) -> Iterator[None]:
        key = (self._host.url, uuid)
        with _turn:
            _turn.wait_for(lambda: not _under_way.get(key, False), _TRIAL_S)
            if key in _under_way:
                raise Busy(f"machine {uuid} is being backed up")
            _under_way[key] = trial
        try:
            yield
        finally:
            with _turn:
                del _under_way[key]
                _turn.notify_all()


def _wanted(machine: Machine, sources: Sequence[domain_xml.DomainDisk]) -> list[DomainDisk]:
    held = {one.name for one in machine.disks if one.left_out is None}
    return [one for one in sources if one.name in held]


def _no_firmware(reason: str) -> Remark:
    return Remark("warning", "firmware-left-out", reason)


def _left_out(machine: Machine) -> list[Remark]:
    found = []
    for one in machine.disks:
        if one.left_out is not None:
            removable = one.left_out.startswith("a removable") or one.left_out == NOT_WANTED
            place = f" ({one.place})" if one.place and one.format in domain_xml.NO_DISKS else ""
            text = f"disk '{one.name}'{place} is not in the image: {one.left_out}"
            severity = "info" if removable else "warning"
            found.append(Remark(severity, "disk-left-out", text, one.name))
    return found


def _nothing_to_do() -> None:
    pass
