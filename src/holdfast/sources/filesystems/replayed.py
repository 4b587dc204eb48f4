"""The files of an NTFS that was in use: by the appliance, which replays its log, or as they are.

Must not replay anything itself. Invariant: where the log is not replayed, that is a remark, and
the files are read without it; an error of the disk comes out as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.sources.filesystems.appliance.appliance import ApplianceFiles
from holdfast.sources.filesystems.entries import ROOT, Batch, Details, Entry, FilesUnreadable
from holdfast.sources.filesystems.sandboxed import SandboxedFiles
from holdfast.sources.filesystems.volumes import not_replayed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

    from holdfast.sources.filesystems.volumes import Volume
    from holdfast.sources.machines.provider import Remark


class ReplayedFiles:
    """The files of one file system; see `Files`. Not thread-safe."""

    def __init__(self, volume: Volume) -> None:
        """Nothing is started yet."""
        self._volume = volume
        self._reader: SandboxedFiles | None = None
        self._said: list[Remark] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def remarks(self) -> Sequence[Remark]:
        """As `Files.remarks`."""
        return [*self._said, *(self._reader.remarks if self._reader else ())]

    def tree(self, path: bytes = ROOT) -> Iterator[Batch]:
        """As `Files.tree`."""
        return self._files().tree(path)

    def entry(self, path: bytes) -> Entry:
        """As `Files.entry`."""
        return self._files().entry(path)

    def read(self, entry: Entry, path: bytes) -> Iterator[tuple[int, bytes]]:
        """As `Files.read`."""
        return self._files().read(entry, path)

    def piece(self, entry: Entry, path: bytes, offset: int, length: int) -> bytes:
        """As `Files.piece`."""
        return self._files().piece(entry, path, offset, length)

    def details(self, entry: Entry, path: bytes) -> Details:
        """As `Files.details`."""
        return self._files().details(entry, path)

    def close(self) -> None:
        """End the reader."""
        if self._reader is not None:
            self._reader.close()

    def _files(self) -> SandboxedFiles:
        if self._reader is None:
            self._reader = self._begun()
        return self._reader

    def _begun(self) -> SandboxedFiles:
        one = self._volume
        replayed = ApplianceFiles(one.disk, one.files.kind, one.name)
        try:
            replayed.entry(ROOT)
        except FilesUnreadable as error:
            replayed.close()
            why = str(error).removeprefix(f"{one.name}: ")
            self._said.append(not_replayed(one, f"could not be replayed ({why})"))
            return SandboxedFiles(one.disk, one.files.kind, one.name)
        except BaseException:
            replayed.close()
            raise
        return replayed
