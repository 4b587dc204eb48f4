"""A disk file with all that it lies over and consists of, as qemu is to open it.

Must not follow what a guest can write. Invariants: every format is given, none is found out by
qemu; every file lies in one of the allowed directories, links followed; whatever only its first
bytes make an image of a format is refused where it names another file.
"""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.base.errors import DiskUnreadable, Forbidden, NotFound, Unsupported
from holdfast.sources.machines.diskfiles import formats, headers
from holdfast.sources.machines.diskfiles.formats import QCOW2, RAW, VMDK, VPC, unreadable
from holdfast.sources.nbd.qemu_nbd import file_node, image_node, run_img

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.sources.machines.diskfiles.headers import Named
    from holdfast.sources.nbd.qemu_nbd import Node

_DEEPEST = 64
_LARGEST = 1 << 62
READABLE = (QCOW2, RAW, VMDK, VPC, formats.VHDX, formats.VDI, "qcow", "qed")
"""Formats that a definition may name."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bytes of a disk file are.

    Attributes:
        path: Of the file that it is, or is in.
        offset: Where in that it begins, in bytes.
        length: How long it is; None for to the end.
    """

    path: Path
    offset: int = 0
    length: int | None = None

    def __str__(self) -> str:
        """As messages name it."""
        within = f" (from byte {self.offset} on)" if self.length is not None else ""
        return f"{self.path}{within}"


@dataclass(frozen=True, slots=True)
class Layer:
    """One of the files that a disk is a chain of.

    Attributes:
        path: Of the file.
        format: Of it.
        cluster: Bytes that it allocates at once.
        parts: Files that its content is in, each with how many bytes of the disk; None for zeroes.
    """

    path: Path
    format: str
    cluster: int
    parts: tuple[tuple[Path | None, int], ...]


@dataclass(frozen=True, slots=True)
class DiskFile:
    """A disk that can be opened.

    Attributes:
        place: Where it is.
        format: Of it.
        node: What qemu opens.
        size: Of the disk, in bytes.
        files: All files that are read for it, itself first.
        layers: The layers of the chain, itself first.
    """

    place: Place
    format: str
    node: Node
    size: int
    files: tuple[Path, ...]
    layers: tuple[Layer, ...] = ()

    @property
    def allocated(self) -> int:
        """Bytes that its files take on their file systems."""
        if self.place.length is not None:
            return self.place.length
        return sum(one.stat().st_blocks * 512 for one in set(self.files))


@dataclass(slots=True)
class _Chain:
    roots: Sequence[Path]
    files: list[Path] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)


def open_disk(place: Place, image_format: str | None, roots: Sequence[Path]) -> DiskFile:
    """Look at a disk file, and at all that belongs to it.

    Args:
        place: Where it is.
        image_format: What its machine's definition says; None for what its name says, and if that
            says nothing, its bytes, within the limits of what they may be believed.
        roots: Directories that all files have to lie in.

    Raises:
        NotFound: A file of it is missing.
        NoPermission: A file of it can't be read.
        Forbidden: It names a file that it may not.
        Unsupported: It is encrypted, or of a kind that can't be read.
        DiskUnreadable: It is damaged, or not what it is said to be.
    """
    chain = _Chain(roots)
    node, found = _layer(place, image_format, chain)
    told = _told(node, place)
    if told.get("encrypted"):
        raise Unsupported(
            f"disk file '{place}' is encrypted by qemu, and its key is not known here",
            "back it up through its hypervisor, or with an agent in the guest",
        )
    size = int(told["virtual-size"])
    return DiskFile(
        place=place,
        format=found,
        node=node,
        size=size,
        files=tuple(chain.files),
        layers=tuple(chain.layers),
    )


def _layer(place: Place, image_format: str | None, chain: _Chain) -> tuple[Node, str]:
    if len(chain.layers) >= _DEEPEST:
        raise DiskUnreadable(f"'{place}' lies over more than {_DEEPEST} files, or over itself")
    path = allowed(place.path, chain.roots)
    found, believed = _format(path, place, image_format)
    named = _named(path, place, found)
    others = [named.backing, named.data_file, *(part.name for part in named.parts)]
    if not believed and any(one is not None for one in others):
        raise Forbidden(
            f"'{path}' looks like {found} and names another file, but neither its own name nor a "
            "definition says that it is of this format: its guest may have written that",
            f"if it is right, rename it to '{path.stem}.{found}'",
        )
    chain.files.append(path)
    parts = _parts(path, named, chain) or ((path, _LARGEST),)
    node = _node(path, place, found)
    if named.data_file is not None:
        data = allowed(_beside(path, named.data_file), chain.roots)
        chain.files.append(data)
        node["data-file"] = file_node(data)
        parts = ((data, _LARGEST),)
    chain.layers.append(Layer(path, found, named.cluster, parts))
    if named.backing is not None:
        below = Place(_beside(path, named.backing))
        try:
            node["backing"], _ = _layer(below, named.backing_format, chain)
        except NotFound as error:
            if below.path.exists():
                raise
            raise NotFound(
                f"'{path}' lies over '{below.path}', which is missing",
                "bring that file back; without it the disk has no content",
            ) from error
    return node, found


