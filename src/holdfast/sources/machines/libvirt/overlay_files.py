"""Files of machines that run from their image: made, known again and taken away, here or there.

Must not touch what does not read from the image that it is said to. Invariant: nothing of another
host is opened by its path here.
"""

from __future__ import annotations

import contextlib
import glob
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import libvirt

from holdfast.base.errors import HoldfastError
from holdfast.sources import places
from holdfast.sources.machines import overlays
from holdfast.sources.machines.libvirt import volumes
from holdfast.sources.machines.libvirt.connection import asked
from holdfast.sources.machines.libvirt.far import Far
from holdfast.sources.machines.libvirt.near import Near, NearMaking, directory_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.sources.machines.libvirt.connection import Libvirt
    from holdfast.sources.machines.libvirt.far_making import FarMaking
    from holdfast.sources.machines.libvirt.side import Making, Side
    from holdfast.sources.machines.new_disks import NewDisk
    from holdfast.sources.machines.overlays import Over
    from holdfast.sources.machines.provider import DiskWriter, NewMachine

_HEADER_BYTES = 64 << 10
_LARGEST_BYTES = 1 << 20
"""No overlay is so large when it is made, but for disks of many terabytes."""
_COPY = "holdfast-overlay-"


class OverlayFiles(Protocol):
    """The files of one machine."""

    def side(self) -> Side:
        """What makes overlays where it makes disks."""
        ...

    def reads(self, path: str) -> bool:
        """Whether a file is an overlay over the machine's image."""
        ...

    def remove(self, path: str) -> None:
        """Take a file away, if it is there and can be."""
        ...

    def clear(self) -> None:
        """Take away what a machine that is not defined left.

        Raises:
            HoldfastError: It can't be looked for.
        """
        ...


class NearFiles:
    """See `OverlayFiles`: of this machine."""

    def __init__(self, host: Libvirt, over: Over) -> None:
        """Take a machine of a host."""
        self._host = host
        self._over = over

    def side(self) -> Side:
        """See `OverlayFiles.side`."""
        return _OverNear(self._host, self._over.socket)

    def reads(self, path: str) -> bool:
        """See `OverlayFiles.reads`."""
        return Path(path).exists() and overlays.reads_from(Path(path), self._over.socket)

    def remove(self, path: str) -> None:
        """See `OverlayFiles.remove`."""
        with contextlib.suppress(OSError):
            Path(path).unlink()

    def clear(self) -> None:
        """See `OverlayFiles.clear`."""
        over = self._over
        directory = directory_of(self._host.get(), over.storage)
        if overlays.remove_all(directory, over, f"{glob.escape(over.name)}-*"):
            (directory / f"{over.name}.nvram").unlink(missing_ok=True)


class FarFiles:
    """See `OverlayFiles`: volumes of another host."""

    def __init__(self, host: Libvirt, over: Over) -> None:
        """Take a machine of a host."""
        self._host = host
        self._over = over

    def side(self) -> Side:
        """See `OverlayFiles.side`."""
        return _OverFar(self._host, self._over.socket)

    def reads(self, path: str) -> bool:
        """See `OverlayFiles.reads`."""
        connection = self._host.get()
        try:
            volume = volumes.find(connection, path)
            if volume is None:
                return False
            header = volumes.beginning(connection, volume, _HEADER_BYTES)
        except HoldfastError:
            return False  # no overlay is so short, nor without a directory
        return overlays.names_in(header, self._over.socket)

    def _is_blank(self, path: str) -> bool:
        """Whether a file has nothing: one that was made by who died before it was written."""
        connection = self._host.get()
        with contextlib.suppress(HoldfastError, libvirt.libvirtError):
            volume = volumes.find(connection, path)
            size = _LARGEST_BYTES if volume is None else int(volume.info()[1])
            return size < _LARGEST_BYTES and not any(volumes.beginning(connection, volume, size))
        return False

    def remove(self, path: str) -> None:
        """See `OverlayFiles.remove`."""
        with contextlib.suppress(HoldfastError):
            volumes.delete_if_there(self._host.get(), path)

    def clear(self) -> None:
        """See `OverlayFiles.clear`."""
        connection, over = self._host.get(), self._over
        with volumes.pool_named(connection, over.storage or "") as pool:
            directory = volumes.directory_of(pool)
            with asked(f"libvirt does not tell of the volumes of '{pool.name()}'"):
                pool.refresh()
                known = pool.listVolumes()
            cleared = False
            for name in known:
                path = f"{directory}/{name}"
                ours = name.startswith(f"{over.name}-") and name.endswith(".qcow2")
                if ours and (self.reads(path) or self._is_blank(path)):
                    self.remove(str(Path(path).with_suffix(".raw")))
                    volumes.delete_if_there(connection, path)
                    cleared = True
            if cleared:
                self.remove(f"{directory}/{over.name}.nvram")


class _OverNear(Near):
    """Makes overlays in place of disks."""

    def __init__(self, host: Libvirt, socket: str) -> None:
        super().__init__(host)
        self._connected = host
        self._socket = socket

    @contextlib.contextmanager
    def making(self, order: NewMachine) -> Iterator[NearMaking]:
        """See `Side.making`."""
        yield _OverMaking(directory_of(self._connected.get(), order.storage), self._socket)


class _OverMaking(NearMaking):
    def __init__(self, directory: Path, socket: str) -> None:
        super().__init__(directory)
        self._make = overlays.maker(socket)

    def disk(self, new: NewDisk, write: DiskWriter) -> None:
        """See `Making.disk`."""
        self._make(new, write)
        self.made.append(new.path)


class _OverFar(Far):
    """Makes overlays in place of disks."""

    def __init__(self, host: Libvirt, socket: str) -> None:
        super().__init__(host)
        self._socket = socket

    @contextlib.contextmanager
    def making(self, order: NewMachine) -> Iterator[Making]:  # type: ignore[override]
        """See `Side.making`."""
        with super().making(order) as made:
            yield _OverFarMaking(made, self._socket)


class _OverFarMaking:
    """See `Making`."""

    def __init__(self, made: FarMaking, socket: str) -> None:
        self._made = made
        self._socket = socket

    def path(self, name: str) -> str:
        """See `Making.path`."""
        return self._made.path(name)

    def disk(self, new: NewDisk, _write: DiskWriter) -> None:
        """See `Making.disk`: it is made here, as QEMU's programs may not be there."""
        what = f"disk '{new.disk.name}' at '{new.path}'"
        with places.private_directory(_COPY) as directory:
            overlays.create(directory / "disk", new.disk, self._socket, what)
            self._made.upload(new.path.name, directory / "disk")

    def file(self, name: str, data: bytes) -> None:
        """See `Making.file`."""
        self._made.file(name, data)

    def hand_over(self) -> None:
        """See `Making.hand_over`."""
        self._made.hand_over()

    def undo(self) -> None:
        """See `Making.undo`."""
        self._made.undo()

    def throw_away(self) -> list[str]:
        """See `Making.throw_away`: overlays have no journal."""
        return []
