"""The side of a libvirt of this machine: its files are opened here.

Must not decide what is backed up.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

import libvirt

from holdfast.base.errors import HoldfastError, Invalid, NoSpace, storage_error
from holdfast.sources import places
from holdfast.sources.machines import domain_xml
from holdfast.sources.machines.diskfiles.chain import Place, open_disk
from holdfast.sources.machines.diskfiles.mapped import map_of
from holdfast.sources.machines.labels import TRIAL, directory_prefix
from holdfast.sources.machines.libvirt.connection import asked
from holdfast.sources.machines.libvirt.off import try_disk
from holdfast.sources.machines.libvirt.side import name_of, scratch_files, writes_of_device
from holdfast.sources.machines.machine import State
from holdfast.sources.machines.new_disks import write_rest
from holdfast.sources.machines.provider import Remark
from holdfast.sources.machines.scratch_room import RESERVE_BYTES, short_of_room
from holdfast.sources.machines.unfinished import PREFIX as UNFINISHED
from holdfast.sources.machines.unfinished import Journal, NearShelf, thrown_away
from holdfast.sources.nbd.qemu_nbd import Served, file_node, run_img, serving
from holdfast.sources.nbd.wire import Address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from holdfast.engine import DiskMap
    from holdfast.sources.machines.domain_xml import DomainDisk
    from holdfast.sources.machines.libvirt.connection import Libvirt
    from holdfast.sources.machines.machine import Machine
    from holdfast.sources.machines.new_disks import NewDisk
    from holdfast.sources.machines.provider import DiskWriter, NewMachine, SnapshotOrder
    from holdfast.sources.machines.unfinished import Shelf

USUAL_PLACE = "/var/lib/libvirt/images"
_LONGEST_SOCKET = 107


@dataclass(frozen=True, slots=True)
class NearGround:
    """See `Ground`: a directory of this machine that QEMU's user may write to."""

    place: Path
    most: int
    flags: int = libvirt.VIR_DOMAIN_BACKUP_BEGIN_REUSE_EXTERNAL
    """Else libvirt makes the scratch files, while the guest stands still."""

    @property
    def address(self) -> Address:
        """See `Ground.address`."""
        return Address(str(self.place / "nbd"))

    def server(self) -> str:
        """See `Ground.server`."""
        return f"<server transport='unix' socket={quoteattr(str(self.place / 'nbd'))}/>"

    def scratch(self, disk: str) -> str:
        """See `Ground.scratch`."""
        return str(self.place / f"{disk}.scratch")

    def prepare(self, domain: Any, sizes: dict[str, int]) -> None:
        """Make the scratch files, of the user that QEMU runs as, who makes a socket there, too."""
        with asked("libvirt does not tell of a machine"):
            known = domain_xml.read(domain.XMLDesc(0))
        if len(str(self.place / "nbd")) > _LONGEST_SOCKET:
            raise Invalid(
                f"'{self.place.parent}' is too long a path for a socket in it",
                "name a scratch directory with a short path",
            )
        self.room(0)
        for disk, size in sizes.items():
            path = self.scratch(disk)
            run_img(["create", "-q", "-f", "qcow2", path, str(size)], f"scratch file '{path}'")
        for label in known.findall("seclabel"):
            if label.get("model") == "dac" and os.geteuid() == 0:
                user, _, group = (label.findtext("label") or "").partition(":")
                with contextlib.suppress(ValueError):
                    for one in (str(self.place), *map(self.scratch, sizes)):
                        os.chown(one, int(user), int(group))

    def reach(self) -> None:
        """See `Ground.reach`: what is here is reached."""

    def room(self, used: int) -> None:
        """See `Ground.room`."""
        within(used, self.most, f"in '{self.place.parent}'")
        found = os.statvfs(self.place)
        enough(found.f_bavail * found.f_frsize, f"the scratch directory '{self.place.parent}'")


def within(used: int, most: int, where: str) -> None:
    """Refuse scratch files that take more than is allowed.

    Raises:
        NoSpace: They do.
    """
    if most and used > most:
        raise NoSpace(
            f"the scratch files {where} take {used} bytes, and {most} are allowed",
            "allow more, or back the machine up when it writes less",
        )


