"""A machine that runs, as it was at one moment: freeze, checkpoint and pull-mode backup, thaw.

Must not talk about images. libvirt's backup pauses the guest should its scratch file find no room,
so the scratch is watched, and the backup given up while there is some left.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

import libvirt

from holdfast.base.errors import (
    Busy,
    HoldfastError,
    HypervisorError,
    NoPermission,
    NoSpace,
    NotQuiesced,
    SnapshotBroken,
    TooSlow,
)
from holdfast.sources.machines import domain_xml
from holdfast.sources.machines.guard import guarded
from holdfast.sources.machines.labels import new_checkpoint
from holdfast.sources.machines.libvirt import checkpoints
from holdfast.sources.machines.libvirt.connection import asked, translated
from holdfast.sources.machines.nbd_disk import NbdDisk
from holdfast.sources.machines.provider import Remark

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.sources.machines.domain_xml import DomainDisk
    from holdfast.sources.machines.libvirt.connection import Libvirt
    from holdfast.sources.machines.libvirt.side import Ground, Side
    from holdfast.sources.machines.machine import Machine
    from holdfast.sources.machines.provider import SnapshotOrder

FREEZE_TIMEOUT_S = 30
THAW_TIMEOUT_S = 5
THAW_LATE_S = 3600.0
"""So long a guest is asked to thaw whose agent did not answer when it was to freeze, or to thaw."""
_THAW_AGAIN_S = 1.0
_WATCH_S = 0.25
_ENDS_S = 60.0
_TRIES = 5
_late: dict[tuple[str, str], tuple[threading.Thread, threading.Event]] = {}
"""Who still tells a guest to go on, by host and uuid, and what ends that."""
_BITMAP = "changes"
_BITMAP_LOST = {
    libvirt.VIR_ERR_NO_DOMAIN_CHECKPOINT,
    libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT,
}
_OLD_QCOW2 = "Cannot store dirty bitmaps in qcow2 v2 files"
"""QEMU's words; libvirt has no code for it."""
_AMEND = (
    "a disk of it is a qcow2 file of the old version 2, which can't hold a list of changes (while "
    "the machine is off: qemu-img amend -f qcow2 -o compat=1.1 FILE)"
)
_LET_QEMU_IN = (
    "QEMU runs as a user of its own: name a scratch directory that it gets to, with directories of "
    "mode 711 above it, and allow it to AppArmor or SELinux where they confine QEMU"
)
_UNABLE = {
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
}


@dataclass(frozen=True, slots=True)
class _Try:
    """A way to begin a backup: which disks are read incrementally, and which get a bitmap."""

    incremental: frozenset[str]
    checkpoint: str | None


