"""A machine of our own, cut off from every network, that runs from disks that it can't change.

Must not be given a way out: its one network card leads to the ports that the host asks for, and
nowhere else. Invariants: what it writes goes into files that have no name any more; whatever
happens, its process is gone when the block ends.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.base.errors import HoldfastError, HypervisorError, InputOutput, LibraryMissing
from holdfast.sources import supervised
from holdfast.sources.emulator import accelerators
from holdfast.sources.machines.qmp.monitor import Monitor
from holdfast.sources.places import private_directory

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Sequence

EMULATOR = "qemu-system-x86_64"
FIRMWARE = (Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_CODE.fd"))
"""Where Debian's package ``ovmf`` has what machines with UEFI begin with."""

LEAST_MEMORY = 256 << 20
START_S = 60.0
_SOCKETS = "holdfast-boot-"
_LONGEST_SERIAL = 4 << 20


@dataclass(frozen=True, slots=True)
class BootDisk:
    """A disk to run from.

    Attributes:
        name: What the machine knew it by; it tells how it was connected: ``vda``, ``sda``, ``hda``.
        url: Where QEMU reads it: ``nbd+unix:///vda?socket=/run/x``, or a path.
    """

    name: str
    url: str


@dataclass(frozen=True, slots=True)
class IsolatedOrder:
    """What to run.

    Attributes:
        disks: It starts from the first.
        memory: In bytes.
        cpus: How many.
        efi: Whether it begins with UEFI.
        scratch: A directory for what it writes.
        ports: TCP ports of the machine that the host may connect to.
        network: What its network card pretends to be.
    """

    disks: Sequence[BootDisk]
    memory: int
    cpus: int
    efi: bool
    scratch: Path
    ports: tuple[int, ...] = ()
    network: str = "virtio-net-pci"


class Isolated:
    """One that runs."""

    def __init__(
        self,
        directory: Path,
        sockets: Path,
        process: subprocess.Popen[bytes],
        monitor: Monitor,
        ports: dict[int, int],
    ) -> None:
        self._directory = directory
        self._sockets = sockets
        self._process = process
        self._monitor = monitor
        self._ports = ports

    @property
    def agent(self) -> str:
        """Path of the socket where its guest agent would answer."""
        return str(self._sockets / "agent")

    def port(self, number: int) -> tuple[str, int]:
        """Where the host reaches a port of it."""
        return "127.0.0.1", self._ports[number]

    def serial(self) -> str:
        """What came over its first serial port; of very much, the end."""
        try:
            with (self._directory / "serial").open("rb") as file:
                file.seek(0, 2)
                file.seek(max(file.tell() - _LONGEST_SERIAL, 0))
                return file.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def screenshot(self) -> bytes:
        """What its screen shows, as PNG.

        Raises:
            HypervisorError: It has ended, or shows nothing.
        """
        path = self._directory / "screen.png"
        self._monitor.execute("screendump", {"filename": str(path), "format": "png"})
        return path.read_bytes()

    def require_running(self) -> None:
        """Make sure that it has not ended.

        Raises:
            HypervisorError: It has, with what it said.
        """
        if self._process.poll() is not None:
            raise HypervisorError(f"the machine ended by itself: {_said(self._directory)}")


def emulator() -> str:
    """The path of the emulator.

    Raises:
        LibraryMissing: There is none on this machine.
    """
    found = shutil.which(EMULATOR)
    if found is None:
        raise LibraryMissing(
            f"{EMULATOR} is not installed here", "Debian: apt-get install qemu-system-x86"
        )
    return found


@contextlib.contextmanager
def isolated(order: IsolatedOrder, alive: Callable[[], None] = lambda: None) -> Iterator[Isolated]:
    """Run a machine for the time of the block.

    Args:
        order: What.
        alive: Called while it starts; what it raises ends it.

    Raises:
        LibraryMissing: There is no emulator here, or no UEFI for it.
        HypervisorError: It does not start, with the emulator's own words.
    """
    program = emulator()
    # A socket's path has a hundred bytes at most: it can't lie just anywhere.
    with private_directory(_SOCKETS) as sockets, _running(program, order, sockets, alive) as made:
        yield made