def _format(path: Path, place: Place, given: str | None) -> tuple[str, bool]:
    """The format of a file, and whether that is more than what its bytes look like."""
    if given is not None:
        if given not in READABLE:
            raise Unsupported(f"'{path}' is said to be '{given}', which can't be read here")
        return given, True
    said = formats.said_by_name(place.path) or formats.said_by_name(path)
    shown = formats.shown_by_bytes(path)
    if said in (None, RAW):
        # A fixed VHD is known by its end alone, which is any guest's to write.
        return (RAW, True) if said == RAW or shown in (None, VPC) else (str(shown), False)
    if shown is not None and shown != said:
        raise DiskUnreadable(
            f"'{path}' is {shown} by its content, and {said} by its name",
            "rename it, or say its format in the machine's definition",
        )
    if shown is None:
        raise DiskUnreadable(
            f"'{path}' is not a disk of format {said}, as its name says: it is damaged or empty"
        )
    return str(said), True


def _named(path: Path, place: Place, found: str) -> Named:
    if found == QCOW2:
        return headers.named_by_qcow2(path)
    if found == VMDK:
        return headers.named_by_vmdk(path, place.offset)
    if found == VPC:
        headers.refuse_differencing_vpc(path, place.offset)
    if found in ("qcow", "qed") and _told(_node(path, place, found), place).get("backing-filename"):
        raise Unsupported(f"'{path}' of the old format {found} lies over another file")
    return headers.Named()


def _parts(path: Path, named: Named, chain: _Chain) -> tuple[tuple[Path | None, int], ...]:
    places: list[tuple[Path | None, int]] = []
    for part in named.parts:
        if part.name is None:
            places.append((None, part.covers))
            continue
        place = allowed(_beside(path, part.name), chain.roots)
        if (size := formats.file_size(place)) < part.needed:
            raise DiskUnreadable(
                f"'{place}' is truncated: it has {size} bytes, and '{path}' says {part.needed}",
                "copy it again from where it is whole",
            )
        chain.files.append(place)
        places.append((place, part.covers))
    return tuple(places)


def _node(path: Path, place: Place, found: str) -> Node:
    node = image_node(path, found)
    if place.length is not None:
        inside = {"offset": place.offset, "size": place.length, "file": file_node(path)}
        node["file"] = {"driver": RAW, **inside}
    return node


def _told(node: Node, place: Place) -> dict[str, Any]:
    # It looks at one layer, and refuses to be told of those beneath.
    node = {key: None if key == "backing" else value for key, value in node.items()}
    said = run_img(
        ["info", "-U", "--output=json", f"json:{json.dumps(node)}"], f"disk file '{place}'"
    )
    told: dict[str, Any] = json.loads(said)
    return told


def _beside(path: Path, name: str) -> Path:
    """The file that a header of another one names."""
    head = name.split("/", 1)[0]
    if not name or "\0" in name or ":" in head:
        raise Forbidden(
            f"'{path}' names '{name[:200]}', which is no file",
            "disks on other servers are backed up through the hypervisor",
        )
    return Path(os.path.normpath(path.parent / name))


def allowed(path: Path, roots: Sequence[Path]) -> Path:
    """The file that a path leads to, links followed.

    Raises:
        NotFound: There is none.
        Forbidden: It is in none of the directories.
    """
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) or error.errno == errno.ELOOP:
            raise DiskUnreadable(f"'{path}' is a link that leads in a circle") from error
        raise unreadable(path, error) from error
    if not any(real.is_relative_to(root) for root in roots):
        where = f"'{path}'" + (f", which leads to '{real}'," if real != path else "")
        raise Forbidden(
            f"{where} is outside of the datastore",
            f"if it belongs there, allow its directory too: &also={real.parent}",
        )
    return real
