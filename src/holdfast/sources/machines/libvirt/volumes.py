"""Files of a host as volumes of libvirt's storage pools: made, read, written and taken away there.

Must not need anything of that host but libvirt. Invariant: a pool that is made to get at a
directory is gone from libvirt's list when its user is; files that were there stay.
"""

from __future__ import annotations

import contextlib
import errno
import os
import zlib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

import libvirt

from holdfast.base.errors import HoldfastError, IntegrityError, Invalid
from holdfast.sources import places
from holdfast.sources.machines import domain_xml
from holdfast.sources.machines.labels import PREFIX
from holdfast.sources.machines.libvirt.connection import asked
from holdfast.sources.machines.new_disks import make_empty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from holdfast.sources.machines.domain_xml import DomainDisk

SENT_BYTES = 256 << 20
"""After so much of a disk was copied to its place that is noted."""
_PIECE = 256 << 10
_OF_FILES = ("dir", "fs", "netfs")
_NAME_POOL = "define a storage pool there (virsh pool-define-as), or name one, or a directory"


def of_files(pool: Any) -> bool:
    """Whether the volumes of a pool are files."""
    return domain_xml.read(pool.XMLDesc()).get("type") in _OF_FILES


def directory_of(pool: Any) -> str:
    """Where the files of a pool are."""
    with asked("libvirt does not tell of a storage pool"):
        return domain_xml.read(pool.XMLDesc()).findtext("target/path") or ""


@contextlib.contextmanager
def pool_over(connection: Any, directory: str) -> Iterator[Any]:
    """A pool over a directory: one that there is, or one of ours for the time of the block.

    Raises:
        HoldfastError: There is no such directory.
    """
    try:
        yield connection.storagePoolLookupByTargetPath(directory)
        return
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_POOL:
            raise
    name = f"{PREFIX}-{zlib.crc32(directory.encode()):08x}"
    with asked(f"the directory '{directory}' can't be used by libvirt"):
        pool = connection.storagePoolCreateXML(
            f"<pool type='dir'><name>{name}</name><target><path>{escape(directory)}</path>"
            "</target></pool>"
        )
    try:
        yield pool
    finally:
        with contextlib.suppress(libvirt.libvirtError):
            pool.destroy()


@contextlib.contextmanager
def pool_named(connection: Any, wanted: str, sources: Sequence[DomainDisk] = ()) -> Iterator[Any]:
    """A pool whose volumes are files.

    Args:
        connection: To libvirt.
        wanted: Its name, or a directory; empty for the one of the first disk, or a usual one.
        sources: The disks of the machine that it is for.

    Raises:
        Invalid: There is no such pool.
        HoldfastError: libvirt does not tell.
    """
    if wanted.startswith("/"):
        with pool_over(connection, wanted.rstrip("/")) as pool:
            yield pool
        return
    if wanted:
        try:
            found = connection.storagePoolLookupByName(wanted)
        except libvirt.libvirtError as error:
            raise Invalid(
                f"this host has no storage pool '{wanted}'",
                "see 'virsh pool-list', or name a directory",
            ) from error
    else:
        found = _usual(connection, sources)
    if not of_files(found):
        raise Invalid(f"volumes of the storage pool '{found.name()}' are no files", _NAME_POOL)
    yield found


def _usual(connection: Any, sources: Sequence[DomainDisk]) -> Any:
    for one in sources:
        with contextlib.suppress(libvirt.libvirtError):
            pool = connection.storageVolLookupByPath(one.place).storagePoolLookupByVolume()
            if of_files(pool):
                return pool
    with contextlib.suppress(libvirt.libvirtError):
        pool = connection.storagePoolLookupByName("default")
        if pool.isActive() and of_files(pool):
            return pool
    with asked("libvirt does not tell of storage pools"):
        active = connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE)
    for pool in active:
        if of_files(pool) and not pool.name().startswith(f"{PREFIX}-"):
            return pool
    raise Invalid("this host has no storage pool of files", _NAME_POOL)


def free_bytes(pool: Any) -> int:
    """How much more a pool can hold.

    Raises:
        HoldfastError: libvirt does not tell.
    """
    with contextlib.suppress(libvirt.libvirtError):  # while something is written to it
        pool.refresh()
    with asked("libvirt does not tell of a storage pool"):
        return int(pool.info()[3])


def create(connection: Any, pool: Any, name: str, size: int, image_format: str) -> Any:
    """Make a volume, all of it zero.

    Raises:
        HoldfastError: It can't be made.
    """
    if image_format == "raw":
        return _create(pool, name, size)
    # libvirt rounds the sizes of what it makes to KiB, and comes to harm itself when QEMU then
    # finds that a scratch file is not as large as its disk: an empty image is uploaded instead.
    with places.private_directory(f"{PREFIX}-empty-") as directory:
        empty = directory / name  # which is written into a VMDK file
        make_empty(empty, image_format, size, f"volume '{name}'")
        return create_of(connection, pool, name, empty)


