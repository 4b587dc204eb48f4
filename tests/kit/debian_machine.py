"""The Debian of `debian_guest` as a running machine: with QEMU alone, and under libvirt.

What happens inside of it is asked for through its guest agent, one short connection a question, so
that a backup finds the agent free.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import select
import socket
import subprocess
import threading
import time
import uuid
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Self

from holdfast.base.errors import HoldfastError
from holdfast.sources.machines.guest_agent import GuestAgent
from holdfast.sources.machines.qmp.monitor import Monitor
from tests.kit import debian_guest
from tests.kit.guest import AGENT_PORT
from tests.kit.served import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.libvirtd import Libvirtd

PATIENCE_S = 300.0
MEMORY_MIB = 384
_STUCK = re.compile(r"soft lockup - CPU#\d+ stuck for ([6-9]\d|\d{3,})s")


@contextlib.contextmanager
def listener() -> Iterator[tuple[socket.socket, list[str]]]:
    """Somebody on this machine who waits for guests; the addresses by which one would get there:
    QEMU's name for the host, and the host's own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect(("192.0.2.1", 9))  # sends nothing
        own = asking.getsockname()[0]
    with socket.create_server(("0.0.0.0", 0)) as waiting:
        waiting.setblocking(False)
        yield waiting, ["10.0.2.2", own]


def reaching(address: str, port: int) -> str:
    """A line of shell that connects, once the guest has its address. Its status is 1 where that is
    refused, and 124 where nobody answers."""
    first = "until ip -4 route get 10.0.2.2 >/dev/null 2>&1; do sleep 1; done"
    # As one who wants out would, who is not told of a way.
    first += "; ip route | grep -q ^default || ip route add default via 10.0.2.2"
    return f"{first}; timeout 20 bash -c 'exec 3<>/dev/tcp/{address}/{port}'"


class StuckError(Exception):
    """The emulated processors of a guest wait for each other, as its kernel says itself."""


