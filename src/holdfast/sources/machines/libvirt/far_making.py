"""Disks of a machine that is made at another host: written there, or here and copied by libvirt.

Must not open a path of that host here. Invariants: a volume that no restore made is never written
nor taken away; a copy is gone on with only from the very file that it was begun of, into the one
that was made for it, which bears a mark in place of its first bytes until all of it is there.
"""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import libvirt

from holdfast.base.errors import (
    AlreadyExists,
    CommandFailed,
    HoldfastError,
    IntegrityError,
    Invalid,
    Unreachable,
    Unsupported,
)
from holdfast.sources import places
from holdfast.sources.machines import staged
from holdfast.sources.machines.libvirt import there, volumes
from holdfast.sources.machines.provider import DiskTarget
from holdfast.sources.machines.unfinished import PREFIX as UNFINISHED
from holdfast.sources.machines.unfinished import Journal, thrown_away, write_part

if TYPE_CHECKING:
    from contextlib import AbstractContextManager, ExitStack
    from pathlib import Path

    from holdfast.sources.machines.libvirt.connection import Libvirt
    from holdfast.sources.machines.new_disks import NewDisk
    from holdfast.sources.machines.provider import DiskWriter, NewMachine
    from holdfast.sources.machines.unfinished import Shelf
    from holdfast.sources.nbd.qemu_nbd import Served

_COPY = "holdfast-copy-"

BOOT = "/proc/sys/kernel/random/boot_id"
"""Nothing of what libvirt was sent is flushed: it lasts as long as that host's kernel runs."""

_MOST_VMDK_BYTES = (2 << 40) - (1 << 30)
"""Places in a VMDK are 32 bits of sectors, and qemu goes on past what they can tell."""

HEAD_BYTES = 64
_MARK = b"holdfast-restore"


class FarMaking:
    """See `Making`: volumes of a storage pool there, written by qemu's programs there."""

    def __init__(self, host: Libvirt, pool: Any, order: NewMachine) -> None:
        """Nothing is made yet."""
        self._host = host
        self._pool = pool
        self._order = order
        self._directory = volumes.directory_of(pool)
        self._journal: Journal | None = None
        self._made: list[Any] = []

    def path(self, name: str) -> str:
        """See `Making.path`."""
        return f"{self._directory}/{name}"

    def disk(self, new: NewDisk, write: DiskWriter) -> None:
        """See `Making.disk`."""
        what = f"disk '{new.disk.name}' at '{new.path}'"
        if new.format == "vmdk" and new.disk.size > _MOST_VMDK_BYTES:
            raise Invalid(
                f"{what} has {new.disk.size} bytes, and a VMDK file holds less than 2 TiB",
                "use another format",
            )
        journal = self._opened()
        part = journal.part(new.disk, str(new.path))
        if not part.is_new and not there.mended(self._host.tunnel, new, what):
            journal.disbelieve(part)
        if part.is_new:
            name = new.path.name
            self._look_again()
            self._refuse(name)
            volumes.create(self._host.get(), self._pool, name, new.disk.size, new.format)
            part.made()
        node = {"driver": new.format, "file": {"driver": "file", "filename": str(new.path)}}

        def serve() -> AbstractContextManager[Served]:
            return there.serving(self._host.tunnel, node, what, writable=True)

        write_part(part, DiskTarget(new.format, None, serve), write)

    def hand_over(self) -> None:
        """See `Making.hand_over`."""
        if self._journal is not None:
            self._journal.hand_over()

    def throw_away(self) -> list[str]:
        """See `Making.throw_away`."""
        return thrown_away(self._shelf(), self._order)

    def file(self, name: str, data: bytes) -> None:
        """See `Making.file`."""
        with places.private_directory(_COPY) as directory:
            (directory / "file").write_bytes(data)
            self.upload(name, directory / "file")

    def undo(self) -> None:
        """See `Making.undo`."""
        for one in self._made:
            with contextlib.suppress(libvirt.libvirtError):
                one.delete()
        if self._journal is not None:
            with contextlib.suppress(HoldfastError):  # what failed first is what is told
                self._journal.failed()
            self._look_again()

    def _shelf(self) -> Shelf:
        """Where the journal lies."""
        return there.FarShelf(self._host.tunnel, self.path(f"{UNFINISHED}{self._order.name}"))

    def _opened(self) -> Journal:
        """The journal, opened once."""
        self._journal = self._journal or Journal.opened(self._shelf(), self._order)
        return self._journal

    def _look_again(self) -> None:
        """Files are made and taken away beside libvirt."""
        with contextlib.suppress(libvirt.libvirtError):
            self._pool.refresh()

    def upload(self, name: str, source: Path) -> None:
        """Make a file with the bytes of one that is here.

        Raises:
            HoldfastError: There is one, or it can't be made.
        """
        self._refuse(name)
        self._made.append(volumes.create_of(self._host.get(), self._pool, name, source))

    def _refuse(self, name: str) -> None:
        with contextlib.suppress(libvirt.libvirtError):
            self._pool.storageVolLookupByName(name)
            raise AlreadyExists(
                f"storage pool '{self._pool.name()}' has a volume '{name}'",
                "give the machine another name",
            )


