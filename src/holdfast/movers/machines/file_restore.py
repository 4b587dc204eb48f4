"""Files from inside of a machine's image, back onto a disk.

Must not follow a link, nor leave the directory that it restores into, whatever a guest's file
system says. Invariants: a name that is there is only replaced where that was asked for; what a
target can't hold (owners, attributes, streams, devices) is a finding, and the rest is restored.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from holdfast.base.errors import Invalid
from holdfast.movers.machines.lost_access import LostAccess
from holdfast.movers.machines.read_back import Written
from holdfast.movers.restore_run import require_empty
from holdfast.sources.filesystems.entries import (
    DESCRIPTOR,
    DOS_ATTRIBUTES,
    Details,
    FilesUnreadable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from holdfast.movers.machines.inside import InnerEntry, Inside
    from holdfast.movers.restore_run import Overwrite

FINDINGS_AT_MOST = 1000

_STREAM_AT_MOST = 64 << 10
"""Linux holds no larger attribute of a file."""

_DOS = 0x07
"""Read-only, hidden, system: what is worth telling of when it is lost."""

_Path: TypeAlias = bytes


@dataclass(frozen=True, slots=True)
class Found:
    """A problem with one file, as the engine's `Finding`."""

    path: bytes
    code: str
    message: str
    severity: str


@dataclass(slots=True)
class FileRestore:
    """What a restore did, as the engine's `RestoreResult`."""

    files: int = 0
    dirs: int = 0
    verified_files: int = 0
    findings: list[Found] = field(default_factory=list)
    findings_total: int = 0
    lost_access: LostAccess = field(default_factory=LostAccess)
    # last: its name hides the type's
    bytes: int = 0

    def note(self, path: _Path, code: str, message: str, severity: str = "warning") -> None:
        """Add a finding."""
        self.findings_total += 1
        if len(self.findings) < FINDINGS_AT_MOST:
            self.findings.append(Found(path, code, message, severity))


def restore_files(
    inside: Inside,
    paths: Sequence[bytes],
    target: bytes,
    *,
    overwrite: Overwrite | None = None,
    strip_components: int = 0,
    verify: bool = False,
    alive: Callable[[FileRestore], None] = lambda _: None,
) -> FileRestore:
    """Restore files and directories, and all below them.

    Args:
        inside: Where they are.
        paths: Absolute, as `Inside.entry` takes them.
        target: Directory to restore into, made if it is missing.
        overwrite: As `RestoreOrder.overwrite`.
        strip_components: How many leading parts of each path to leave out.
        verify: Read each file again from the disk and compare it; what differs is a finding.
        alive: Called after each name; may raise to stop.

    Raises:
        TargetNotEmpty: The directory holds something, and nobody said what to do with it.
        PathMissing: There is nothing at one of the paths.
        Invalid: Nothing would be left of a path.
        InputOutput: A file system can't be read.
    """
    chosen = [(path, inside.entry(path)) for path in paths]
    for path, entry in chosen:
        if entry.kind != "dir" and len(path.strip(b"/").split(b"/")) <= strip_components:
            shown = path.decode("utf-8", "backslashreplace")
            raise Invalid(
                f"nothing is left of '{shown}' without {strip_components} components",
                "strip fewer",
            )
    if overwrite is None:
        require_empty(target)
    os.makedirs(target, mode=0o700, exist_ok=True)
    with contextlib.ExitStack() as stack:
        root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, root)
        writer = _Writer(
            inside, root, overwrite or "never", strip_components, verify=verify, alive=alive
        )
        for path, entry in chosen:
            writer.write(path, entry, asked_for=True)
            if entry.kind == "dir":
                for place, one in inside.below(path):
                    writer.write(place, one)
        writer.finish()
    return writer.result