class Console:
    """A serial console at a pseudo terminal, from the moment when it is looked at."""

    def __init__(self, terminal: str) -> None:
        self._fd = os.open(terminal, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        self._said = b""
        self.was_stuck = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._over.is_set():
            if select.select([self._fd], [], [], 0.2)[0]:
                try:
                    self._said += os.read(self._fd, 65536)
                except BlockingIOError:
                    continue
                except OSError:
                    return  # the machine has ended

    @property
    def said(self) -> str:
        return self._said.decode(errors="replace")

    def wait_for(self, text: str, patience_s: float = PATIENCE_S) -> float:
        """Until it says so, and how long that took. A key is pressed now and then: whoever comes
        late sees a prompt again.

        Raises:
            StuckError: It says that its processors are stuck, the first time.
        """
        began = pressed = time.monotonic()
        while text not in self.said:
            now = time.monotonic()
            if not self.was_stuck and _STUCK.search(self.said):
                self.was_stuck = True
                raise StuckError(self.said[-2000:])
            assert now - began < patience_s, f"no '{text}': {self.said[-2000:]}"
            if now - pressed > 20:
                with contextlib.suppress(OSError):
                    os.write(self._fd, b"\r")
                pressed = now
            time.sleep(0.1)
        return time.monotonic() - began

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        os.close(self._fd)


class DebianMachine(ABC):
    """A machine that can be asked what is in it."""

    name: str
    uuid: str
    disk: Path
    console: Console

    @abstractmethod
    def ask(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        """Ask its guest agent; what that returns.

        Raises:
            HoldfastError, libvirt.libvirtError: It does not answer.
        """

    @abstractmethod
    def reset(self) -> None:
        """As its button does."""

    def wait_for_login(self) -> float:
        """Until it shows its prompt and its agent answers.

        One that is stuck is reset, once: emulation on a busy machine may come to that, and its disk
        has no part in it.
        """
        began = time.monotonic()
        try:
            self.console.wait_for(debian_guest.LOGIN)
        except StuckError:
            self.reset()
            self.console.wait_for(debian_guest.LOGIN)
        until(self._answers, "the guest agent", PATIENCE_S)
        return time.monotonic() - began

    def _answers(self) -> bool:
        try:
            self.ask("guest-ping")
        except Exception:  # noqa: BLE001 - of two libraries
            return False
        return True

    def run(self, *words: str, patience_s: float = 120.0) -> str:
        """Run a program inside; what it prints."""
        given = {"path": words[0], "arg": list(words[1:]), "capture-output": True}
        pid = self.ask("guest-exec", given)["pid"]
        end = time.monotonic() + patience_s
        while True:
            state = self.ask("guest-exec-status", {"pid": pid})
            if state["exited"]:
                break
            assert time.monotonic() < end, f"{words} has not ended"
            time.sleep(0.1)
        out = base64.b64decode(state.get("out-data", "")).decode()
        err = base64.b64decode(state.get("err-data", "")).decode()
        assert state.get("exitcode") == 0, f"{words}: {out}{err}"
        return out

    def shell(self, script: str) -> str:
        return self.run("/bin/sh", "-ec", script)

    def put(self, path: str, text: str) -> None:
        """Write a small file, and wait until it is on the disk."""
        encoded = base64.b64encode(text.encode()).decode()
        self.shell(f"echo {encoded} | base64 -d > {path}; sync {path}; sync $(dirname {path})")

    def start_load(self) -> None:
        """Have it write from now on; see `debian_guest.LOAD`."""
        self.run("/bin/systemctl", "start", "load")
        until(lambda: self.counter() > 0, "the first writes", PATIENCE_S)

    def counter(self) -> int:
        """How far the load is: this number was on the disk before it was told."""
        return int(self.shell("cat /srv/counter 2>/dev/null || echo 0"))


class DebianAlone(DebianMachine):
    """One under a QEMU of its own: ``run/NAME.qmp`` and ``run/NAME.qga`` in its directory."""

    def __init__(self, directory: Path, name: str = "debian") -> None:
        self.directory = directory
        self.name = name
        self.uuid = str(uuid.uuid4())
        self.run_directory = directory / "run"
        self.run_directory.mkdir(exist_ok=True)
        self.disk = debian_guest.copy(directory / f"{name}.qcow2")
        self._own = directory / f"{name}.own"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def agent(self) -> Path:
        return self.run_directory / f"{self.name}.qga"

    def words(self) -> list[str]:
        words = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "qemu64", "-smp", "2"]
        words += ["-m", str(MEMORY_MIB), "-nodefaults", "-display", "none", "-vga", "std"]
        words += ["-name", self.name, "-uuid", self.uuid]
        words += ["-chardev", "pty,id=console", "-serial", "chardev:console"]
        words += ["-qmp", f"unix:{self.run_directory}/{self.name}.qmp,server=on,wait=off"]
        words += ["-qmp", f"unix:{self._own},server=on,wait=off"]
        words += ["-chardev", f"socket,path={self.agent},server=on,wait=off,id=qga0"]
        words += ["-device", "virtio-serial"]
        words += ["-device", f"virtserialport,chardev=qga0,name={AGENT_PORT}"]
        words += ["-netdev", "user,id=n0,restrict=on"]
        words += ["-device", "virtio-net-pci,netdev=n0,mac=52:54:00:12:34:56,romfile="]
        words += ["-drive", f"if=none,id=d0,file={self.disk},format=qcow2,discard=unmap"]
        return [*words, "-device", "virtio-blk-pci,drive=d0,id=vda"]

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.words(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        self.console = Console(until(lambda: terminal_of(self._own), "QEMU to start"))

    def ask(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        return ask_agent(self.agent, command, arguments)

    def reset(self) -> None:
        reset_by(self._own)

    def kill(self) -> None:
        """As if its power went."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(60)
            self.console.close()
            self.process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()


def ask_agent(socket: Path, command: str, arguments: dict[str, Any] | None = None) -> Any:
    """Ask the guest agent at a socket of QEMU's."""
    agent = GuestAgent(str(socket), timeout_s=10)
    try:
        return agent.ask(command, 30, arguments)
    finally:
        agent.close()


def reset_by(monitor: Path) -> None:
    """Reset a machine by a monitor of its QEMU."""
    held = Monitor(str(monitor), greeting_timeout_s=30)
    try:
        held.execute("system_reset")
    finally:
        held.close()


def terminal_of(monitor: Path) -> str:
    """Where QEMU has its first serial console; empty while it is not there."""
    try:
        held = Monitor(str(monitor), greeting_timeout_s=30)
    except HoldfastError:
        return ""
    try:
        named = [str(one["filename"]) for one in held.execute("query-chardev")]
    finally:
        held.close()
    return next(one.removeprefix("pty:") for one in named if one.startswith("pty:"))


class DebianUnderLibvirt(DebianMachine):
    """One under a libvirtd; or what was made there of it, by its uuid."""

    def __init__(self, daemon: Libvirtd, name: str = "debian", known: str | None = None) -> None:
        self.daemon = daemon
        self.name = name
        self.connection = daemon.open()
        if known is not None:
            self.uuid = known
            self.domain = self.connection.lookupByUUIDString(known)
            self.name = self.domain.name()
            return
        self.uuid = str(uuid.uuid4())
        self.disk = debian_guest.copy(daemon.directory / "disks" / f"{name}.qcow2")
        self.domain = self.connection.defineXML(domain_xml(name, self.uuid, self.disk))

    def start(self) -> None:
        self.domain.create()
        self.watch()

    def watch(self) -> None:
        """Look at the console of a machine that runs."""
        import xml.etree.ElementTree as ET

        found = ET.fromstring(self.domain.XMLDesc()).find("devices/console/source")
        assert found is not None
        self.console = Console(found.attrib["path"])

    def ask(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        import libvirt_qemu

        asked = {"execute": command} | ({"arguments": arguments} if arguments else {})
        said = libvirt_qemu.qemuAgentCommand(self.domain, json.dumps(asked), 30, 0)
        return json.loads(said)["return"]

    def reset(self) -> None:
        self.domain.reset()

    def kill(self) -> None:
        """As if its power went."""
        import libvirt

        with contextlib.suppress(libvirt.libvirtError):
            self.domain.destroy()
        self.console.close()
        self.connection.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()


def domain_xml(name: str, known: str, disk: Path) -> str:
    """How libvirt is told of it."""
    return f"""<domain type='qemu'><name>{name}</name><uuid>{known}</uuid>
<memory unit='MiB'>{MEMORY_MIB}</memory><vcpu>2</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os>
<cpu mode='custom' match='exact'><model>qemu64</model></cpu>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
<disk type='file' device='disk'><driver name='qemu' type='{disk.suffix[1:]}' discard='unmap'/>
<source file='{disk}'/><target dev='vda' bus='virtio'/></disk>
<interface type='user'><mac address='52:54:00:12:34:56'/><model type='virtio'/><rom enabled='no'/>
</interface><serial type='pty'/><console type='pty'/>
<channel type='unix'><target type='virtio' name='{AGENT_PORT}'/></channel>
<video><model type='vga'/></video><memballoon model='none'/></devices></domain>"""
