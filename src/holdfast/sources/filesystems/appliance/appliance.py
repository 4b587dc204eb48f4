"""The files of XFS, Btrfs, and of what needs its journal replayed, by a guest of our own.

Must not change the disk that it reads, nor outlive who asked. Invariants: the guest writes into an
overlay that is thrown away; it has no network and one disk; the emulator runs as nobody, in its own
sandbox, and is killed in every outcome; what the guest says is proved like what a worker says.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.sources.emulator import accelerators
from holdfast.sources.filesystems.appliance.initramfs import build, find_kernel, find_replay
from holdfast.sources.filesystems.entries import FilesUnreadable
from holdfast.sources.filesystems.frames import BadFrame, Say
from holdfast.sources.filesystems.sandbox import NOBODY
from holdfast.sources.filesystems.sandboxed import Limits, SandboxedFiles
from holdfast.sources.nbd.server import shown
from holdfast.sources.nbd.wire import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.sources.filesystems.disk import Disk

EMULATOR = "qemu-system-x86_64"
MEMORY_MIB = 512
BOOT_S = 180.0
"""How long a guest may take to begin, where everything is emulated."""

_NTFS_MEMORY_MIB = 1024
"""Its files are not read by the kernel."""

KINDS = frozenset({"xfs", "btrfs", "ext2", "ext3", "ext4", "ntfs"})


def replays(kind: str) -> bool:
    """Whether a file system of this kind that was in use can have its journal replayed here."""
    return kind in KINDS and is_here() and (kind != "ntfs" or find_replay() is not None)


def is_here() -> bool:
    """Whether this machine has what the appliance is made of."""
    if shutil.which(EMULATOR) is None or os.uname().machine != "x86_64":
        return False
    with contextlib.suppress(FilesUnreadable):
        find_kernel()
        return True
    return False


@dataclass(frozen=True, slots=True)
class _Shown:
    """A disk as an NBD server takes it: all of it may be data, for all that is known."""

    disk: Disk

    @property
    def size(self) -> int:
        return self.disk.size

    def read_at(self, offset: int, length: int, /) -> bytes:
        return self.disk.read_at(offset, length)

    def data_extents(self, offset: int, length: int, /) -> list[tuple[int, int]]:
        return [(offset, length)]


class ApplianceFiles(SandboxedFiles):
    """The files of one file system. Not thread-safe."""

    def __init__(self, disk: Disk, kind: str, name: str, limits: Limits | None = None) -> None:
        """Nothing is started yet; as `SandboxedFiles`."""
        super().__init__(disk, kind, name, limits or Limits(patience_s=300.0))
        self._around = contextlib.ExitStack()
        self._trouble: Exception | None = None

    def _talk(self, command: Say, payload: bytes, about: bytes) -> Iterator[tuple[Say, bytes]]:
        try:
            yield from super()._talk(command, payload, about)
        finally:
            # what can't be read of the disk looks to the guest like a broken disk
            trouble, self._trouble = self._trouble, None
            if trouble is not None:
                self._end()
                raise trouble

    def _start(self) -> None:
        emulator = shutil.which(EMULATOR)
        if emulator is None:
            raise FilesUnreadable(
                f"{self._name}: files of {self._kind} are read by a guest, and {EMULATOR} is not "
                "installed here"
            )
        kernel = find_kernel()
        replay = find_replay() if self._kind == "ntfs" else None
        memory_mib = _NTFS_MEMORY_MIB if replay else MEMORY_MIB
        try:
            place = self._around.enter_context(
                tempfile.TemporaryDirectory(prefix="holdfast-guest-", ignore_cleanup_errors=True)
            )
            initrd = os.path.join(place, "initrd")
            with open(initrd, "wb") as file:
                file.write(build(kernel, replay))
            address = Address(path=os.path.join(place, "disk"))
            self._around.enter_context(
                shown({"": _Shown(self._disk)}, address, troubled=self._note_trouble)
            )
            assert address.path is not None  # noqa: S101 - just given
            as_nobody = os.geteuid() == 0
            if as_nobody:
                for one in (place, initrd, address.path):
                    os.chown(one, NOBODY, NOBODY)
            ours, theirs = socket.socketpair()
            self._socket = ours
            with theirs:
                self._process = subprocess.Popen(
                    [
                        emulator,
                        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
                        *(*accelerators(), "-cpu", "qemu64,+rdrand"),
                        *("-m", str(memory_mib), "-nic", "none"),
                        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny"),
                        *("-kernel", str(kernel.image), "-initrd", initrd),
                        *("-append", "quiet panic=-1 mitigations=off random.trust_cpu=on"),
                        "-drive",
                        f"file=nbd:unix:{address.path},format=raw,snapshot=on,if=virtio",
                        *("-device", "virtio-serial-pci"),
                        *("-chardev", f"socket,id=talk,fd={theirs.fileno()}"),
                        *("-device", "virtserialport,chardev=talk,name=holdfast"),
                    ],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd=place,
                    env={"PATH": os.defpath, "TMPDIR": place},
                    user=NOBODY if as_nobody else None,
                    group=NOBODY if as_nobody else None,
                    extra_groups=[] if as_nobody else None,
                )
            kind, _ = self._hear(self._deadline(BOOT_S))
            # large, and of no use any more: even a kill must not leave it
            os.unlink(initrd)
        except (EOFError, BadFrame, OSError) as error:
            self._end()
            raise FilesUnreadable(
                f"{self._name}: the guest that reads {self._kind} did not begin: {error!r}"
            ) from error
        except BaseException:
            self._end()
            raise
        if kind is not Say.DONE:
            self._end()
            raise FilesUnreadable(f"{self._name}: the guest that reads {self._kind} talks nonsense")

    def _note_trouble(self, _: str, error: Exception) -> None:
        self._trouble = self._trouble or error

    def _end(self) -> None:
        super()._end()
        self._around.close()
