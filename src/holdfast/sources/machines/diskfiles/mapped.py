"""A disk in files that stand still: read in those files wherever its content lies there as it is.

Must not know a format's tables: qemu tells where content lies, and reads what lies there in another
form. Invariants: no file is read that is shorter than its disk's own tables say, since qemu reads
zeroes there without a word, and such a backup would look whole and be worthless; whoever reads has
the disk open by `qemu-nbd` too, whose lock keeps others from writing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.base.errors import DiskUnreadable
from holdfast.engine import DiskSource
from holdfast.sources.machines.diskfiles.formats import QCOW2, RAW, VMDK
from holdfast.sources.machines.nbd_disk import NbdDisk
from holdfast.sources.machines.provider import Kind, Range
from holdfast.sources.nbd.extents import MOST_EXTENTS
from holdfast.sources.nbd.qemu_map import LayerFiles, read_map

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.engine import DiskMap
    from holdfast.sources.machines.diskfiles.chain import DiskFile, Layer
    from holdfast.sources.nbd.wire import Address


class MappedDisk(NbdDisk):
    """A disk that an NBD server has, and most of which is read in its files. Thread-safe."""

    def __init__(self, name: str, size: int, address: Address, disk_map: DiskMap) -> None:
        """Name it; nobody is asked.

        Args:
            name: Of the disk.
            size: In bytes.
            address: Of the server; the disk is its default export.
            disk_map: Where its content lies.
        """
        super().__init__(name, size, address, "")
        self.map = disk_map

    def ranges(self) -> Sequence[Range]:
        """What is to be read."""
        found = self.map.ranges(MOST_EXTENTS)
        return [Range(offset, length, Kind(kind)) for offset, length, kind in found]

    def source(self) -> DiskSource:
        """What the engine reads it by."""
        return DiskSource.mapped(self.map, super().source())


def map_of(disk: DiskFile, alive: Callable[[], None] = lambda: None) -> DiskMap:
    """Look where a disk's content lies.

    Raises:
        DiskUnreadable: Some of it lies beyond the end of its file, or its tables are damaged.
        HoldfastError: Its files can't be read.
    """
    # In an archive some places are told from where the disk begins, others from where that does.
    within = disk.place.length is not None
    layers = [LayerFiles((), None) if within else _files(one) for one in disk.layers]
    found = read_map(disk.node, f"disk file '{disk.place}'", disk.size, layers, alive)
    if found.truncated is not None:
        path, size, needed = found.truncated
        raise DiskUnreadable(
            f"'{path}' is truncated: it has {size} bytes, and content up to byte {needed}",
            "copy it again from where it is whole",
        )
    return found


def _files(layer: Layer) -> LayerFiles:
    if layer.format == RAW:
        return LayerFiles(layer.parts, None)
    # The last cluster of a file may be cut where nothing was written to its end.
    return LayerFiles(layer.parts, layer.cluster - 1 if layer.format in (QCOW2, VMDK) else 0)
