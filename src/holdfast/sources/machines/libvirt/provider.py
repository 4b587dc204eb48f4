"""Machines of one host, by libvirt.

Must not remember what a machine was: each question is asked anew. A machine that runs is read by a
snapshot of QEMU's, one that is off from its disk files.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import libvirt

from holdfast.base.errors import Busy, HoldfastError, MachineMissing, Unsupported
from holdfast.sources import places
from holdfast.sources.machines import domain_xml
from holdfast.sources.machines.labels import PREFIX, directory_prefix
from holdfast.sources.machines.libvirt import checkpoints, looking, rebuild
from holdfast.sources.machines.libvirt.connection import Libvirt, asked
from holdfast.sources.machines.libvirt.off import OffSnapshot
from holdfast.sources.machines.libvirt.running import (
    RESERVE_BYTES,
    RunningSnapshot,
    backup_of,
    busy_with,
    end_backup,
)
from holdfast.sources.machines.machine import NOT_WANTED, State
from holdfast.sources.machines.provider import Remark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from holdfast.sources.machines.domain_xml import DomainDisk
    from holdfast.sources.machines.machine import Machine
    from holdfast.sources.machines.provider import DiskWriter, NewMachine, SnapshotOrder
    from holdfast.sources.machines.providers import Credentials

_OLDEST = 7_002_000
_REMOTE = re.compile(r"^[a-z]+(\+[a-z]+)?://[^/?]+")

_under_way: set[tuple[str, str]] = set()
_turn = threading.Lock()


class LibvirtProvider:
    """See `Provider`. Thread-safe."""

    def __init__(self, url: str, credentials: Credentials) -> None:
        """Name the host; nobody is asked."""
        self._host = Libvirt(url, credentials)
        self._remote = _REMOTE.match(url) is not None

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

    def try_out(self, uuid: str, scratch: Path) -> Sequence[Remark]:
        """See `Provider.try_out`."""
        self._only_here()
        connection = self._host.get()
        domain = self._host.domain(uuid)
        rebuild.definitions(domain)
        machine, known, sources = self._look(domain)
        found = _left_out(machine)
        with asked("libvirt does not tell its version"):
            if connection.getLibVersion() < _OLDEST:
                text = "this libvirt is too old: 7.2 is needed to read machines that run"
                found.append(Remark("error", "too-old", text))
        if machine.state is State.OFF:
            for source in _wanted(machine, sources):
                if not os.access(source.place, os.R_OK):
                    text = f"this user may not read '{source.place}' while the machine is off"
                    found.append(Remark("error", "not-readable", text, source.name))
            return found
        for source in _wanted(machine, sources):
            if not checkpoints.tracks_changes(source):
                text = f"disk '{source.name}' is '{source.format}': each backup reads all of it"
                found.append(Remark("info", "no-bitmap", text, source.name))
        if not domain_xml.agent_connected(known):
            text = "no guest agent answers in the machine"
            found.append(Remark("warning", "not-quiesced", text))
        with places.private_directory(f"{PREFIX}-try-", scratch) as place:
            told = os.statvfs(place)
            if told.f_bavail * told.f_frsize < RESERVE_BYTES:
                text = f"'{scratch}' has less than {RESERVE_BYTES} bytes free"
                found.append(Remark("error", "no-scratch", text))
        return found

    @contextlib.contextmanager
    def snapshot(
        self, order: SnapshotOrder, alive: Callable[[], None] = lambda: None
    ) -> Iterator[RunningSnapshot | OffSnapshot]:
        """See `Provider.snapshot`."""
        self._only_here()
        with self._alone(order.uuid):
            domain = self._host.domain(order.uuid)
            leftovers = self._leftovers(domain, order)
            machine, known, sources = self._look(domain)
            machine = machine.without(order.leave_out)
            definitions, unread = rebuild.definitions(domain)
            wanted = _wanted(machine, sources)
            made: RunningSnapshot | OffSnapshot
            if machine.state is State.OFF:
                made = OffSnapshot(self._host, order, machine, definitions, sources)
            else:
                made = RunningSnapshot(self._host, order, machine, definitions, sources)
            made.remarks += leftovers + _left_out(machine)
            if unread is not None:
                made.remarks.append(Remark("warning", "firmware-left-out", unread))
            try:
                if isinstance(made, OffSnapshot):
                    made.take(wanted, alive)
                elif wanted:
                    made.take(wanted, domain_xml.agent_connected(known), alive)
                yield made
            except BaseException:
                with contextlib.suppress(HoldfastError):  # what failed first is what is told
                    made.release()
                raise
            made.release()

    def restore(self, order: NewMachine, write: DiskWriter) -> Machine:
        """See `Provider.restore`."""
        self._only_here()
        return rebuild.restore(self._host.get(), order, write)

    def start(self, uuid: str) -> None:
        """See `Provider.start`."""
        domain = self._host.domain(uuid)
        with asked(f"machine {uuid} does not start"):
            domain.create()

    def clean_up(self) -> Sequence[Remark]:
        """See `Provider.clean_up`: of proxies on this machine that are known to be dead."""
        connection = self._host.get()
        with asked("libvirt does not tell of its machines"):
            domains = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        found = []
        for domain in domains:
            place = _place_of(domain)
            if place is not None and place.exists() and not places.lives(place):
                end_backup(domain)
                shutil.rmtree(place, ignore_errors=True)
                text = f"a backup of '{domain.name()}' that died"
                found.append(Remark("info", "leftover", text))
        return found

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
        backup = backup_of(domain)
        if backup is not None:
            place = _place_of(domain)
            if place is None or places.lives(place):
                raise busy_with(domain, backup)
            if not place.name.startswith(prefix) and not place.exists():
                raise busy_with(domain, backup)  # of another site, and perhaps of another proxy
            end_backup(domain)
            shutil.rmtree(place, ignore_errors=True)
            found.append("a backup")
        places.clear(prefix, order.scratch)
        keep = {*order.keep, str(order.since)}
        known = domain_xml.read(domain.XMLDesc())
        stale = checkpoints.delete_stale(domain, order.label, keep, domain_xml.disks(known))
        found += [f"checkpoint {one}" for one in stale]
        if not found:
            return []
        text = f"of an earlier backup of '{domain.name()}' was taken away: {', '.join(found)}"
        return [Remark("info", "leftover", text)]

    def _only_here(self) -> None:
        if self._remote:
            raise Unsupported(
                f"'{self._host.url}' is another host: a proxy that runs there reads its disks",
                "run an agent on that host, and let it use qemu:///system",
            )

    @contextlib.contextmanager
    def _alone(self, uuid: str) -> Iterator[None]:
        key = (self._host.url, uuid)
        with _turn:
            if key in _under_way:
                raise Busy(f"machine {uuid} is being backed up")
            _under_way.add(key)
        try:
            yield
        finally:
            with _turn:
                _under_way.discard(key)


def _place_of(domain: Any) -> Path | None:
    """The directory of a backup of ours that a machine has; None for none, or somebody else's."""
    backup = backup_of(domain)
    server = None if backup is None else backup.find("server")
    socket = "" if server is None else server.get("socket", "")
    place = Path(socket).parent
    return place if socket and place.name.startswith(f"{PREFIX}-") else None


def _wanted(machine: Machine, sources: Sequence[domain_xml.DomainDisk]) -> list[DomainDisk]:
    held = {one.name for one in machine.disks if one.left_out is None}
    return [one for one in sources if one.name in held]


def _left_out(machine: Machine) -> list[Remark]:
    found = []
    for one in machine.disks:
        if one.left_out is not None:
            removable = one.left_out.startswith("a removable") or one.left_out == NOT_WANTED
            text = f"disk '{one.name}' is not in the image: {one.left_out}"
            severity = "info" if removable else "warning"
            found.append(Remark(severity, "disk-left-out", text, one.name))
    return found
