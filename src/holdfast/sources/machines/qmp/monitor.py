"""Speak QMP, the protocol by which QEMU is told what to do, over its UNIX socket.

Must not know what is said. QEMU serves one client at a time, so whoever holds a monitor keeps all
others out, and whoever gets in knows that nobody else is at work. Invariant: an answer belongs to
the command that it is returned for; after a time-out the connection is of no more use, as a late
answer would be taken for another's.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

from holdfast.base.errors import Busy, HypervisorError, HypervisorRefused, TooSlow
from holdfast.sources.machines.sockets import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

GREETING_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 60.0
_PIECE = 65536


class Monitor:
    """A connection to one QEMU. Thread-safe: one command at a time."""

    def __init__(self, path: str, *, greeting_timeout_s: float = GREETING_TIMEOUT_S) -> None:
        """Connect.

        Raises:
            Unreachable: There is no such socket, or nobody listens: the machine is off.
            NoPermission: This user may not use it.
            Busy: Somebody else holds it.
        """
        self.path = path
        self._lock = threading.RLock()
        self._received = b""
        self._dead: str | None = None
        self._socket = connect(path, "QMP")
        try:
            self._socket.settimeout(greeting_timeout_s)
            try:
                greeting = self._read()
            except TimeoutError as error:
                raise Busy(
                    f"QEMU does not greet at '{path}': another program holds this monitor",
                    "give backups a monitor of their own: another '-qmp unix:…,server=on,wait=off'",
                ) from error
            if "QMP" not in greeting:
                raise HypervisorError(
                    f"what answers at '{path}' is no QMP monitor",
                    "name the socket of '-qmp', not that of the guest agent or of a console",
                )
            self.version = _version(greeting)
            self.execute("qmp_capabilities")
        except BaseException:
            self._socket.close()
            raise

    @property
    def usable(self) -> bool:
        """Whether QEMU still answers, as far as is known."""
        return self._dead is None

    def execute(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        fds: tuple[int, ...] = (),
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> Any:
        """Give a command and wait for its answer.

        Args:
            command: Its name.
            arguments: What it takes.
            fds: Open files that are handed over with it.
            timeout_s: How long to wait.

        Returns:
            What QEMU returned.

        Raises:
            HypervisorRefused: QEMU would not.
            TooSlow: It did not answer in time.
            HypervisorError: It is gone: the machine ended.
        """
        request: dict[str, Any] = {"execute": command}
        if arguments is not None:
            request["arguments"] = arguments
        with self._lock:
            if self._dead is not None:
                raise HypervisorError(self._dead)
            try:
                self._socket.settimeout(timeout_s)
                self._send(json.dumps(request).encode() + b"\n", fds)
                answer = self._answer()
            except TimeoutError as error:
                self._dead = f"QEMU at '{self.path}' did not answer '{command}' for {timeout_s:g} s"
                raise TooSlow(self._dead, "see what the machine's host is busy with") from error
            except OSError as error:
                self._dead = f"QEMU at '{self.path}' is gone: {error.strerror or error}"
                raise HypervisorError(self._dead, "see whether the machine still runs") from error
        if "error" in answer:
            reason = str(answer["error"].get("desc", answer["error"]))
            raise HypervisorRefused(
                f"QEMU at '{self.path}' refused '{command}': {reason}", reason=reason
            )
        return answer["return"]

    def peer_pid(self) -> int:
        """The process that listens: QEMU's own."""
        packed = self._socket.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
        )
        return int(struct.unpack("3i", packed)[0])

    def close(self) -> None:
        """Let others in. Files that were handed over with ``getfd`` go with it."""
        self._dead = self._dead or f"the monitor '{self.path}' is closed"
        self._socket.close()

    def _send(self, data: bytes, fds: tuple[int, ...]) -> None:
        if fds:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
            data = data[self._socket.sendmsg([data], rights) :]
        self._socket.sendall(data)

    def _answer(self) -> dict[str, Any]:
        while True:
            message = self._read()
            if "return" in message or "error" in message:
                return message

    def _read(self) -> dict[str, Any]:
        while b"\n" not in self._received:
            piece = self._socket.recv(_PIECE)
            if not piece:
                raise ConnectionResetError("it closed the connection")
            self._received += piece
        line, self._received = self._received.split(b"\n", 1)
        message = json.loads(line)
        return message if isinstance(message, dict) else {}


class Monitors:
    """Monitors that are open in this process, each shared by all who need it. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, tuple[Monitor, int]] = {}

    @contextlib.contextmanager
    def use(self, path: str) -> Iterator[Monitor]:
        """Have a monitor open, with everybody else of this process who does.

        Raises:
            HoldfastError: As `Monitor` does.
        """
        path = os.path.realpath(path)
        with self._lock:
            found, users = self._open.get(path, (None, 0))
            if found is None or not found.usable:
                found, users = Monitor(path), 0
            self._open[path] = (found, users + 1)
        try:
            yield found
        finally:
            with self._lock:
                held, users = self._open.get(path, (None, 0))
                if held is not found:  # it died meanwhile, and others have a new one
                    found.close()
                elif users > 1:
                    self._open[path] = (found, users - 1)
                else:
                    del self._open[path]
                    found.close()


MONITORS = Monitors()
"""Those of this process: QEMU lets one client in, so providers share."""


def _version(greeting: dict[str, Any]) -> tuple[int, int]:
    with contextlib.suppress(KeyError, TypeError):
        qemu = greeting["QMP"]["version"]["qemu"]
        return int(qemu["major"]), int(qemu["minor"])
    return 0, 0