def create_of(connection: Any, pool: Any, name: str, source: Path) -> Any:
    """Make a volume with the bytes of a file of this machine.

    Raises:
        HoldfastError: It can't be made.
    """
    made = _create(pool, name, source.stat().st_size)
    try:
        upload(connection, made, source)
    except BaseException:
        with contextlib.suppress(libvirt.libvirtError):
            made.delete()
        raise
    return made


def _create(pool: Any, name: str, size: int) -> Any:
    xml = (
        f"<volume><name>{escape(name)}</name><capacity unit='bytes'>{size}</capacity>"
        "<allocation unit='bytes'>0</allocation><target><format type='raw'/></target></volume>"
    )
    with asked(f"volume '{name}' can't be made in storage pool '{pool.name()}'"):
        return pool.createXML(xml)


def delete_all(pool: Any, prefix: str, holding: str = "") -> list[str]:
    """Take away the volumes whose names begin so, and have that in them; which those were."""
    with contextlib.suppress(libvirt.libvirtError):
        pool.refresh()
    found = []
    with asked("libvirt does not tell of volumes"):
        known = pool.listAllVolumes()
    for one in known:
        name = one.name()
        if name.startswith(prefix) and holding in name:
            with contextlib.suppress(libvirt.libvirtError):
                one.delete()
                found.append(name)
    return found


@contextlib.contextmanager
def volume_at(connection: Any, path: str) -> Iterator[Any]:
    """The volume that a path of that host is.

    Raises:
        HoldfastError: There is no such file.
    """
    try:
        found = connection.storageVolLookupByPath(path)
    except libvirt.libvirtError:
        found = None
    if found is not None:
        yield found
        return
    place = PurePosixPath(path)
    with pool_over(connection, str(place.parent)) as pool:
        with asked(f"'{path}' can't be found"):
            found = pool.storageVolLookupByName(place.name)
        yield found


def find(connection: Any, path: str) -> Any:
    """The volume that a file is which may have been made just now; None where there is none.

    Raises:
        HoldfastError: There is no such directory.
    """
    place = PurePosixPath(path)
    with pool_over(connection, str(place.parent)) as pool:
        with contextlib.suppress(libvirt.libvirtError):  # while something is written to it
            pool.refresh()
        try:
            return pool.storageVolLookupByName(place.name)
        except libvirt.libvirtError:
            return None


def delete_if_there(connection: Any, path: str) -> None:
    """Take a file away, if there is one.

    Raises:
        HoldfastError: It can't be taken away.
    """
    found = find(connection, path)
    if found is not None:
        with asked(f"'{path}' can't be removed"):
            found.delete()


def size_bytes(volume: Any) -> int:
    """How long the file of a volume is.

    Raises:
        HoldfastError: libvirt does not tell.
    """
    with asked(f"libvirt does not tell of volume '{volume.name()}'"):
        return int(domain_xml.read(volume.XMLDesc()).findtext("physical") or 0)


def beginning(connection: Any, volume: Any, length: int) -> bytes:
    """The first bytes of a volume, which has so many; all of a small one for 0.

    Raises:
        HoldfastError: It can't be read.
    """
    found = bytearray()
    with asked(f"volume '{volume.name()}' can't be read"):
        stream = connection.newStream()
        volume.download(stream, 0, length, 0)
        stream.recvAll(lambda _stream, data, into: into.extend(data), found)
        stream.finish()
    return bytes(found)


def download(connection: Any, volume: Any, into: Path) -> None:
    """Copy a volume into a file here; its holes stay holes.

    Raises:
        HoldfastError: It can't be read, or there is no room here.
    """
    file = os.open(into, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, file)
        stream = connection.newStream()
        with asked(f"volume '{volume.name()}' can't be read"):
            volume.download(stream, 0, 0, libvirt.VIR_STORAGE_VOL_DOWNLOAD_SPARSE_STREAM)
            stream.sparseRecvAll(_write, _skip_over, file)
            stream.finish()
        os.ftruncate(file, os.lseek(file, 0, os.SEEK_CUR))


def upload(connection: Any, volume: Any, source: Path) -> None:
    """Copy a file of this machine into a volume; its holes stay holes.

    Raises:
        HoldfastError: It can't be written.
    """
    file = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        stream = connection.newStream()
        with asked(f"volume '{volume.name()}' can't be written"):
            volume.upload(stream, 0, 0, libvirt.VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM)
            stream.sparseSendAll(_read, _section, _skip, file)
            stream.finish()
    finally:
        os.close(file)


