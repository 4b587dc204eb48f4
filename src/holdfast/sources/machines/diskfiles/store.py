"""A directory of disk files: which machines are in it.

Must not freeze or read one. Invariants: links to directories are not followed, so a walk ends; a
machine keeps its uuid for as long as its definition says one that no other has, and else for as
long as it stays where it is.
"""

from __future__ import annotations

import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.base.errors import HoldfastError, Invalid, NotFound
from holdfast.sources.machines.diskfiles import definitions, formats
from holdfast.sources.machines.diskfiles.chain import DiskFile, Place, open_disk
from holdfast.sources.machines.diskfiles.definitions import DefinedDisk, Definition
from holdfast.sources.machines.machine import Disk, Machine, State

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAMESPACE = uuid.UUID("8b1e21d0-3a7c-5a53-9f6a-0f4f2d1f7c55")
_DEEPEST = 16
_MOST_FILES = 1_000_000
_WORKERS = 4
_PLAIN = "disk0"


@dataclass(frozen=True, slots=True)
class Store:
    """A directory of disk files.

    Attributes:
        root: The directory, links followed.
        also: More directories that disks may lie in.
        host: Whose it is.
    """

    root: Path
    also: tuple[Path, ...]
    host: str

    @property
    def roots(self) -> tuple[Path, ...]:
        """All directories that disks may lie in."""
        return (self.root, *self.also)

    def definitions(self, *, strict: bool = True) -> list[Definition]:
        """Machines that may be there, each with a uuid; disk files without a definition too.

        A file that is part of another disk is among them: only opening that disk tells.

        Args:
            strict: Whether a directory below that can't be read is an error; else it is passed
                over.

        Raises:
            NotFound, NoPermission, InputOutput: A directory can't be read.
        """
        defined: list[Definition] = []
        plain: list[Path] = []
        for path in self._walk(strict=strict):
            if path.suffix.lower() in definitions.SUFFIXES:
                defined += _read(path)
            elif formats.may_be_disk(path) and (path.suffix or _looks_like_disk(path)):
                plain.append(path)
        defined = self._with_uuids(defined)
        used = {
            os.path.realpath(disk.place.path)
            for one in defined
            for disk in one.disks
            if disk.place is not None
        }
        return defined + [
            self._of_plain(path) for path in plain if os.path.realpath(path) not in used
        ]

    def open(self, disk: DefinedDisk) -> DiskFile:
        """Look at a disk.

        Raises:
            HoldfastError: It can't be read; see `open_disk`.
        """
        if disk.place is None:
            raise Invalid(f"disk '{disk.name}' is no file: {disk.left_out}")
        return open_disk(disk.place, disk.format, self.roots)

    def machines(self) -> list[Machine]:
        """All machines.

        Raises:
            NotFound, NoPermission, InputOutput: A directory can't be read.
        """
        found = self.definitions()
        with ThreadPoolExecutor(_WORKERS) as pool:
            opened = list(pool.map(self._opened, found))
        beneath: set[Path] = set()
        for files in opened:
            for file in files.values():
                beneath.update(file.files[1:])
        return [
            self._machine(one, files)
            for one, files in zip(found, opened, strict=True)
            if not (_is_plain(one) and one.path.resolve() in beneath)
        ]

    def machine(self, known: Definition) -> Machine:
        """What is known of one of `definitions`, looked at anew."""
        return self._machine(known, self._opened(known))

    def find(self, wanted: str) -> Definition:
        """The machine of a uuid.

        Raises:
            NotFound: There is none.
            NoPermission, InputOutput: A directory can't be read.
        """
        for one in self.definitions():
            if one.uuid == wanted:
                return one
        raise NotFound(
            f"there is no machine {wanted} in '{self.root}'",
            "it may have been moved or deleted: list what there is",
        )

    def defined_by(self, path: Path) -> Definition:
        """The machine that a definition defines, without a look at any other.

        Raises:
            NotFound: It defines none.
        """
        for one in self._with_uuids(_read(path)):
            return one
        raise NotFound(f"'{path}' defines no machine")

    def _walk(self, *, strict: bool) -> Iterator[Path]:
        """Files, in the order of their depth, then of their names."""
        level, count = [self.root], 0
        for _ in range(_DEEPEST):
            below: list[Path] = []
            for directory in level:
                for entry in _entries(directory, strict=strict):
                    if entry.name.startswith(".") or entry.name == "lost+found":
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        below.append(Path(entry.path))
                    elif _is_file(entry):
                        count += 1
                        if count > _MOST_FILES:
                            raise Invalid(f"'{self.root}' has more than {_MOST_FILES} files")
                        yield Path(entry.path)
            level = below

    def _with_uuids(self, found: list[Definition]) -> list[Definition]:
        """Of several machines that say the same uuid, the first keeps it."""
        taken: set[str] = set()
        made = []
        for one in found:
            known = one.uuid
            if not known or known in taken:
                known = self._derived(one.path, one.name)
            taken.add(known)
            made.append(replace(one, uuid=known))
        return made

    def _of_plain(self, path: Path) -> Definition:
        return Definition(
            path=path,
            name=path.stem,
            uuid=self._derived(path, ""),
            disks=(DefinedDisk(_PLAIN, Place(path), None, said=str(path)),),
        )

    def _derived(self, path: Path, name: str) -> str:
        return str(uuid.uuid5(_NAMESPACE, f"{self.host}\0{path}\0{name}"))

    def _opened(self, known: Definition) -> dict[str, DiskFile]:
        """Its disks that can be opened."""
        found = {}
        for disk in known.disks:
            if disk.left_out is None:
                try:
                    found[disk.name] = self.open(disk)
                except HoldfastError:
                    # Whoever backs it up is told; who looks at all machines is not kept from it.
                    continue
        return found

    def _machine(self, known: Definition, opened: dict[str, DiskFile]) -> Machine:
        stores = {str(self._store_of(one.place.path)) for one in opened.values()}
        folder = os.path.relpath(known.path.parent, self.root)
        return Machine(
            uuid=known.uuid,
            name=known.name,
            host=self.host,
            state=known.state if known.error is None else State.UNKNOWN,
            folder="" if folder == "." else folder,
            guest=known.guest,
            disks=tuple(_disk(one, opened.get(one.name)) for one in known.disks),
            networks=known.networks,
            memory=known.memory,
            cpus=known.cpus,
            datastores=tuple(sorted(stores or {str(self.root)})),
        )

    def _store_of(self, path: Path) -> Path:
        real = path.resolve()
        return next((root for root in self.roots if real.is_relative_to(root)), self.root)


def _disk(known: DefinedDisk, opened: DiskFile | None) -> Disk:
    if opened is None:
        told = known.format or "unknown"
        return Disk(known.name, 0, known.said, told, left_out=known.left_out)
    return Disk(known.name, opened.size, str(opened.place), opened.format, None, opened.allocated)


def _is_plain(known: Definition) -> bool:
    return not known.files and known.error is None


def _looks_like_disk(path: Path) -> bool:
    try:
        return formats.shown_by_bytes(path) is not None
    except HoldfastError:
        return False


def _read(path: Path) -> list[Definition]:
    try:
        return definitions.read(path)
    except HoldfastError as error:
        return [Definition(path, path.stem, error=error)]


def _entries(directory: Path, *, strict: bool) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return sorted(entries, key=lambda one: one.name)
    except OSError as error:
        if not strict:
            return []
        raise formats.unreadable(directory, error) from error


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        # A link in a circle: whatever names it is told so.
        return False