class RunningSnapshot:
    """See `Snapshot`. Thread-safe after it was made."""

    def __init__(
        self,
        host: Libvirt,
        order: SnapshotOrder,
        machine: Machine,
        definitions: dict[str, bytes],
        sources: Sequence[DomainDisk],
        side: Side,
    ) -> None:
        """Begin with nothing; `take` freezes."""
        self._side = side
        self._ground: Ground | None = None
        self.machine = machine
        self.definitions = definitions
        self.disks: Sequence[NbdDisk] = ()
        self.checkpoint: str | None = None
        self.noted: list[Remark] = []
        self.frozen_s = 0.0
        self._host = host
        self._order = order
        self._sources = sources
        self._kept = False
        self._began = False
        self._broken: HoldfastError | None = None
        self._over = threading.Event()
        self._awake = threading.Event()
        self._places = contextlib.ExitStack()

    @property
    def remarks(self) -> Sequence[Remark]:
        """See `Snapshot.remarks`."""
        return self.noted

    def check(self) -> None:
        """See `Snapshot.check`."""
        self._watch_once()
        if self._broken is not None:
            raise SnapshotBroken(self._broken.message, self._broken.hint)
        domain = self._host.domain(self._order.uuid)
        if backup_of(domain) is None:
            raise SnapshotBroken(
                f"libvirt's backup of '{self.machine.name}' ended before it was read",
                "see whether the machine was shut down, or somebody aborted it",
            )
        for disk in self.disks:
            disk.check()

    def keep_checkpoint(self) -> None:
        """See `Snapshot.keep_checkpoint`."""
        self._kept = True

    def take(
        self, wanted: Sequence[DomainDisk], mute: str | None, alive: Callable[[], None]
    ) -> None:
        """Freeze the machine, and let it go on.

        Args:
            wanted: Its disks.
            mute: Why its guest can't be asked to come to rest; None where it can.
            alive: Called again and again.
        """
        order = self._order
        domain = self._host.domain(order.uuid)
        ground = self._places.enter_context(self._side.ground(order, self._sources))
        sizes = {one.name: one.size for one in self.machine.disks}
        ground.prepare(domain, {one.name: sizes[one.name] for one in wanted})
        for source in wanted:
            if source.shared:
                text = (
                    f"disk '{source.name}' is shared: what other machines write to it meanwhile is "
                    "in the image or not"
                )
                self.noted.append(Remark("warning", "disk-shared", text, source.name))
        alive()
        self._ground = ground
        done = self._freeze_and_begin(domain, ground, wanted, mute)
        self._began = True
        self.checkpoint = done.checkpoint
        ground.reach()
        self.disks = [
            NbdDisk(
                one.name,
                sizes[one.name],
                ground.address,
                one.name,
                _BITMAP if one.name in done.incremental else None,
            )
            for one in wanted
        ]
        threading.Thread(target=self._watch, name="scratch-watch", daemon=True).start()

    def release(self) -> None:
        """End the backup, and delete the checkpoints that nobody follows any more.

        Raises:
            HoldfastError: libvirt does not let us; the next backup does it then.
        """
        self._over.set()
        for disk in self.disks:
            disk.close()
        with self._places:
            domain = self._host.domain(self._order.uuid)
            if self._began:
                end_backup(domain)
            keep = {*self._order.keep}
            keep |= {str(self.checkpoint)} if self._kept else {str(self._order.since)}
            checkpoints.delete_stale(
                domain, self._order.label, keep, self._sources, self._side.bitmap_tool()
            )

    def _freeze_and_begin(
        self, domain: Any, ground: Ground, wanted: Sequence[DomainDisk], mute: str | None
    ) -> _Try:
        if self._order.since is not None:
            files = [one for one in wanted if checkpoints.tracks_changes(one)]
            moved = checkpoints.take_over(domain, self._order.since, files)
            self.noted += [] if moved is None else [moved]
        quiesce = self._order.quiesce
        if quiesce and mute is not None:
            self._unquiet(mute)
            quiesce = False
        # What libvirt knows is asked before the guest stands still.
        tracked = {one.name for one in wanted if checkpoints.tracks_changes(one)}
        since = self._order.since
        known = checkpoints.of_disks(domain, since) & tracked if since is not None else set()
        with contextlib.ExitStack() as stack:
            if quiesce:
                who = self._host.credentials
                stack.enter_context(
                    guarded(
                        libvirt=self._host.url,
                        uuid=self._order.uuid,
                        user=who.user,
                        password=who.password,
                    )
                )
                with asked("libvirt does not set a time for the guest agent"):
                    domain.agentSetResponseTimeout(FREEZE_TIMEOUT_S)
            first = _Try(frozenset(known), self._mark(domain, wanted, tracked))
            began = time.monotonic()
            quiesce = quiesce and self._quiet(domain)
            try:
                done, reason = self._begin(domain, ground, wanted, first)
            finally:
                if quiesce:
                    self._thaw(domain)
                    self.frozen_s = time.monotonic() - began
        if since is not None:
            self.noted += [
                checkpoints.lost(one, reason)
                for one in wanted
                if one.name in tracked - done.incremental
            ]
        return done

    def _mark(self, domain: Any, wanted: Sequence[DomainDisk], tracked: set[str]) -> str | None:
        """Make the checkpoint, before the guest stands still: what it marks meanwhile is too much.

        libvirt takes a tenth of a second to find out that the checkpoint's XML is right.
        """
        if not tracked:
            return None
        name = new_checkpoint(self._order.label)
        try:
            domain.checkpointCreateXML(_checkpoint_xml(name, wanted, tracked, self.machine), 0)
        except libvirt.libvirtError as error:
            said, old = error.get_error_message(), _OLD_QCOW2 in str(error)
            if error.get_error_code() not in _UNABLE and not old:
                raise _refused(error, self.machine.name) from error
            text = f"the next backup reads everything: {_AMEND if old else said}"
            self.noted.append(Remark("warning", "bitmap-refused", text))
            return None
        self.checkpoint = name
        return name

    def _begin(
        self,
        domain: Any,
        ground: Ground,
        wanted: Sequence[DomainDisk],
        attempt: _Try,
    ) -> tuple[_Try, str]:
        """Begin in the best way that libvirt takes; why not all is incremental that might be."""
        since, reason, tries = self._order.since, checkpoints.GONE, 0
        while True:
            try:
                domain.backupBegin(
                    _backup_xml(ground, wanted, since, attempt.incremental),
                    None,
                    ground.flags,
                )
                break
            except libvirt.libvirtError as error:
                code = error.get_error_code()
                if code in _BITMAP_LOST and attempt.incremental:
                    reason = checkpoints.INCONSISTENT
                    attempt = _Try(frozenset(), attempt.checkpoint)
                elif "already in use" in str(error) and tries < _TRIES:
                    tries += 1  # somebody has that port; the next one is another
                else:
                    raise _refused(error, self.machine.name) from error
        return attempt, reason

    def _quiet(self, domain: Any) -> bool:
        self._stop_thawing()
        try:
            domain.fsFreeze()
        except libvirt.libvirtError as error:
            with contextlib.suppress(libvirt.libvirtError):
                domain.agentSetResponseTimeout(THAW_TIMEOUT_S)
                if domain.fsThaw() >= 0:
                    self._awake.set()
            if not self._awake.is_set():
                # The agent may come to, and freeze then: nobody else would wake the guest.
                self._go_on_thawing()
            self._unquiet(error.get_error_message())
            return False
        return True

    def _go_on_thawing(self) -> None:
        ends = threading.Event()
        thread = threading.Thread(target=self._thaw_late, args=(ends,), name="thaw", daemon=True)
        _late[self._host.url, self._order.uuid] = thread, ends
        thread.start()

    def _stop_thawing(self) -> None:
        """Have an earlier backup leave the guest alone: whoever freezes it now wakes it."""
        late = _late.pop((self._host.url, self._order.uuid), None)
        if late is not None:
            thread, ends = late
            ends.set()
            thread.join(FREEZE_TIMEOUT_S)

    def _thaw_late(self, ends: threading.Event) -> None:
        with contextlib.suppress(HoldfastError):
            domain = self._host.domain(self._order.uuid)
            until = time.monotonic() + THAW_LATE_S
            while time.monotonic() < until and not ends.is_set():
                with contextlib.suppress(libvirt.libvirtError):
                    if domain.fsThaw() >= 0:
                        self._awake.set()
                        return
                ends.wait(_THAW_AGAIN_S)

    def _thaw(self, domain: Any) -> None:
        try:
            domain.fsThaw()
        except libvirt.libvirtError as error:
            text = f"the guest may stand still: {error.get_error_message()}"
            text += f"; it is told to go on until it answers, for {THAW_LATE_S / 60:g} minutes"
            self.noted.append(Remark("error", "thaw-unanswered", text))
            with contextlib.suppress(libvirt.libvirtError):
                domain.agentSetResponseTimeout(THAW_TIMEOUT_S)
            # libvirt tells an agent nothing that does not greet it first: it never heard of this.
            self._go_on_thawing()

    def _unquiet(self, reason: str) -> None:
        if self._order.require_quiesce:
            raise NotQuiesced(f"'{self.machine.name}' was not brought to rest: {reason}")
        text = f"the guest was not brought to rest: {reason}"
        self.noted.append(Remark("warning", "not-quiesced", text))

    def _watch(self) -> None:
        while not self._over.wait(_WATCH_S):
            self._watch_once()

    def _watch_once(self) -> None:
        """Give the backup up before the guest has to wait for scratch."""
        if self._broken is not None or self._over.is_set():
            return
        try:
            domain = self._host.domain(self._order.uuid)
            with asked("libvirt does not tell of its backup"):
                told = domain.jobStats()
                state, why = domain.state()
            stopped = (
                state == libvirt.VIR_DOMAIN_PAUSED and why == libvirt.VIR_DOMAIN_PAUSED_IOERROR
            )
            try:
                if self._ground is not None:
                    self._ground.room(_used(told))
                if stopped:
                    raise NoSpace("the place for scratch files is full")
            except NoSpace as error:
                self._broken = error
                end_backup(domain)
                if stopped:
                    with asked(f"'{self.machine.name}' stands still"):
                        domain.resume()
        except HoldfastError:
            return  # libvirt is away: `check` tells


