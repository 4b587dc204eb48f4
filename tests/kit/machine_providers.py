"""What the suite of all providers of machines needs of each: a place where machines can be made.

To have another provider keep the suite, write a `Bench` for it and name it in `BENCHES` there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import uuid
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.base.errors import HoldfastError
from holdfast.sources.machines.provider import Kind, SnapshotOrder
from holdfast.sources.machines.providers import KINDS, Credentials, open_provider
from holdfast.sources.machines.qmp.monitor import MONITORS, Monitor
from holdfast.sources.nbd import client
from holdfast.sources.nbd.wire import Address
from tests.kit.disk_images import MIB, content, create, fill, run, write
from tests.kit.libvirtd import IMAGES, Libvirtd, small_domain
from tests.kit.served import until
from tests.kit.sshd import Sshd
from tests.kit.vcsim import Vcsim

if TYPE_CHECKING:
    from holdfast.sources.machines.machine import Disk, Machine
    from holdfast.sources.machines.provider import DiskTarget, FrozenDisk, Part, Provider, Range


class Bench(ABC):
    """A hypervisor of the test's own, with machines in it.

    Attributes:
        kind: As `open_provider` knows it.
        url: As `open_provider` takes it.
        tells_changes: Whether incrementals read less.
        sector: Bytes that the size of each disk is a multiple of.
        credentials: What opens it.
    """

    kind: str
    url: str
    tells_changes = False
    sector = 512
    credentials = Credentials()

    @property
    def formats(self) -> tuple[str, ...]:
        """That a machine can be restored in."""
        return KINDS[self.kind].disk_formats

    def open(self) -> Provider:
        """The provider, opened anew."""
        return open_provider(self.kind, self.url, self.credentials)

    @abstractmethod
    def make(self, name: str, *sizes: int) -> str:
        """Make a machine that can be backed up, with something on each disk; its uuid."""

    @abstractmethod
    def change(self, known: str, disk: str, offset: int, byte: int, length: int) -> None:
        """Write to a disk as its guest would."""

    @abstractmethod
    def truth(self, known: str) -> dict[str, bytes]:
        """What is on the disks now, by name, as `qemu-img convert` reads it."""

    def close(self) -> None:  # noqa: B027 - most have nothing that has to end
        """End what was begun for it."""

    @abstractmethod
    def traces(self) -> list[str]:
        """What there is of snapshots and backups: none after each test."""


class DiskFilesBench(Bench):
    """A directory of qcow2 files with definitions of libvirt."""

    kind = "diskfiles"

    def __init__(self, directory: Path) -> None:
        self._root = directory / "store"
        self._root.mkdir()
        self._scratch = directory
        self.url = str(self._root)

    @property
    def formats(self) -> tuple[str, ...]:
        return (*super().formats, "vpc")

    def make(self, name: str, *sizes: int) -> str:
        disks = []
        for at, size in enumerate(sizes):
            path = create(self._root / f"{name}-{at}.qcow2", "qcow2", size)
            fill(path, "qcow2", seed=10 * at + len(name))
            disks.append(path)
        known = str(uuid.uuid5(uuid.NAMESPACE_DNS, name))
        (self._root / f"{name}.xml").write_text(domain_xml(name, known, disks))
        return known

    def change(self, known: str, disk: str, offset: int, byte: int, length: int) -> None:
        write(self._path(known, disk), "qcow2", f"write -P {byte} {offset} {length}")

    def truth(self, known: str) -> dict[str, bytes]:
        machine = self.open().machine(known)
        found = {}
        for disk in machine.disks:
            into = self._scratch / "truth.raw"
            found[disk.name] = content(self._path(known, disk.name), disk.format, into)
        return found

    def traces(self) -> list[str]:
        said = subprocess.run(
            ["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True
        )
        return [
            *(one for one in said.stdout.splitlines() if "qemu-nbd" in one and self.url in one),
            *(str(one) for one in self._root.glob(".*")),
        ]

    def _path(self, known: str, disk: str) -> Path:
        machine = self.open().machine(known)
        return Path(next(one.place for one in machine.disks if one.name == disk))


class LibvirtBench(Bench):
    """A libvirtd with machines that run nothing, and are written through QEMU's monitor."""

    kind = "libvirt"
    tells_changes = True

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._daemon = Libvirtd(user="root")  # which may go through the test's directories
        self._daemon.start()
        self._connection = self._daemon.open()
        (directory / "images").mkdir()
        place = f"<target><path>{directory}/images</path></target>"
        pool = f"<pool type='dir'><name>default</name>{place}</pool>"
        self._connection.storagePoolCreateXML(pool)
        self.url = self._daemon.url

    def make(self, name: str, *sizes: int) -> str:
        disks = []
        for at, size in enumerate(sizes):
            path = create(self._directory / f"{name}-{at}.qcow2", "qcow2", size)
            fill(path, "qcow2", seed=10 * at + len(name))
            disks.append(path)
        known = str(uuid.uuid5(uuid.NAMESPACE_DNS, name))
        self._connection.defineXML(small_domain(name, known, disks)).create()
        return known

    def change(self, known: str, disk: str, offset: int, byte: int, length: int) -> None:
        said = self._io(known, disk, f"write -P {byte} {offset} {length}")
        assert "rror" not in said, said

    def truth(self, known: str) -> dict[str, bytes]:
        found = {}
        for disk in self.open().machine(known).disks:
            self._io(known, disk.name, "flush")
            into = self._directory / "truth.raw"
            words = ["qemu-img", "convert", "-U", "-f", disk.format, "-O", "raw", disk.place]
            subprocess.run([*words, str(into)], check=True)
            found[disk.name] = into.read_bytes()
        return found

    def traces(self) -> list[str]:
        from holdfast.sources.machines.libvirt.running import backup_of

        found = [str(one) for one in self._directory.glob("holdfast-*")]
        for domain in self._connection.listAllDomains():
            with contextlib.suppress(HoldfastError):
                if backup_of(domain) is not None:
                    found.append(f"backup of {domain.name()}")
        return found

    def close(self) -> None:
        self._connection.close()
        self._daemon.end()

    def _io(self, known: str, disk: str, command: str) -> str:
        import libvirt_qemu

        domain = self._connection.lookupByUUIDString(known)
        if not domain.isActive():
            return ""
        at = ord(disk[-1]) - ord("a")
        device = f"/machine/peripheral/virtio-disk{at}/virtio-backend"
        line = f'qemu-io -d {device} "{command}"'
        return str(libvirt_qemu.qemuMonitorCommand(domain, line, 1))