def enough(free: int, where: str) -> None:
    """Refuse a place for scratch files that is nearly full.

    Raises:
        NoSpace: It is.
    """
    if free < RESERVE_BYTES:
        raise NoSpace(
            f"{where} has {free} bytes left, and the guest would stand still if it were full; "
            f"{RESERVE_BYTES} are to stay free",
            "give it more room, or back the machine up when it writes less",
        )


@dataclass(frozen=True, slots=True)
class FileDisk:
    """See `OffDisk`: a file, or a device, of this machine."""

    source: DomainDisk
    what: str

    def info(self) -> dict[str, Any]:
        """See `OffDisk.info`."""
        arguments = ["info", "-U", "--output=json", "-f", self.source.format, self.source.place]
        return dict(json.loads(run_img(arguments, self.what)))

    def map(self, size: int, alive: Callable[[], None]) -> DiskMap | None:
        """See `OffDisk.map`."""
        path = Path(self.source.place)
        if not os.path.isfile(path):
            return None
        try:
            found = open_disk(Place(path), self.source.format, (Path("/"),))
        except HoldfastError:
            return None  # qemu-nbd reads it all the same, or says why not
        if found.size != size:
            return None
        node = {**found.node, "read-only": True, "force-share": True}
        return map_of(replace(found, node=node), alive)

    def serving(self, bitmap: str | None) -> AbstractContextManager[Served]:
        """See `OffDisk.serving`."""
        node = {
            "driver": self.source.format,
            "file": file_node(self.source.place),
            "read-only": True,
            "force-share": True,
        }
        return serving(node, self.what, bitmap=bitmap)


class Near:
    """See `Side`."""

    def __init__(self, host: Libvirt) -> None:
        """Take a host whose files are here."""
        self._host = host

    @contextlib.contextmanager
    def ground(
        self,
        order: SnapshotOrder,
        sources: Sequence[DomainDisk],  # noqa: ARG002 - the order says where
    ) -> Iterator[NearGround]:
        """See `Side.ground`."""
        with places.private_directory(directory_prefix(order.label), order.scratch) as place:
            yield NearGround(place, order.scratch_bytes)

    def lives(self, backup: Any) -> bool | None:
        """See `Side.lives`."""
        place = _place_of(backup)
        return places.lives(place) if place is not None and place.exists() else None

    def clear(
        self,
        domain: Any,  # noqa: ARG002 - the files of each backup are beside each other
        backup: Any,
        prefix: str,
        order: SnapshotOrder | None,
    ) -> None:
        """See `Side.clear`."""
        place = _place_of(backup)
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)
        if order is not None:
            places.clear(prefix, order.scratch)

    def leftovers(self) -> list[str]:
        """See `Side.leftovers`: a directory of scratch is known by its backup alone."""
        return []

    @contextlib.contextmanager
    def off_disk(
        self,
        source: DomainDisk,
        what: str,
        scratch: Path,  # noqa: ARG002 - nothing is copied
    ) -> Iterator[FileDisk]:
        """See `Side.off_disk`."""
        yield FileDisk(source, what)

    def state(self, source: DomainDisk) -> object:
        """See `Side.state`."""
        try:
            found = os.stat(source.place)
            if stat.S_ISBLK(found.st_mode):
                return _writes_of(source.place, found.st_rdev)
        except OSError as error:
            raise storage_error(error)(
                f"the disk '{source.place}' can't be looked at: {error.strerror}",
                "run the proxy on the machine's host, as root",
            ) from error
        return found.st_mtime_ns, found.st_size

    def bitmap_tool(self) -> Callable[[Sequence[str], str], bytes] | None:
        """See `Side.bitmap_tool`."""
        return run_img

    def file(self, path: str) -> bytes:
        """See `Side.file`."""
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise storage_error(error)(str(error.strerror)) from error

    @contextlib.contextmanager
    def making(self, order: NewMachine) -> Iterator[NearMaking]:
        """See `Side.making`."""
        connection = self._host.get()
        directory = directory_of(connection, order.storage)
        with contextlib.closing(NearShelf(directory / f"{UNFINISHED}{order.name}")) as shelf:
            yield NearMaking(directory, shelf, order)
        with contextlib.suppress(libvirt.libvirtError):
            connection.storagePoolLookupByTargetPath(str(directory)).refresh()

    def try_out(
        self, machine: Machine, wanted: Sequence[DomainDisk], scratch: Path
    ) -> list[Remark]:
        """See `Side.try_out`."""
        if machine.state is State.OFF:
            tried = (try_disk(self, machine, source, scratch) for source in wanted)
            return [remark for found in tried for remark in found]
        try:
            with places.private_directory(directory_prefix(TRIAL), scratch) as place:
                return short_of_room(scratch, place)
        except OSError as error:
            text = f"no scratch files can be made in '{scratch}': {error.strerror} "
            text += "(name a directory that this user may write to)"
            return [Remark("error", "no-scratch", text)]


