"""Disks of a machine that is made at another host: written there, or here and copied by libvirt.

Must not open a path of that host here. Invariants: a volume that no restore made is never written
nor taken away; a copy is gone on with only from the very file that it was begun of.
"""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import libvirt

from holdfast.base.errors import AlreadyExists, CommandFailed, HoldfastError
from holdfast.sources import places
from holdfast.sources.machines import staged
from holdfast.sources.machines.libvirt import there, volumes
from holdfast.sources.machines.new_disks import require_format
from holdfast.sources.machines.provider import DiskTarget
from holdfast.sources.machines.unfinished import LOOK, Journal, thrown_away, write_part
from holdfast.sources.machines.unfinished import PREFIX as UNFINISHED

if TYPE_CHECKING:
    from contextlib import AbstractContextManager, ExitStack
    from pathlib import Path

    from holdfast.sources.machines.libvirt.connection import Libvirt
    from holdfast.sources.machines.new_disks import NewDisk
    from holdfast.sources.machines.provider import DiskWriter, NewMachine
    from holdfast.sources.machines.unfinished import Shelf
    from holdfast.sources.nbd.qemu_nbd import Served

_COPY = "holdfast-copy-"

# Nothing of what libvirt was sent is flushed: it lasts as long as that host's kernel runs.
_BOOT = "/proc/sys/kernel/random/boot_id"
_SEEN = f"""
if [ -e "$1" ]; then echo $(cat {_BOOT}) $({LOOK[0]} {LOOK[1]} "{LOOK[2]}" "$1"); fi
"""
_SEES = f'if [ -x "$1" ] && [ -r {_BOOT} ]; then echo yes; fi'


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
        require_format(new)
        what = f"disk '{new.disk.name}' at '{new.path}'"
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
        self._sees = _sees(host, volumes.directory_of(pool))
        # Nobody can tell there whose file it is: nothing is gone on with, and nothing stays.
        super().__init__(host, pool, order if self._sees else replace(order, image=None))
        self._given = order
        self._stack = stack
        self._staged: staged.Staged | None = None

    def disk(self, new: NewDisk, write: DiskWriter) -> None:
        """See `Making.disk`."""
        require_format(new)
        name, place = new.disk.name, str(new.path)
        journal = self._opened()
        if not self._order.verify and journal.has(name, place):
            size = journal.known[name].size
            staged.tell(self._order, name, size, size)
            return
        if self._staged is None:
            self._staged = self._stack.enter_context(staged.staged(self._given, self._place))
        here = self._staged.disk(new.disk, new.format, write)
        size = here.stat().st_size
        copy = replace(new.disk, size=size)
        part = journal.part(copy, place, source=staged.fingerprint(here))
        if part.is_new:
            self._look_again()
            self._refuse(new.path.name)
            volumes.create(self._host.get(), self._pool, new.path.name, 0, "raw")
            part.made()
        staged.tell(self._order, name, part.begin, size)
        connection = self._host.get()
        with volumes.volume_at(connection, place) as volume:
            volumes.send(connection, volume, here, part.begin, part.keep)
            part.keep(size)
            if self._order.verify:
                volumes.compare(connection, volume, here)
        self._staged.drop(name, here)

    def hand_over(self) -> None:
        """See `Making.hand_over`."""
        if self._staged is None:  # an earlier try wrote and copied all
            staged.throw_away(self._given.name, self._place)
        super().hand_over()

    def throw_away(self) -> list[str]:
        """See `Making.throw_away`."""
        gone = super().throw_away() if self._sees else []
        return gone + staged.throw_away(self._order.name, self._place)

    def _shelf(self) -> Shelf:
        name = f"{UNFINISHED}{self._order.name}"
        return VolumeShelf(self._host, self._pool, name, sees=self._sees)

    @property
    def _place(self) -> str:
        return f"{self._host.url}\0{self._directory}"


class VolumeShelf:
    """See `Shelf`: a volume, which libvirt reads and writes; a shell there tells files apart."""

    def __init__(self, host: Libvirt, pool: Any, name: str, *, sees: bool) -> None:
        """Name it; nothing is made."""
        self._host = host
        self._pool = pool
        self._name = name
        self._volume: Any = None
        self._length = 0
        self._sees = sees
        self._unseen = secrets.token_hex(8)

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
        """See `Shelf.look`."""
        if self._sees:
            script = there.script(_SEEN, [path])
            return self._host.tunnel.run(script).decode().strip() or None
        found = volumes.find(self._host.get(), path)
        return None if found is None else f"{self._unseen} 0"

    def remove(self, path: str) -> None:
        """See `Shelf.remove`."""
        volumes.delete_if_there(self._host.get(), path)


def _sees(host: Libvirt, directory: str) -> bool:
    """Whether a shell there tells the files of a directory apart."""
    if host.there() is None:
        return False
    try:
        return bool(host.tunnel.run(there.script(_SEES, [directory])).strip())
    except CommandFailed:
        return False