class FarLibvirtBench(LibvirtBench):
    """The same, by ssh: no file of the host has a path here that the provider could know."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._daemon = self._libvirtd()
        self._sshd = None
        try:
            self._daemon.start()
            self._sshd = Sshd(self._daemon)
            self._connection = self._daemon.open()
            assert self._daemon.images.exists()
            place = f"<target><path>{IMAGES}</path></target>"
            pool = f"<pool type='dir'><name>default</name>{place}</pool>"
            self._connection.storagePoolCreateXML(pool)
        except BaseException:
            self.close()
            raise
        self.url = self._sshd.url()

    def _libvirtd(self) -> Libvirtd:
        return Libvirtd()

    def make(self, name: str, *sizes: int) -> str:
        there = [Path(f"{IMAGES}/{name}-{at}.qcow2") for at in range(len(sizes))]
        for at, (path, size) in enumerate(zip(there, sizes, strict=True)):
            fill(create(self._here(path), "qcow2", size), "qcow2", seed=10 * at + len(name))
        known = str(uuid.uuid5(uuid.NAMESPACE_DNS, name))
        self._connection.defineXML(small_domain(name, known, there)).create()
        return known

    def truth(self, known: str) -> dict[str, bytes]:
        found = {}
        for disk in self.open().machine(known).disks:
            assert not Path(disk.place).exists()
            self._io(known, disk.name, "flush")
            found[disk.name] = self._content(self._here(Path(disk.place)), disk.format)
        return found

    def _content(self, path: Path, image_format: str) -> bytes:
        into = self._directory / "truth.raw"
        words = ["qemu-img", "convert", "-U", "-f", image_format, "-O", "raw", str(path)]
        subprocess.run([*words, str(into)], check=True)
        return into.read_bytes()

    def _here(self, path: Path) -> Path:
        return self._daemon.directory / "lib" / path.relative_to("/var/lib/libvirt")

    def traces(self) -> list[str]:
        found = super().traces()
        for pool in self._connection.listAllStoragePools():
            pool.refresh()
            found += [f"pool {pool.name()}"] * pool.name().startswith("holdfast")
            found += [one for one in pool.listVolumes() if one.startswith("holdfast")]
        files = (self._daemon.directory / "lib").rglob("holdfast*")
        return found + [str(one) for one in files if one.parents[1].name != "checkpoint"]

    def close(self) -> None:
        if self._sshd is not None:
            self._sshd.end()
        super().close()


class QmpBench(Bench):
    """QEMUs that run nothing, each with a monitor for backups and one of the test's."""

    kind = "qmp"
    tells_changes = True

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._run = directory / "run"
        self._run.mkdir()
        self.url = str(self._run)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._monitors: dict[str, Monitor] = {}

    def make(self, name: str, *sizes: int) -> str:
        known = str(uuid.uuid5(uuid.NAMESPACE_DNS, name))
        own = self._directory / f"{name}.own"
        words = ["qemu-system-x86_64", "-accel", "tcg", "-m", "32", "-nodefaults", "-display"]
        words += ["none", "-name", name, "-uuid", known, "-netdev", "user,id=n0,restrict=on"]
        words += ["-device", "virtio-net-pci,netdev=n0,mac=52:54:00:12:34:56,romfile="]
        for path in (self._run / f"{name}.qmp", own):
            words += ["-qmp", f"unix:{path},server=on,wait=off"]
        for at, size in enumerate(sizes):
            path = create(self._directory / f"{name}-{at}.qcow2", "qcow2", size)
            fill(path, "qcow2", seed=10 * at + len(name))
            words += ["-drive", f"if=none,id=d{at},file={path},format=qcow2"]
            words += ["-device", f"virtio-blk-pci,drive=d{at},id=vd{'abcdef'[at]}"]
        self._processes.append(subprocess.Popen(words, stdin=subprocess.DEVNULL))
        until(lambda: self._answers(known, own), "the monitor")
        return known

    def _answers(self, known: str, own: Path) -> bool:
        with contextlib.suppress(HoldfastError):
            self._monitors[known] = Monitor(str(own), greeting_timeout_s=30)
        return known in self._monitors

    def change(self, known: str, disk: str, offset: int, byte: int, length: int) -> None:
        said = self._io(known, disk, f"write -P {byte} {offset} {length}")
        assert "rror" not in said, said

    def truth(self, known: str) -> dict[str, bytes]:
        if known not in {one.uuid for one in self.open().machines()}:
            self.open().start(known)  # restored: one that is off is not found
        found = {}
        for disk in self.open().machine(known).disks:
            if known in self._monitors:
                self._io(known, disk.name, "flush")
            into = self._directory / "truth.raw"
            run("qemu-img", "convert", "-U", "-f", disk.format, "-O", "raw", disk.place, into)
            found[disk.name] = into.read_bytes()
        return found

    def traces(self) -> list[str]:
        return [
            str(node["node-name"])
            for monitor in self._monitors.values()
            for node in monitor.execute("query-named-block-nodes")
            if str(node.get("node-name", "")).startswith("holdfast")
        ]

    def close(self) -> None:
        for monitor in self._monitors.values():
            monitor.close()
        for process in self._processes:
            process.kill()
            process.wait(60)
        for path in self._directory.rglob("pid"):
            with contextlib.suppress(ValueError, ProcessLookupError):
                os.kill(int(path.read_text()), signal.SIGKILL)

    def _io(self, known: str, disk: str, command: str) -> str:
        line = f'qemu-io -d /machine/peripheral/{disk}/virtio-backend "{command}"'
        asked = {"command-line": line}
        if known in self._monitors:
            return str(self._monitors[known].execute("human-monitor-command", asked))
        name = self.open().machine(known).name  # restored: it has the one for backups alone
        with MONITORS.use(str(self._run / f"{name}.qmp")) as monitor:
            return str(monitor.execute("human-monitor-command", asked))


