"""Which reader a volume's files are read by.

Must not read anything itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.sources.filesystems.appliance import appliance
from holdfast.sources.filesystems.appliance.appliance import ApplianceFiles
from holdfast.sources.filesystems.entries import FilesUnreadable
from holdfast.sources.filesystems.recognise import State
from holdfast.sources.filesystems.replayed import ReplayedFiles
from holdfast.sources.filesystems.sandboxed import KINDS, SandboxedFiles

if TYPE_CHECKING:
    from holdfast.sources.filesystems.entries import Files
    from holdfast.sources.filesystems.volumes import Volume


def is_replayed(volume: Volume) -> bool:
    """Whether what the journal of a volume holds is seen by who reads its files here."""
    return volume.files.state is State.NEEDS_REPLAY and appliance.replays(volume.files.kind)


def open_files(volume: Volume) -> Files:
    """The files of a volume; to be closed.

    Raises:
        FilesUnreadable: There is nothing here that reads them; in words.
    """
    kind = volume.files.kind
    if kind == "ntfs" and is_replayed(volume):
        return ReplayedFiles(volume)
    if (kind in appliance.KINDS and kind not in KINDS) or is_replayed(volume):
        return ApplianceFiles(volume.disk, kind, volume.name)
    if kind in KINDS:
        return SandboxedFiles(volume.disk, kind, volume.name)
    raise FilesUnreadable(f"{volume.name}: files of {kind} can't be read here")
