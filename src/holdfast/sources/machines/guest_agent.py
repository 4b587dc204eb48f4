"""Ask the agent in a guest, over its socket, to bring file systems to rest and wake them again.

Must not decide what a backup does without it. Invariant: whatever the agent does, or does not,
each question ends in its time; a guest that was asked to freeze is asked to thaw, too, since a
request that came late is carried out all the same.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import time
from typing import Any

from holdfast.base.errors import HoldfastError, NotQuiesced
from holdfast.sources.machines.sockets import connect

SYNC_TIMEOUT_S = 5.0
FREEZE_TIMEOUT_S = 30.0
THAW_TIMEOUT_S = 10.0
_PIECE = 65536
_LONGEST = 1 << 20
_HINT = "see that qemu-guest-agent runs in the machine"


class GuestAgent:
    """A connection to one agent. Not thread-safe. QEMU lets one client in at a time."""

    def __init__(self, path: str, *, timeout_s: float = SYNC_TIMEOUT_S) -> None:
        """Connect, and make sure that it listens.

        Raises:
            Unreachable, NoPermission, Busy: There is no such socket, or it is not to be had.
            NotQuiesced: No agent answers in the guest.
        """
        self.path = path
        self._received = b""
        self._socket: socket.socket = connect(path, "guest agent")
        try:
            self._sync(timeout_s)
        except BaseException:
            self._socket.close()
            raise

    def freeze(self) -> int:
        """Bring the guest's file systems to rest.

        Returns:
            How many.

        Raises:
            NotQuiesced: It would not, or did not say so in time; it was asked to thaw.
        """
        try:
            return int(self.ask("guest-fsfreeze-freeze", FREEZE_TIMEOUT_S))
        except HoldfastError:
            with contextlib.suppress(HoldfastError):
                self.thaw()
            raise

    def thaw(self) -> int:
        """Wake them.

        Returns:
            How many.

        Raises:
            NotQuiesced: The agent does not say that it did; it will when it gets to it.
        """
        self._send({"execute": "guest-fsfreeze-thaw"})
        return int(self._answer("guest-fsfreeze-thaw", THAW_TIMEOUT_S))

    def frozen(self) -> bool:
        """Whether file systems are at rest."""
        return bool(self.ask("guest-fsfreeze-status", SYNC_TIMEOUT_S) == "frozen")

    def system(self) -> str:
        """What the guest calls its system; empty where it does not tell."""
        with contextlib.suppress(HoldfastError):
            found = self.ask("guest-get-osinfo", SYNC_TIMEOUT_S)
            if isinstance(found, dict):
                return str(found.get("pretty-name", ""))
        return ""

    def ask(self, command: str, timeout_s: float, arguments: dict[str, Any] | None = None) -> Any:
        """Give a command and wait for its answer.

        Raises:
            NotQuiesced: It refused, or did not answer in time.
        """
        self._send({"execute": command} | ({"arguments": arguments} if arguments else {}))
        return self._answer(command, timeout_s)

    def close(self) -> None:
        """Let others in; who waits for an answer in another thread is told that it is gone."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _sync(self, timeout_s: float) -> None:
        number = secrets.randbelow(1 << 31)
        self._send({"execute": "guest-sync-delimited", "arguments": {"id": number}}, b"\xff")
        until = time.monotonic() + timeout_s
        while self._answer("guest-sync-delimited", until - time.monotonic()) != number:
            pass  # an answer to somebody who did not wait for it

    def _send(self, request: dict[str, Any], before: bytes = b"") -> None:
        try:
            self._socket.settimeout(SYNC_TIMEOUT_S)
            self._socket.sendall(before + json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise NotQuiesced(f"the guest agent at '{self.path}' is gone", _HINT) from error

    def _answer(self, command: str, timeout_s: float) -> Any:
        until = time.monotonic() + timeout_s
        while b"\n" not in self._received:
            self._socket.settimeout(max(0.001, until - time.monotonic()))
            try:
                piece = self._socket.recv(_PIECE)
            except OSError as error:
                if not isinstance(error, TimeoutError):
                    raise NotQuiesced(f"the guest agent at '{self.path}' is gone", _HINT) from error
                raise NotQuiesced(
                    f"the guest agent at '{self.path}' did not answer '{command}' for "
                    f"{timeout_s:g} s",
                    _HINT,
                ) from error
            if not piece or len(self._received) > _LONGEST:
                raise NotQuiesced(f"the guest agent at '{self.path}' is gone", _HINT)
            self._received += piece
        line, self._received = self._received.split(b"\n", 1)
        try:
            message = json.loads(line.rpartition(b"\xff")[2])
            if "error" in message and command == "guest-sync-delimited":
                return None  # the byte before it, which ends whatever was begun, is no JSON
            if "error" in message:
                raise NotQuiesced(
                    f"the guest agent at '{self.path}' refused '{command}': "
                    f"{message['error'].get('desc')}",
                    _HINT,
                )
            return message["return"]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if command == "guest-sync-delimited":
                return None  # the rest of an answer to somebody else
            raise NotQuiesced(
                f"what answers at '{self.path}' is no guest agent", "name the agent's socket"
            ) from error