class NearMaking:
    """See `Making`: files in a directory of this machine.

    Attributes:
        made: Those that were.
    """

    def __init__(
        self, directory: Path, shelf: Shelf | None = None, order: NewMachine | None = None
    ) -> None:
        """Nothing is made yet."""
        self._directory = directory
        self._shelf = shelf
        self._order = order
        self._journal: Journal | None = None
        self.made: list[Path] = []

    def path(self, name: str) -> str:
        """See `Making.path`."""
        return str(self._directory / name)

    def disk(self, new: NewDisk, write: DiskWriter) -> None:
        """See `Making.disk`."""
        if self._journal is None:
            assert self._shelf is not None and self._order is not None  # noqa: S101, PT018
            self._journal = Journal.opened(self._shelf, self._order)
        write_rest(new, write, self._journal)

    def hand_over(self) -> None:
        """See `Making.hand_over`."""
        if self._journal is not None:
            self._journal.hand_over()

    def throw_away(self) -> list[str]:
        """See `Making.throw_away`."""
        assert self._shelf is not None and self._order is not None  # noqa: S101, PT018
        return thrown_away(self._shelf, self._order)

    def file(self, name: str, data: bytes) -> None:
        """See `Making.file`."""
        path = self._directory / name
        try:
            path.write_bytes(data)
        except OSError as error:
            raise storage_error(error)(f"'{path}' can't be made: {error.strerror}") from error
        self.made.append(path)

    def undo(self) -> None:
        """See `Making.undo`."""
        for path in self.made:
            with contextlib.suppress(OSError):
                path.unlink()
        if self._journal is not None:
            self._journal.failed()


def _writes_of(place: str, number: int) -> tuple[str, ...]:
    """What was written to a block device so far, with what the kernel holds back."""
    opened = os.open(place, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
    told = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/stat")
    return writes_of_device(told.read_text())


def _place_of(backup: Any) -> Path | None:
    """The directory of a backup of ours; None for somebody else's, or one of another side."""
    name = name_of(backup)
    if not name:
        return None
    parents = {Path(one).parent for one in scratch_files(backup)}
    return next((one for one in parents if one.name == name), None)


def directory_of(connection: Any, storage: str | None) -> Path:
    """Where new disks go.

    Raises:
        Invalid: There is no such storage pool.
        HoldfastError: The directory can't be made.
    """
    if storage is not None and storage.startswith("/"):
        place = storage
    else:
        place = USUAL_PLACE
        try:
            pool = connection.storagePoolLookupByName(storage or "default")
            place = domain_xml.read(pool.XMLDesc()).findtext("target/path") or place
        except libvirt.libvirtError as error:
            if storage is not None:
                raise Invalid(
                    f"this host has no storage pool '{storage}'",
                    "see 'virsh pool-list', or name a directory",
                ) from error
    try:
        os.makedirs(place, mode=0o711, exist_ok=True)
    except OSError as error:
        raise storage_error(error)(f"'{place}' can't be made: {error.strerror}") from error
    return Path(place)