@contextlib.contextmanager
def _running(
    program: str, order: IsolatedOrder, sockets: Path, alive: Callable[[], None]
) -> Iterator[Isolated]:
    ports = {number: _free_port() for number in order.ports}
    words = [program, *_machine(order), *_disks(order.disks), *_network(order, ports)]
    directory = order.scratch
    words += ["-chardev", f"file,id=serial,path={_plain(directory / 'serial')}"]
    words += ["-serial", "chardev:serial"]
    words += ["-qmp", f"unix:{_plain(sockets / 'monitor')},server=on,wait=off"]
    agent = f"socket,id=agent,path={_plain(sockets / 'agent')},server=on,wait=off"
    words += ["-device", "virtio-serial", "-chardev", agent]
    words += ["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]
    with (directory / "said").open("wb") as said:
        environment = {"TMPDIR": str(directory), "PATH": "/usr/bin:/bin"}
        process = supervised.begin(words, environment, stdout=said, stderr=said)
    try:
        monitor = _monitor(directory, sockets, process, alive)
        try:
            yield Isolated(directory, sockets, process, monitor, ports)
        finally:
            monitor.close()
    finally:
        supervised.end(process)


def _machine(order: IsolatedOrder) -> list[str]:
    memory = max(order.memory, LEAST_MEMORY) >> 20
    words = ["-nodefaults", "-no-user-config", "-display", "none", "-vga", "std", "-no-reboot"]
    words += [*accelerators(), "-cpu", "qemu64"]
    words += ["-machine", "q35" if order.efi else "pc", "-m", str(memory)]
    words += ["-smp", str(max(order.cpus, 1)), "-sandbox", "on,obsolete=deny,spawn=deny"]
    if order.efi:
        found = next((one for one in FIRMWARE if one.exists()), None)
        if found is None:
            raise LibraryMissing(
                "the machine begins with UEFI, which is not installed here",
                "Debian: apt-get install ovmf",
            )
        words += ["-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={_plain(found)}"]
    return words


def _disks(disks: Sequence[BootDisk]) -> list[str]:
    """Drives whose writes go to files without a name (``snapshot=on``), in `TMPDIR`."""
    words: list[str] = []
    for number, disk in enumerate(disks):
        drive = (
            f"id=disk{number},if=none,format=raw,snapshot=on,cache=unsafe,file={_plain(disk.url)}"
        )
        words += ["-drive", drive]
        words += ["-device", f"{_bus(disk.name, number)},drive=disk{number},bootindex={number}"]
    if any(_kind(disk.name) == "s" for disk in disks):
        words = ["-device", "ahci,id=ahci", *words]
    return words


def _bus(name: str, number: int) -> str:
    """The device that a guest has a driver for, as it had one where it was backed up."""
    kind = _kind(name)
    if kind == "s":
        return f"ide-hd,bus=ahci.{number}"
    if kind == "h":
        return f"ide-hd,bus=ide.{number // 2 % 2},unit={number % 2}"
    return "virtio-blk-pci"


def _kind(name: str) -> str:
    return name[0] if name[:2] in ("sd", "hd", "vd") else "v"


def _network(order: IsolatedOrder, ports: dict[int, int]) -> list[str]:
    forwards = "".join(
        f",hostfwd=tcp:127.0.0.1:{host}-:{guest}" for guest, host in sorted(ports.items())
    )
    user = f"user,id=net,restrict=on{forwards}"
    return ["-netdev", user, "-device", f"{order.network},netdev=net,romfile="]


def _monitor(
    directory: Path, sockets: Path, process: subprocess.Popen[bytes], alive: Callable[[], None]
) -> Monitor:
    end_s = time.monotonic() + START_S
    while True:
        alive()
        if process.poll() is not None:
            raise HypervisorError(f"the machine does not start: {_said(directory)}")
        try:
            return Monitor(str(sockets / "monitor"))
        except HoldfastError:
            if time.monotonic() > end_s:
                raise
            time.sleep(0.1)


def _said(directory: Path) -> str:
    """What the emulator said, in one line."""
    text = (directory / "said").read_text("utf-8", "replace").strip()
    return " ".join(text.split())[-500:] or "the emulator said nothing"


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _plain(place: Path | str) -> str:
    """A place in an option of QEMU's, where a comma is written twice."""
    text = str(place)
    if "\n" in text or "\0" in text:
        raise InputOutput(f"QEMU can't be told of {text!r}")
    return text.replace(",", ",,")
