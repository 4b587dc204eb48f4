"""What a mount shows of the files inside of a machine's disks: their bytes and attributes.

Must not list anything: names come from the index. Invariants: one question at a time goes to the
reader of a volume, whoever asks; what is kept of files is bounded; what can't be read is an error
of the tree, and never zeros.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from holdfast.base.errors import InputOutput, PathMissing
from holdfast.sources.filesystems.entries import (
    DOS_ATTRIBUTES,
    FILE,
    NO_STREAM,
    Entry,
    FilesUnreadable,
)

if TYPE_CHECKING:
    from holdfast.movers.machines.inside import Inside
    from holdfast.sources.filesystems.entries import Files

WINDOW_BYTES = 4 << 20
"""So much is read at once by who reads on."""

_WINDOWS_KEPT = 8
_NAMES_KEPT = 1024


class _OnVolume:
    """What is remembered of one volume."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.windows: OrderedDict[tuple[bytes, int], bytes | None] = OrderedDict()
        self.streams: OrderedDict[bytes, Entry] = OrderedDict()
        self.xattrs: OrderedDict[bytes, list[tuple[bytes, bytes]]] = OrderedDict()


class ShownInside:
    """Reads for a mount: the engine's `InsideFiles`. Thread-safe."""

    def __init__(self, inside: Inside) -> None:
        """Take what is inside; who made it closes it, after the mount has ended."""
        self._inside = inside
        self._volumes = {one.name: _OnVolume() for one in inside.volumes}

    def read(self, path: bytes, inode: int, size: int, offset: int, length: int) -> bytes:
        """The bytes of a file from an offset on; fewer only at its end.

        Args:
            path: As `Inside.entry` takes it.
            inode: As the index has it.
            size: As the index has it.
            offset: In the file.
            length: In bytes.

        Raises:
            InputOutput: Its file system can't be read.
            HoldfastError: The pool can't be read.
        """
        volume, place = self._inside.place(path)
        if volume is None:
            raise PathMissing("a directory has no bytes")
        on = self._volumes[volume.name]
        with on.lock:
            try:
                files = self._inside.files(volume)
                entry = _entry(on, files, place, inode, size)
                return _read(on, files, entry, place, offset, length)
            except KeyError as error:
                raise PathMissing("the disk has no such file, which the index has") from error
            except FilesUnreadable as error:
                raise InputOutput(str(error)) from error

    def xattrs(self, path: bytes, inode: int) -> list[tuple[bytes, bytes]]:
        """The extended attributes of what is at a path; as `read`."""
        volume, place = self._inside.place(path)
        if volume is None:
            return []
        on = self._volumes[volume.name]
        with on.lock:
            known = on.xattrs.get(place)
            if known is not None:
                return known
            try:
                files = self._inside.files(volume)
                entry = _entry(on, files, place, inode, 0)
                details = files.details(entry, place)
                found = dict(details.xattrs)
                if details.dos:
                    found[DOS_ATTRIBUTES] = details.dos.to_bytes(4, "big")
            except KeyError:
                found = {}
            except FilesUnreadable as error:
                raise InputOutput(str(error)) from error
            on.xattrs[place] = sorted(found.items())
            _bound(on.xattrs, _NAMES_KEPT)
            return on.xattrs[place]


def _entry(on: _OnVolume, files: Files, place: bytes, inode: int, size: int) -> Entry:
    """What a reader knows a file by."""
    name = place.rpartition(b"/")[2]
    if b":" not in name:
        return Entry(0, FILE, 0, 0, 0, size, 0, 0, 0, inode, 1, NO_STREAM, name, b"")
    # maybe a further stream of a file, whose number the index does not have
    entry = on.streams.get(place)
    if entry is None:
        entry = on.streams[place] = files.entry(place)
        _bound(on.streams, _NAMES_KEPT)
    return entry


def _read(
    on: _OnVolume, files: Files, entry: Entry, place: bytes, offset: int, length: int
) -> bytes:
    end = min(offset + length, entry.size)
    found = []
    while offset < end:
        number = offset // WINDOW_BYTES
        begin = number * WINDOW_BYTES
        take = min(end, begin + WINDOW_BYTES) - offset
        window = on.windows.get((place, number))
        if window is None and _reads_on(on, entry, place, number, offset):
            window = files.piece(entry, place, begin, WINDOW_BYTES)
            on.windows[place, number] = window
        if window is None:
            found.append(files.piece(entry, place, offset, take))
            on.windows[place, number] = None
        else:
            found.append(window[offset - begin : offset - begin + take])
        on.windows.move_to_end((place, number))
        _bound(on.windows, _WINDOWS_KEPT)
        offset += take
    return found[0] if len(found) == 1 else b"".join(found)


def _reads_on(on: _OnVolume, entry: Entry, place: bytes, number: int, offset: int) -> bool:
    """Whether more of a file will be wanted than was asked for."""
    return (
        entry.size <= WINDOW_BYTES
        or offset == 0
        or (place, number) in on.windows
        or (place, number - 1) in on.windows
    )


def _bound(kept: OrderedDict[Any, Any], most: int) -> None:
    while len(kept) > most:
        kept.popitem(last=False)
