"""A TCP relay between a client and a server that does harm by a seed.

What is harmed is bytes of TLS: a flip, a byte too many or too few kills the connection, as it
should; drops, delays and stalls do what they do in a real network. A relay does only so much harm,
so that what goes through it can end.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

HARMS = ("drop", "truncate", "stall", "delay", "duplicate", "flip", "swap", "outage")
_PIECE = 64 << 10


@dataclass
class FaultRelay:
    """Listens on a port of this machine; `harms` tells what it did.

    Attributes:
        to_port: Where what it passes on goes.
        seed: Of all that it does.
        most: So many harms in all.
        every: About so many bytes go well between two of them.
        stall_s: For how long nothing passes in a stall.
    """

    to_port: int
    seed: int
    most: int = 8
    every: int = 2 << 20
    stall_s: float = 1.5
    harms: list[str] = field(default_factory=list)
    passed_bytes: int = 0

    def __post_init__(self) -> None:
        self._made = random.Random(self.seed)
        self._lock = threading.Lock()
        self._until_s = 0.0
        self._stopped = threading.Event()
        self._held = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads: list[threading.Thread] = []
        self._sockets: set[socket.socket] = set()
        self._run(self._accept)

    def close(self) -> None:
        self._stopped.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_all()
        for thread in list(self._threads):
            thread.join(30)

    def drop_all(self) -> None:
        """End every connection that there is now."""
        with self._lock:
            for one in self._sockets:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def hold(self) -> None:
        """From now on nothing passes, and nobody is told."""
        self._held.set()

    def cut_off(self, for_s: float) -> None:
        """End every connection, and let none through for a while."""
        with self._lock:
            self._until_s = time.monotonic() + for_s
        self.drop_all()

    def _run(self, *call: object) -> None:
        work, *given = call
        thread = threading.Thread(target=work, args=given, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if time.monotonic() < self._until_s:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.to_port), 5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                self._sockets |= {near, far}
            self._run(self._both, near, far)

    def _both(self, near: socket.socket, far: socket.socket) -> None:
        back = threading.Thread(target=self._pump, args=(far, near), daemon=True)
        back.start()
        self._pump(near, far)
        back.join()
        with self._lock:
            self._sockets -= {near, far}
        near.close()
        far.close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        left = self._next_harm()
        try:
            while piece := source.recv(_PIECE):
                if self._held.is_set():
                    self._stopped.wait()
                with self._lock:
                    self.passed_bytes += len(piece)
                left -= len(piece)
                if left <= 0:
                    piece = self._harm(piece, sink)
                    left = self._next_harm()
                sink.sendall(piece)
        except OSError:
            pass
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _next_harm(self) -> int:
        with self._lock:
            return int(self._made.expovariate(1 / self.every)) + 1

    def _harm(self, piece: bytes, sink: socket.socket) -> bytes:
        with self._lock:
            if len(self.harms) >= self.most:
                return piece
            harm = self._made.choice(HARMS)
            at = self._made.randrange(len(piece))
            self.harms.append(harm)
        if harm == "outage":
            self.cut_off(self.stall_s / 3)
            raise OSError
        if harm == "drop":
            raise OSError
        if harm == "truncate":
            sink.sendall(piece[:at])
            raise OSError
        if harm == "stall":
            self._stopped.wait(self.stall_s)
        if harm == "delay":
            self._stopped.wait(self.stall_s / 10)
        if harm == "duplicate":
            return piece[: at + 1] + piece[at // 2 :]
        if harm == "flip":
            return piece[:at] + bytes([piece[at] ^ 1 << at % 8]) + piece[at + 1 :]
        if harm == "swap":
            return piece[at:] + piece[:at]
        return piece