class VmwareBench(Bench):
    """A simulated vCenter whose datastores are directories."""

    kind = "vmware"
    tells_changes = True
    sector = 1024

    def __init__(self, directory: Path) -> None:
        self._vcsim = Vcsim(directory)
        self.url = self._vcsim.url
        self.credentials = self._vcsim.credentials

    def make(self, name: str, *sizes: int) -> str:
        return self._vcsim.make(name, *sizes)

    def change(self, known: str, disk: str, offset: int, byte: int, length: int) -> None:
        write(self._vcsim.flats(known)[disk], "raw", f"write -P {byte} {offset} {length}")

    def truth(self, known: str) -> dict[str, bytes]:
        return {name: path.read_bytes() for name, path in self._vcsim.flats(known).items()}

    def traces(self) -> list[str]:
        return self._vcsim.snapshots()

    def close(self) -> None:
        self._vcsim.close()


def domain_xml(name: str, known: str, disks: list[Path], attributes: str = "") -> str:
    """A definition of libvirt."""
    letters = "abcdefgh"
    shown = "".join(
        f"""<disk type='file' device='disk'><driver name='qemu' type='{_driver(path)}'/>
        <source file='{path}'/><target dev='vd{letters[at]}' bus='virtio'/></disk>"""
        for at, path in enumerate(disks)
    )
    return f"""<domain type='kvm'{attributes}>
      <!-- kept for whoever reads it -->
      <name>{name}</name><uuid>{known}</uuid><memory unit='MiB'>512</memory><vcpu>2</vcpu>
      <os><type arch='x86_64'>hvm</type></os>
      <devices>{shown}
        <disk type='file' device='cdrom'><source file='/srv/cd.iso'/><target dev='sda'/></disk>
        <interface type='network'><mac address='52:54:00:12:34:56'/><source network='office'/>
          <model type='virtio'/></interface>
      </devices></domain>"""