def _refused(error: Any, name: str) -> HoldfastError:
    """Why a backup does not begin."""
    found = translated(error, f"libvirt does not begin a backup of '{name}'")
    if isinstance(found, HypervisorError) and "Permission denied" in found.message:
        return NoPermission(found.message, _LET_QEMU_IN)
    return found


def _used(told: dict[str, Any]) -> int:
    return int(told.get("disk_temp_used", 0))


def backup_of(domain: Any) -> Any | None:
    """The backup that libvirt makes of a machine just now, as it describes it."""
    try:
        return domain_xml.read(domain.backupGetXMLDesc())
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_BACKUP:
            return None
        raise translated(error, "libvirt does not tell of its backup") from error


def end_backup(domain: Any) -> None:
    """End it, and wait until libvirt has.

    Raises:
        TooSlow: It does not end.
    """
    until = time.monotonic() + _ENDS_S
    while backup_of(domain) is not None:
        with contextlib.suppress(libvirt.libvirtError):  # it ended by itself
            domain.abortJob()
        if time.monotonic() > until:
            raise TooSlow(f"libvirt's backup of '{domain.name()}' does not end")
        time.sleep(0.01)


def busy_with(domain: Any, backup: Any) -> Busy:
    """Say that somebody else's backup is in the way."""
    server = backup.find("server")
    where = "" if server is None else server.get("socket") or server.get("name") or ""
    return Busy(
        f"machine '{domain.name()}' is being backed up by somebody else, at '{where}'",
        "wait until that is done, or end it: virsh domjobabort",
    )