class _Writer:
    def __init__(
        self,
        inside: Inside,
        root: int,
        overwrite: Overwrite,
        strip: int,
        *,
        verify: bool,
        alive: Callable[[FileRestore], None],
    ) -> None:
        self.result = FileRestore()
        self._inside = inside
        self._root = root
        self._overwrite = overwrite
        self._strip = strip
        self._verify = verify
        self._alive = alive
        self._is_root = os.geteuid() == 0
        self._links: dict[tuple[str, int], list[bytes]] = {}
        self._directories: list[tuple[bytes, list[bytes], InnerEntry]] = []

    def write(self, path: bytes, entry: InnerEntry, *, asked_for: bool = False) -> None:
        """Write one name, in a directory that was written before."""
        parts = path.strip(b"/").split(b"/")[self._strip :]
        if not parts:
            return
        try:
            self._write(path, parts, entry, asked_for=asked_for)
        except FilesUnreadable as error:
            self.result.note(path, "not-read", str(error), "error")
        except OSError as error:
            self.result.note(path, "not-written", f"can't be written: {error.strerror}", "error")
        self._alive(self.result)

    def finish(self) -> None:
        """Give directories their times and rights, the inner ones first."""
        for path, parts, entry in reversed(self._directories):
            try:
                with self._directory(parts) as fd:
                    self._finish_directory(fd, path, entry)
            except OSError as error:
                self.result.note(path, "not-written", f"can't be set: {error.strerror}")

    # -- one name -----------------------------------------------------------------------------

    def _write(
        self, path: bytes, parts: list[bytes], entry: InnerEntry, *, asked_for: bool
    ) -> None:
        with self._directory(parts[:-1], make=asked_for) as above:
            name = parts[-1]
            if entry.is_stream and not asked_for:
                self._stream(above, path, entry)
                return
            if entry.kind == "dir":
                self._make_directory(above, name)
                self._directories.append((path, parts, entry))
                self.result.dirs += 1
                return
            if not self._make_room(above, path, name, entry):
                return
            if self._linked(above, parts, entry):
                return
            written = None
            if entry.kind == "file":
                written = self._file(above, name, entry)
            elif entry.kind == "symlink":
                os.symlink(entry.target or b"", name, dir_fd=above)
            elif entry.kind == "fifo":
                os.mkfifo(name, 0o600, dir_fd=above)
            else:
                self.result.note(path, "kind", f"is a {entry.kind}: it is not restored")
                return
            self._attributes(above, path, name, entry)
            self.result.files += 1
            if written is not None:
                self._compare(above, path, name, entry, written)

    @contextlib.contextmanager
    def _directory(self, parts: list[bytes], *, make: bool = False) -> Iterator[int]:
        """A directory below the target, on the way to which no link is followed."""
        fd = os.dup(self._root)
        try:
            for name in parts:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(name, 0o755, dir_fd=fd)
                below = os.open(
                    name,
                    os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC,
                    dir_fd=fd,
                )
                os.close(fd)
                fd = below
            yield fd
        finally:
            os.close(fd)

    def _make_directory(self, above: int, name: bytes) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=above)
        except FileExistsError:
            there = os.stat(name, dir_fd=above, follow_symlinks=False)
            if stat.S_ISDIR(there.st_mode):
                return
            if self._overwrite != "always":
                raise
            os.unlink(name, dir_fd=above)
            os.mkdir(name, 0o700, dir_fd=above)

    def _make_room(self, above: int, path: bytes, name: bytes, entry: InnerEntry) -> bool:
        try:
            there = os.stat(name, dir_fd=above, follow_symlinks=False)
        except FileNotFoundError:
            return True
        older = self._overwrite == "older" and there.st_mtime_ns < entry.mtime_ns
        if stat.S_ISDIR(there.st_mode) or not (self._overwrite == "always" or older):
            self.result.note(path, "exists", "is there already, and stays as it is")
            return False
        os.unlink(name, dir_fd=above)
        return True

    def _linked(self, above: int, parts: list[bytes], entry: InnerEntry) -> bool:
        """Make a further name of a file that was written; whether that was so."""
        if entry.kind == "dir" or entry.nlink < 2 or entry.volume is None or entry.is_stream:
            return False
        key = (entry.volume.name, entry.inode)
        first = self._links.get(key)
        if first is None:
            self._links[key] = parts
            return False
        with self._directory(first[:-1]) as its_directory:
            os.link(
                first[-1],
                parts[-1],
                src_dir_fd=its_directory,
                dst_dir_fd=above,
                follow_symlinks=False,
            )
        self.result.files += 1
        return True

    def _file(self, above: int, name: bytes, entry: InnerEntry) -> Written | None:
        written = Written() if self._verify else None
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=above)
        try:
            for offset, data in self._read(entry):
                _write_all(fd, data, offset)
                if written is not None:
                    written.add(offset, data)
                self.result.bytes += len(data)
                self._alive(self.result)
            os.ftruncate(fd, entry.size)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=above)
            raise
        finally:
            os.close(fd)
        return written

    def _compare(
        self, above: int, path: bytes, name: bytes, entry: InnerEntry, written: Written
    ) -> None:
        difference = written.difference(name, above, entry.size)
        if difference is None:
            self.result.verified_files += 1
        else:
            self.result.note(path, "verify", difference, "error")

    def _read(self, entry: InnerEntry) -> Iterator[tuple[int, bytes]]:
        assert entry.volume is not None  # noqa: S101 - files are in volumes
        assert entry.found is not None  # noqa: S101
        return self._inside.files(entry.volume).read(entry.found, entry.place)

    def _details(self, entry: InnerEntry) -> Details:
        if entry.volume is None or entry.found is None or entry.is_stream or not entry.found.name:
            # the root of a volume is hidden from the users of Windows, and is theirs here
            return Details()
        return self._inside.files(entry.volume).details(entry.found, entry.place)

    # -- attributes -----------------------------------------------------------------------------

    def _attributes(self, above: int, path: bytes, name: bytes, entry: InnerEntry) -> None:
        if self._is_root:
            os.chown(name, entry.uid, entry.gid, dir_fd=above, follow_symlinks=False)
        if entry.kind != "symlink":
            # behind the owner: to give that takes away some of these
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=above)
            try:
                details = self._details(entry)
                self._details_onto(fd, path, details)
                os.fchmod(fd, entry.mode)
                # behind the mode: an NTFS makes an access list of that
                self._access_onto(fd, path, details)
            finally:
                os.close(fd)
        times = (entry.found.atime_ns if entry.found else entry.mtime_ns, entry.mtime_ns)
        os.utime(name, ns=times, dir_fd=above, follow_symlinks=False)

    def _finish_directory(self, fd: int, path: bytes, entry: InnerEntry) -> None:
        if entry.found is None:
            return
        if self._is_root:
            os.fchown(fd, entry.uid, entry.gid)
        details = self._details(entry)
        self._details_onto(fd, path, details)
        os.fchmod(fd, entry.mode)
        self._access_onto(fd, path, details)
        os.utime(fd, ns=(entry.found.atime_ns, entry.mtime_ns))

    def _details_onto(self, fd: int, path: bytes, details: Details) -> None:
        for words in details.notes:
            self.result.note(path, "not-read", words)
        for name, value in details.xattrs.items():
            if name == DESCRIPTOR:
                continue
            try:
                os.setxattr(fd, name, value)
            except OSError as error:
                shown = name.decode("utf-8", "backslashreplace")
                said = f"attribute {shown} can't be set: {error.strerror}"
                self.result.note(path, "attribute", said)
        if details.dos:
            try:
                os.setxattr(fd, DOS_ATTRIBUTES, details.dos.to_bytes(4, "big"))
            except OSError:
                if not details.dos & _DOS:
                    return
                kinds = ("read-only", "hidden", "system")
                had = [word for bit, word in enumerate(kinds) if details.dos & 1 << bit]
                said = f"was {', '.join(had)}: what it is restored onto does not know that"
                self.result.note(path, "attribute", said)

    def _access_onto(self, fd: int, path: bytes, details: Details) -> None:
        """Say who may do what, in Windows' way, where that can be said."""
        descriptor = details.xattrs.get(DESCRIPTOR)
        if descriptor is None:
            return
        try:
            os.setxattr(fd, DESCRIPTOR, descriptor)
        except OSError:
            self.result.lost_access.add(path, descriptor)

    def _stream(self, above: int, path: bytes, entry: InnerEntry) -> None:
        """Put a further stream of a file where Linux has such: an attribute of the user's."""
        name, _, stream = path.rpartition(b"/")[2].partition(b":")
        if entry.size > _STREAM_AT_MOST:
            said = f"stream of {entry.size} bytes: larger than what it is restored onto holds"
            self.result.note(path, "stream", said)
            return
        value = bytearray(entry.size)
        for offset, data in self._read(entry):
            value[offset : offset + len(data)] = data
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=above)
        try:
            os.setxattr(fd, b"user." + stream, bytes(value))
        except OSError as error:
            said = f"stream can't be held by what it is restored onto: {error.strerror}"
            self.result.note(path, "stream", said)
        finally:
            os.close(fd)


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written
