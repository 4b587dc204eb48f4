"""Small real machines: a QEMU that runs nothing, whose disks are written through its monitor.

What QEMU writes for ``qemu-io`` goes through the same filters and bitmaps as a guest's writes.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Protocol, Self

import pytest

from holdfast.base.errors import HoldfastError
from holdfast.sources.machines.provider import FrozenDisk, Kind
from holdfast.sources.machines.qmp.monitor import Monitor
from holdfast.sources.nbd import client
from holdfast.sources.nbd.wire import Address

MIB = 1 << 20
SIZE = 4 * MIB
GRAIN = 65536

needs_qemu = pytest.mark.skipif(
    shutil.which("qemu-system-x86_64") is None or shutil.which("qemu-img") is None,
    reason="needs qemu-system-x86 and qemu-utils",
)


class Content:
    """What a disk has to hold, write by write."""

    def __init__(self, size: int = SIZE) -> None:
        self.now = bytearray(size)
        self.log: list[tuple[int, int, int]] = []

    def write(self, offset: int, length: int, pattern: int) -> None:
        self.log.append((offset, length, pattern))
        self.now[offset : offset + length] = bytes([pattern]) * length

    def moments(self, first: int) -> Iterator[bytes]:
        """What it held after each write, from a number of writes on."""
        content = bytearray(len(self.now))
        for at, (offset, length, pattern) in enumerate([(0, 0, 0), *self.log]):
            content[offset : offset + length] = bytes([pattern]) * length
            if at >= first:
                yield bytes(content)


class Writable(Protocol):
    """A machine whose disks are written by a test."""

    contents: dict[str, Content]

    def some_writes(self, random: Random, count: int = 6) -> None: ...


class Qemu:
    """A machine of its own process, in a directory of its own.

    ``<directory>/run/<name>.qmp`` is the monitor for backups; another one is the test's.
    """

    def __init__(
        self,
        directory: Path,
        *,
        name: str = "web",
        uuid: str = "",
        formats: tuple[str, ...] = (),
        more: str = "",
    ) -> None:
        """Make it; `more` is said of each of its disks, such as ``,discard=unmap``."""
        self.more = more
        self.directory = directory
        self.run = directory / "run"
        self.run.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.uuid = uuid or "11111111-2222-3333-4444-555555555555"
        self.monitor_path = self.run / f"{name}.qmp"
        self.formats = formats or ("qcow2",)
        self.names = [f"disk{at}" for at in range(len(self.formats))]
        self.files = [
            directory / f"{name}-{disk}.{kind}"
            for disk, kind in zip(self.names, self.formats, strict=True)
        ]
        self.contents = {disk: Content() for disk in self.names}
        for file, kind in zip(self.files, self.formats, strict=True):
            subprocess.run(["qemu-img", "create", "-q", "-f", kind, file, str(SIZE)], check=True)
        self.process: subprocess.Popen[bytes] | None = None
        self.test: Monitor | None = None

    def words(self) -> list[str]:
        words = ["qemu-system-x86_64", "-accel", "tcg", "-m", "32", "-nodefaults", "-display"]
        words += ["none", "-name", self.name, "-uuid", self.uuid]
        words += ["-qmp", f"unix:{self.monitor_path},server=on,wait=off"]
        words += ["-qmp", f"unix:{self._own},server=on,wait=off"]
        words += ["-netdev", "user,id=n0,restrict=on"]
        words += ["-device", "virtio-net-pci,netdev=n0,mac=52:54:00:12:34:56,romfile="]
        for disk, file, kind in zip(self.names, self.files, self.formats, strict=True):
            words += ["-drive", f"if=none,id={disk}-drive,file={file},format={kind}{self.more}"]
            words += ["-device", f"virtio-blk-pci,drive={disk}-drive,id={disk}"]
        return words

    @property
    def _own(self) -> Path:
        return self.directory / f"{self.name}-test.sock"

    def start(self) -> None:
        assert self.process is None
        self.process = subprocess.Popen(
            self.words(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        self.test = self._connected(self._own)

    def _connected(self, path: Path) -> Monitor:
        until = time.monotonic() + 60
        while True:
            try:
                return Monitor(str(path), greeting_timeout_s=30)
            except HoldfastError:
                assert self.process is not None
                assert self.process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.02)

    def write(self, disk: str, offset: int, length: int, pattern: int) -> None:
        assert self.test is not None
        self.contents[disk].write(offset, length, pattern)
        self.io(disk, f"write -P {pattern} {offset} {length}")

    def io(self, disk: str, command: str) -> str:
        assert self.test is not None
        line = f'qemu-io -d /machine/peripheral/{disk}/virtio-backend "{command}"'
        said = self.test.execute("human-monitor-command", {"command-line": line})
        assert "rror" not in said, said
        assert "ailed" not in said, said
        return str(said)

    def some_writes(self, random: Random, count: int = 6) -> None:
        for _ in range(count):
            disk = random.choice(self.names)
            length = random.randrange(1, 300) * 512
            offset = random.randrange(0, (SIZE - length) // 512) * 512
            self.write(disk, offset, length, random.randrange(1, 256))

    def status(self) -> str:
        assert self.test is not None
        return str(self.test.execute("query-status")["status"])

    def leftovers(self) -> list[str]:
        """What is of a backup in this machine, but for bitmaps."""
        assert self.test is not None
        ours = [str(one) for one in self.test.execute("query-block-exports")]
        for node in self.test.execute("query-named-block-nodes"):
            if str(node.get("node-name", "")).startswith("holdfast"):
                ours.append(node["node-name"])
        ours += [str(one) for one in self.test.execute("query-fdsets")]
        return ours

    def bitmaps(self) -> set[str]:
        assert self.test is not None
        return {
            one["name"]
            for node in self.test.execute("query-named-block-nodes")
            for one in node.get("dirty-bitmaps", ())
            if one.get("name")
        }

    def shut_down(self) -> None:
        """End it as it should be: bitmaps are written."""
        assert self.test is not None
        assert self.process is not None
        with contextlib.suppress(Exception):
            self.test.execute("quit")
        assert self.process.wait(60) == 0
        self._gone()

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(60)
        self._gone()

    def _gone(self) -> None:
        if self.test is not None:
            self.test.close()
        self.test = self.process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()


class Load:
    """Writes at random for the time of the block, one write after another."""

    def __init__(self, machine: Writable, random: Random) -> None:
        self._machine = machine
        self._random = random
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.is_set():
            self._machine.some_writes(self._random, 1)

    def wait_for(self, more: int) -> None:
        """Until so many writes more were done."""
        logs = [one.log for one in self._machine.contents.values()]
        wanted = sum(map(len, logs)) + more
        until = time.monotonic() + 60
        while sum(map(len, logs)) < wanted:
            assert time.monotonic() < until
            assert self._thread.is_alive()
            time.sleep(0.005)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()


class FakeAgent:
    """A guest agent at a socket, that does as it is told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.frozen = False
        self.asked: list[str] = []
        self.silent: set[str] = set()
        self.refused: set[str] = set()
        self.returns: dict[str, Any] = {}
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen(1)
        self._thread = threading.Thread(target=self._serve)
        self._held: socket.socket | None = None

    def _serve(self) -> None:
        while True:
            try:
                held, _ = self._socket.accept()
            except OSError:
                return
            self._held = held
            with (
                held,
                contextlib.suppress(OSError, ValueError),
                held.makefile("rwb") as file,
            ):
                for line in file:
                    if line.startswith(b"\xff"):  # as the real one says it
                        file.write(b'{"error": {"class": "GenericError", "desc": "parse error"}}\n')
                    if answer := self._answer(json.loads(line.lstrip(b"\xff"))):
                        file.write(answer)
                        file.flush()

    def _answer(self, request: dict[str, Any]) -> bytes | None:
        command = request["execute"]
        self.asked.append(command)
        if command == "guest-fsfreeze-freeze" and command not in self.refused:
            self.frozen = True
        if command == "guest-fsfreeze-thaw":
            self.frozen = False
        if command in self.silent:
            return None
        if command in self.refused:
            return b'{"error": {"class": "GenericError", "desc": "it would not"}}\n'
        returns: Any = 1
        if command == "guest-sync-delimited":
            return b"\xff" + json.dumps({"return": request["arguments"]["id"]}).encode() + b"\n"
        if command == "guest-get-osinfo":
            returns = {"pretty-name": "Debian GNU/Linux 12 (bookworm)"}
        if command == "guest-fsfreeze-status":
            returns = "frozen" if self.frozen else "thawed"
        returns = self.returns.get(command, returns)
        return json.dumps({"return": returns}).encode() + b"\n"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        if self._held is not None:
            with contextlib.suppress(OSError):
                self._held.shutdown(socket.SHUT_RDWR)
        self._thread.join()


def read_disk(disk: FrozenDisk, before: bytes | None = None) -> bytes:
    """What an image of it would hold: its ranges put together, over the image before it."""
    address = disk.address  # type: ignore[attr-defined]
    assert isinstance(address, Address)
    found = bytearray(disk.size)
    connection = client.connect(address, disk.export)  # type: ignore[attr-defined]
    try:
        at = 0
        for one in disk.ranges():
            assert one.offset == at
            assert one.length > 0
            at += one.length
            if one.kind is Kind.DATA:
                found[one.offset : at] = connection.read(one.offset, one.length)
            elif one.kind is Kind.SAME:
                assert before is not None
                found[one.offset : at] = before[one.offset : at]
        assert at == disk.size
    finally:
        connection.close()
    return bytes(found)


def bytes_of(disk: FrozenDisk, kind: Kind) -> int:
    return sum(one.length for one in disk.ranges() if one.kind is kind)