def send(
    connection: Any, volume: Any, source: Path, begin: int, keep: Callable[[int], None]
) -> None:
    """Copy a file of this machine into a volume, from a place on; its holes stay holes.

    Args:
        connection: To libvirt.
        volume: All of it before that place is the file's; what is behind is not believed.
        source: The file.
        begin: The place.
        keep: Told again and again that all before a place is there.

    Raises:
        HoldfastError: It can't be written.
    """
    with source.open("rb") as file, asked(f"volume '{volume.name()}' can't be written"):
        if begin:
            _cut(connection, volume, begin)
        size, at = os.fstat(file.fileno()).st_size, begin
        while at < size:
            stream = connection.newStream()
            volume.upload(stream, at, 0, libvirt.VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM)
            at = _send_part(stream, file.fileno(), at, size)
            stream.finish()
            keep(at)


def _cut(connection: Any, volume: Any, length: int) -> None:
    """Make a volume as short as that: a hole at the end of a stream cuts what is behind it."""
    stream = connection.newStream()
    volume.upload(stream, length - 1, 0, libvirt.VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM)
    stream.sendHole(1)
    stream.finish()


def _send_part(stream: Any, file: int, at: int, size: int) -> int:
    """Send so much that it is worth noting; up to where."""
    sent = 0
    while at < size and sent < SENT_BYTES:
        os.lseek(file, at, os.SEEK_SET)
        is_data, length = _section(None, file)
        if is_data:
            data = os.pread(file, min(length, _PIECE - at % _PIECE), at)
            _send_all(stream, data)
            length = len(data)
            sent += length
        else:
            stream.sendHole(length)
        at += length
    return at


def _send_all(stream: Any, data: bytes) -> None:
    while data:
        data = data[stream.send(data) :]


def send_bytes(connection: Any, volume: Any, offset: int, data: bytes) -> None:
    """Write bytes into a volume, from an offset on.

    Raises:
        HoldfastError: They can't be written.
    """
    with asked(f"volume '{volume.name()}' can't be written"):
        stream = connection.newStream()
        volume.upload(stream, offset, 0, 0)
        _send_all(stream, data)
        stream.finish()


def compare(connection: Any, volume: Any, source: Path, begin: int) -> None:
    """Read a volume back from a place on, and make sure that it is what a file here is.

    Raises:
        IntegrityError: It is not.
        HoldfastError: It can't be read.
    """
    wrong = IntegrityError(
        f"volume '{volume.name()}' is not what was written to it",
        "see what else writes to the storage pool, and to its disks; restore again with --restart",
    )
    with source.open("rb") as file:
        file.seek(begin)

        def data(_: Any, got: bytes, __: object) -> None:
            if file.read(len(got)) != got:
                raise wrong

        def hole(_: Any, length: int, __: object) -> None:
            while length:
                piece = file.read(min(length, _PIECE))
                if not piece or any(piece):
                    raise wrong
                length -= len(piece)

        with asked(f"volume '{volume.name()}' can't be read"):
            stream = connection.newStream()
            volume.download(stream, begin, 0, libvirt.VIR_STORAGE_VOL_DOWNLOAD_SPARSE_STREAM)
            stream.sparseRecvAll(data, hole, None)
            stream.finish()
        if file.read(1):
            raise wrong


def content(connection: Any, path: str, scratch: Path) -> bytes:
    """A small file of that host.

    Raises:
        HoldfastError: It can't be read.
    """
    with volume_at(connection, path) as volume:
        download(connection, volume, scratch)
    try:
        return scratch.read_bytes()
    finally:
        scratch.unlink()


def chain(connection: Any, source: DomainDisk) -> list[tuple[str, str]]:
    """The files that a disk is made of, the upper before the lower: path and format of each.

    Raises:
        HoldfastError: One is missing.
    """
    found = [(source.place, source.format)]
    while True:
        with volume_at(connection, found[-1][0]) as volume, asked("libvirt does not tell of it"):
            backing = domain_xml.read(volume.XMLDesc()).find("backingStore")
        path = "" if backing is None else backing.findtext("path") or ""
        if not path or found[-1][1] == "raw":
            return found
        if path in {one for one, _ in found}:
            raise HoldfastError(f"disk '{source.name}' lies over itself: '{path}'")
        kind = backing.find("format")
        found.append((path, "raw" if kind is None else kind.get("type", "raw")))


def _write(_: Any, data: bytes, file: int) -> int:
    return os.write(file, data)


def _skip_over(_: Any, length: int, file: int) -> None:
    os.ftruncate(file, os.lseek(file, length, os.SEEK_CUR))


def _read(_: Any, count: int, file: int) -> bytes:
    return os.read(file, count)


def _skip(_: Any, length: int, file: int) -> int:
    return os.lseek(file, length, os.SEEK_CUR)


def _section(_: Any, file: int) -> tuple[bool, int]:
    """Whether data comes next, and how long that goes on."""
    at = os.lseek(file, 0, os.SEEK_CUR)
    try:
        data = os.lseek(file, at, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        data, end = -1, os.lseek(file, 0, os.SEEK_END)
    else:
        end = data if data > at else os.lseek(file, at, os.SEEK_HOLE)
    os.lseek(file, at, os.SEEK_SET)
    return data == at, end - at