def _backup_xml(
    ground: Ground,
    wanted: Sequence[DomainDisk],
    since: str | None,
    incremental: frozenset[str],
) -> str:
    head = f"<incremental>{since}</incremental>" if incremental else ""
    disks = []
    for one in wanted:
        name = quoteattr(one.name)
        scratch = quoteattr(ground.scratch(one.name))
        mode = ""
        if incremental:
            mode = "backupmode='full'"
            if one.name in incremental:
                mode = f"backupmode='incremental' exportbitmap='{_BITMAP}'"
        disks.append(
            f"<disk name={name} backup='yes' type='file' exportname={name} {mode}>"
            f"<driver type='qcow2'/><scratch file={scratch}/></disk>"
        )
    return (
        f"<domainbackup mode='pull'>{head}{ground.server()}"
        f"<disks>{''.join(disks)}</disks></domainbackup>"
    )


def _checkpoint_xml(
    name: str, wanted: Sequence[DomainDisk], tracked: set[str], machine: Machine
) -> str:
    names = {one.name for one in wanted} & tracked
    disks = [
        f"<disk name={quoteattr(one.name)} checkpoint='{'bitmap' if one.name in names else 'no'}'/>"
        for one in machine.disks
        if one.place and one.format not in domain_xml.NO_DISKS
    ]
    return (
        f"<domaincheckpoint><name>{name}</name><description>{checkpoints.DESCRIPTION}"
        f"</description><disks>{''.join(disks)}</disks></domaincheckpoint>"
    )
