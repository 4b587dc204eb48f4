"""Disks of an image that are opened anew when they can't be read for a while.

Must not know who reads them. Invariant: what can't be read for a while is no error to a client, who
would believe it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from holdfast.base.errors import HoldfastError, Invalid, Retry
from holdfast.sources.nbd.offers import Answering

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.movers.machines.record import StoredDisk

    T = TypeVar("T")

_PATIENT_S = 15.0
_AGAIN_S = 0.5


class Opens(Protocol):
    """Opens a file of an image, anew each time."""

    def __call__(self, path: bytes, /) -> StoredDisk:
        """Open it; raises `HoldfastError`."""
        ...


@dataclass
class Patient:
    """A disk of an image that is opened anew when it can't be read for a while. Thread-safe.

    Attributes:
        open_file: Opens it.
        path: Of it, in the image.
        size: In bytes.
    """

    open_file: Opens
    path: bytes
    size: int

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._file: StoredDisk | None = None

    def read_at(self, offset: int, length: int) -> bytes:
        """Bytes from an offset on."""
        return self._patiently(lambda file: file.read_at(offset, length))

    def data_extents(self, offset: int, length: int) -> list[tuple[int, int]]:
        """Where data is."""
        return self._patiently(lambda file: file.data_extents(offset, length))

    def let_go(self) -> None:
        """Have it be opened anew for whoever reads next."""
        # Without the lock of whoever opens it, which may take long just now.
        self._file = None

    def _patiently(self, ask: Callable[[StoredDisk], T]) -> T:
        until_s = time.monotonic() + _PATIENT_S
        while True:
            file = None
            try:
                file = self._opened()
                return ask(file)
            except HoldfastError as error:
                if error.retry is not Retry.SAME_TARGET or time.monotonic() > until_s:
                    raise
                self._forget(file)
            time.sleep(_AGAIN_S)

    def _forget(self, file: StoredDisk | None) -> None:
        with self._lock:
            if self._file is file:
                self._file = None

    def _opened(self) -> StoredDisk:
        with self._lock:
            if self._file is None:
                self._file = self.open_file(self.path)
            return self._file


class PatientlyAnswering(Patient):
    """A disk that answers its clients itself, and is opened anew for one who comes again.

    What it can't read for a while is no error to a client, who would believe it: the connection
    ends, and whoever runs a machine makes a new one.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._connected: set[socket.socket] = set()

    def let_go(self) -> None:
        """End the connections of all clients; the next is answered by what is opened anew."""
        super().let_go()
        for one in list(self._connected):
            _end(one)

    def serve_nbd(
        self,
        fd: int,
        begun: bytes,
        *,
        structured: bool,
        allocation: bool,
        troubled: Callable[[Exception], object],
    ) -> None:
        """See `Answering`."""
        with socket.socket(fileno=os.dup(fd)) as connected:
            self._connected.add(connected)
            try:
                self._serve(connected, fd, begun, structured, allocation, troubled)
            finally:
                self._connected.discard(connected)

    def _serve(
        self,
        connected: socket.socket,
        fd: int,
        begun: bytes,
        structured: bool,
        allocation: bool,
        troubled: Callable[[Exception], object],
    ) -> None:
        file = self._patiently(lambda file: file)
        if not isinstance(file, Answering):
            raise Invalid(f"'{self.path!r}' answers nobody")

        def again(error: Exception) -> None:
            troubled(error)
            if isinstance(error, HoldfastError) and error.retry is Retry.SAME_TARGET:
                self._forget(file)
                _end(connected)

        file.serve_nbd(fd, begun, structured=structured, allocation=allocation, troubled=again)


def patient(open_file: Opens, path: bytes, size: int) -> Patient:
    """A disk of an image, as patient as can be, that answers its clients itself if it can."""
    answers = isinstance(open_file(path), Answering)
    return (PatientlyAnswering if answers else Patient)(open_file, path, size)


def _end(connected: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)
