"""Hypervisors of a test's own, whose machines were begun by the product and not by the test."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.base.errors import HoldfastError
from holdfast.sources.machines.qmp.monitor import MONITORS
from tests.kit.machine_providers import Bench, FarLibvirtBench, LibvirtBench, QmpBench

if TYPE_CHECKING:
    from collections.abc import Sequence


class InstantQmpBench(QmpBench):
    """See `QmpBench`: machines that were begun by the product have one monitor, its own."""

    places: Sequence[Path] = ()

    def definition(self, known: str) -> str:
        """What it is started by."""
        (found,) = (one for one in self._run.glob("*.machine") if known in one.read_text())
        return found.read_text()

    def stop(self, known: str) -> None:
        """Have it end as if its guest had switched it off."""
        pid = 0
        with contextlib.suppress(HoldfastError), MONITORS.use(self._monitor_of(known)) as monitor:
            pid = monitor.peer_pid()
            monitor.execute("quit")
        until = time.monotonic() + 30
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < until
            time.sleep(0.02)

    def restart(self, known: str) -> None:
        """Have it end, and start it anew."""
        self.stop(known)
        self.open().start(known)

    def _monitor_of(self, known: str) -> str:
        (found,) = (one for one in self._run.glob("*.machine") if known in one.read_text())
        return str(found.with_suffix(".qmp"))

    def _io(self, known: str, disk: str, command: str) -> str:
        if known in self._monitors:
            return super()._io(known, disk, command)
        line = f'qemu-io -d /machine/peripheral/{disk}/virtio-backend "{command}"'
        with MONITORS.use(self._monitor_of(known)) as monitor:
            return str(monitor.execute("human-monitor-command", {"command-line": line}))

    def look(self, known: str) -> None:
        """Have QEMU tell of all of its block nodes, as a backup has it do."""
        with MONITORS.use(self._monitor_of(known)) as monitor:
            assert monitor.execute("query-named-block-nodes")

    def at_work(self, known: str) -> set[str]:
        """What QEMU is at work on for it."""
        with MONITORS.use(self._monitor_of(known)) as monitor:
            told = monitor.execute("query-jobs")
        return {str(one["id"]) for one in told if one["status"] != "concluded"}

    def truth(self, known: str) -> dict[str, bytes]:
        if known not in self._monitors:
            for disk in self.open().machine(known).disks:
                self._io(known, disk.name, "flush")
        return super().truth(known)


class InstantLibvirtBench(LibvirtBench):
    """See `LibvirtBench`."""

    places: Sequence[Path] = ()

    def definition(self, known: str) -> str:
        """What it is started by."""
        import libvirt

        domain = self._connection.lookupByUUIDString(known)
        return str(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))

    def look(self, known: str) -> None:
        """Have QEMU tell of all of its block nodes, as libvirt does when asked for a size."""
        assert self._connection.lookupByUUIDString(known).blockInfo("vda")

    def at_work(self, known: str) -> set[str]:
        """Its disks that QEMU is at work on."""
        domain = self._connection.lookupByUUIDString(known)
        names = re.findall(r"<target dev='(vd.)'", domain.XMLDesc())
        return {one for one in names if domain.blockJobInfo(one)}

    def stop(self, known: str) -> None:
        """Have it end as if its guest had switched it off."""
        self._connection.lookupByUUIDString(known).destroyFlags(1)

    def restart(self, known: str) -> None:
        """Have it end, and start it anew."""
        self.stop(known)
        self._connection.lookupByUUIDString(known).create()


class InstantFarLibvirtBench(InstantLibvirtBench, FarLibvirtBench):
    """See `FarLibvirtBench`."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        assert self._sshd is not None
        self.sshd = self._sshd
        self.daemon = self._daemon
        self.places = [self._daemon.images, self._sshd.temporary]

    def io(self, known: str, disk: str, command: str) -> str:
        """What QEMU says to a command for one of its disks."""
        return self._io(known, disk, command)

    def _content(self, path: Path, image_format: str) -> bytes:
        """Read where the image is reached."""
        assert self._sshd is not None
        into = self._directory / "truth.raw"
        words = ["qemu-img", "convert", "-U", "-f", image_format, "-O", "raw", str(path)]
        subprocess.run([*self._sshd.within, *words, str(into)], check=True)
        return into.read_bytes()


InstantBench = InstantLibvirtBench | InstantQmpBench


def content(bench: Bench, known: str, disk: str) -> bytes:
    """All that is on a disk now."""
    return bench.truth(known)[disk]