def _driver(path: Path) -> str:
    return {".img": "raw", ".vhd": "vpc"}.get(path.suffix, path.suffix[1:])


def order(known: str, scratch: Path, **others: object) -> SnapshotOrder:
    """An order that asks for nothing special."""
    given: dict[str, object] = {
        "since": None,
        "quiesce": True,
        "require_quiesce": False,
        "label": "site-1",
    }
    return SnapshotOrder(uuid=known, scratch=scratch, **(given | others))  # type: ignore[arg-type]


def read(disk: FrozenDisk, before: bytes = b"") -> bytes:
    """All that is on a frozen disk, by its ranges; what is the same is taken from before."""
    source, found = disk.source(), bytearray()
    assert source.size == disk.size
    for one in disk.ranges():
        if one.kind is Kind.DATA:
            for at in range(one.offset, one.offset + one.length, 8 * MIB):
                found += source.read_at(at, min(8 * MIB, one.offset + one.length - at))
        elif one.kind is Kind.SAME:
            found += before[one.offset : one.offset + one.length]
        else:
            found += bytes(one.length)
    return bytes(found)


def assert_whole(ranges: list[Range], size: int) -> None:
    """Ranges ascend without gaps, from 0 to the size of the disk."""
    at = 0
    for one in ranges:
        assert one.offset == at
        assert one.length > 0
        at += one.length
    assert at == size


class Writer:
    """Writes disks of a new machine, and keeps what it was told."""

    def __init__(self, disks: dict[str, bytes], fails_at: str | None = None) -> None:
        self.asked: list[Disk] = []
        self._disks = disks
        self._fails_at = fails_at

    def __call__(self, disk: Disk, target: DiskTarget, _part: Part, /) -> None:
        self.asked.append(disk)
        with target.serve() as served:
            self._write(disk, served.address)

    def _write(self, disk: Disk, address: Address) -> None:
        connection = client.connect(address)
        data = self._disks[disk.name]
        assert connection.export.size >= disk.size
        for at in range(0, len(data), MIB):
            piece = data[at : at + MIB]
            if any(piece):
                connection.write(at, piece)
            if disk.name == self._fails_at:
                connection.drop()
                raise RuntimeError("the pool is gone")
        connection.flush()
        connection.close()


def names(machine: Machine) -> list[str]:
    """Of its disks that an image holds."""
    return [one.name for one in machine.disks if one.left_out is None]