class CopiedMaking(FarMaking):
    """See `Making`: disks are written here, and libvirt copies them there."""

    def __init__(self, host: Libvirt, pool: Any, order: NewMachine, stack: ExitStack) -> None:
        """Nothing is made yet.

        Args:
            host: Where.
            pool: In which storage pool.
            order: What.
            stack: Ends when the machine is made, or has failed.
        """
        super().__init__(host, pool, order)
        self._stack = stack
        self._staged: staged.Staged | None = None

    def disk(self, new: NewDisk, write: DiskWriter) -> None:
        """See `Making.disk`."""
        name, place = new.disk.name, str(new.path)
        journal = self._opened()
        if not self._order.verify and journal.has(name, place):
            size = journal.known[name].size
            staged.tell(self._order, name, size, size)
            return
        if self._staged is None:
            self._staged = self._stack.enter_context(staged.staged(self._order, self._place))
        here = self._staged.disk(new.disk, new.format, write)
        size, head = here.stat().st_size, _head(here)
        copy = replace(new.disk, size=size)
        part = journal.part(copy, place, source=staged.fingerprint(here), whole=head.hex())
        if part.is_new:
            self._look_again()
            self._refuse(new.path.name)
            mark = _MARK + secrets.token_bytes(HEAD_BYTES - len(_MARK))
            part.made(identity=mark.hex())
            made = volumes.create(self._host.get(), self._pool, new.path.name, 0, "raw")
            volumes.send_bytes(self._host.get(), made, 0, mark)
        staged.tell(self._order, name, part.begin, size)
        connection = self._host.get()
        with volumes.volume_at(connection, place) as volume:
            volumes.send(connection, volume, here, max(part.begin, HEAD_BYTES), part.keep)
            part.keep(size)
            if self._order.verify:
                volumes.compare(connection, volume, here, HEAD_BYTES)
        self._staged.drop(name, here)

    def hand_over(self) -> None:
        """See `Making.hand_over`."""
        if self._staged is None:  # an earlier try wrote and copied all
            staged.throw_away(self._order.name, self._place)
        if self._journal is not None:
            self._unmark(self._journal)
        super().hand_over()

    def throw_away(self) -> list[str]:
        """See `Making.throw_away`."""
        return super().throw_away() + staged.throw_away(self._order.name, self._place)

    def _unmark(self, journal: Journal) -> None:
        """All disks are there: give each the first bytes that it has to have."""
        connection, life = self._host.get(), journal.shelf.life()
        wanted = [journal.known[name] for name in sorted(journal.wanted)]
        if any(one.life != life for one in wanted):
            raise Unreachable(
                f"the host of '{self._order.name}' was started anew while its disks were copied "
                "there: what was not flushed may be lost",
                "give the same command again: those disks are copied anew",
            )
        for one in wanted:
            with volumes.volume_at(connection, one.path) as volume:
                give_head(connection, volume, bytes.fromhex(one.whole))

    def _shelf(self) -> Shelf:
        return VolumeShelf(self._host, self._pool, f"{UNFINISHED}{self._order.name}")

    @property
    def _place(self) -> str:
        return f"{self._host.url}\0{self._directory}"


class VolumeShelf:
    """See `Shelf`: a volume, which libvirt reads and writes; files are known by how they begin."""

    def __init__(self, host: Libvirt, pool: Any, name: str) -> None:
        """Name it; nothing is made."""
        self._host = host
        self._pool = pool
        self._name = name
        self._volume: Any = None
        self._length = 0
        self._untold = secrets.token_hex(8)

    def read(self) -> bytes:
        """See `Shelf.read`."""
        path = f"{volumes.directory_of(self._pool)}/{self._name}"
        self._volume = volumes.find(self._host.get(), path)
        if self._volume is None:
            return b""
        data = volumes.beginning(self._host.get(), self._volume, 0)
        self._length = len(data)
        return data

    def append(self, data: bytes) -> None:
        """See `Shelf.append`; it lasts as long as what it tells of."""
        if self._volume is None:
            self._volume = volumes.create(self._host.get(), self._pool, self._name, 0, "raw")
        volumes.send_bytes(self._host.get(), self._volume, self._length, data)
        self._length += len(data)

    def clear(self) -> None:
        """See `Shelf.clear`."""
        if self._volume is not None:
            volumes.delete_if_there(self._host.get(), self._volume.path())
        self._volume, self._length = None, 0

    def look(self, path: str) -> str | None:
        """See `Shelf.look`: of a disk that is not whole its mark, else its first bytes."""
        found = volumes.find(self._host.get(), path)
        if found is None:
            return None
        size = volumes.size_bytes(found)
        length = min(size, HEAD_BYTES)
        begins = volumes.beginning(self._host.get(), found, length) if length else b""
        return f"{begins.hex() or 'empty'} {size}"

    def remove(self, path: str) -> None:
        """See `Shelf.remove`."""
        volumes.delete_if_there(self._host.get(), path)

    def life(self) -> str:
        """See `Shelf.life`: until that host starts anew; no longer than this, where none tells."""
        return _boot(self._host) or self._untold


def give_head(connection: Any, volume: Any, head: bytes) -> None:
    """Write the first bytes of a disk, and look that they are there.

    Raises:
        IntegrityError: They are not.
        HoldfastError: They can't be written.
    """
    volumes.send_bytes(connection, volume, 0, head)
    if volumes.beginning(connection, volume, len(head)) != head:
        raise IntegrityError(
            f"volume '{volume.name()}' does not begin with what was written to it",
            "see what else writes to the storage pool; restore again with --restart",
        )


def _head(disk: Path) -> bytes:
    with disk.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if len(head) < HEAD_BYTES:
        raise Unsupported(f"a disk of {len(head)} bytes can't be copied to another host")
    return head


def _boot(host: Libvirt) -> str:
    """What names the time since that host was started; empty where neither of two ways tells."""
    found = host.there()
    if found is not None and found.uid is not None:
        with contextlib.suppress(CommandFailed):
            return host.tunnel.run(there.script('cat "$1"', [BOOT])).decode().strip()
    connection = host.get()
    with (
        contextlib.suppress(HoldfastError, libvirt.libvirtError),
        volumes.volume_at(connection, BOOT) as volume,
    ):
        return volumes.beginning(connection, volume, 0).decode(errors="replace").strip()
    return ""
