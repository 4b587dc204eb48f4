"""A disk of an image that a machine runs from, while its pool can't be read for a while."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import pytest

from holdfast.base.errors import IntegrityError, Unreachable
from holdfast.movers.machines.patient import Patient, PatientlyAnswering, patient

if TYPE_CHECKING:
    from collections.abc import Callable


class File:
    """A file of an image that reads, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.size = 4
        self.error = error

    def read_at(self, offset: int, length: int) -> bytes:
        if self.error is not None:
            raise self.error
        return b"data"[offset : offset + length]

    def data_extents(self, offset: int, length: int) -> list[tuple[int, int]]:
        return [(offset, length)]


class Answers(File):
    """The same, which answers its clients itself."""

    def serve_nbd(
        self,
        fd: int,
        begun: bytes,
        *,
        structured: bool,
        allocation: bool,
        troubled: Callable[[Exception], object],
    ) -> None:
        assert (begun, structured, allocation) == (b"begun", True, False)
        if self.error is not None:
            troubled(self.error)
        with socket.socket(fileno=socket.dup(fd)) as connected:
            connected.send(b"an answer")


def served(disk: PatientlyAnswering) -> tuple[bytes, list[Exception]]:
    """What a client got, and what somebody was told."""
    told: list[Exception] = []
    here, there = socket.socketpair()
    with here, there:
        with contextlib.suppress(BrokenPipeError):
            disk.serve_nbd(
                there.fileno(), b"begun", structured=True, allocation=False, troubled=told.append
            )
        here.settimeout(5)
        return here.recv(64), told


def test_what_answers_its_clients_itself_is_let() -> None:
    disk = patient(lambda _path: Answers(), b"/disks/vda", 4)
    assert isinstance(disk, PatientlyAnswering)
    assert served(disk) == (b"an answer", [])
    plain = patient(lambda _path: File(), b"/disks/vda", 4)
    assert type(plain) is Patient
    assert plain.read_at(1, 2) == b"at"


def test_what_can_not_be_read_for_a_while_ends_the_connection_and_is_opened_anew() -> None:
    away = Unreachable("the media server is away")
    files = [Answers(), Answers(away), Answers()]
    disk = patient(lambda _path: files.pop(0), b"/disks/vda", 4)
    assert isinstance(disk, PatientlyAnswering)
    assert served(disk) == (b"", [away])
    assert served(disk) == (b"an answer", [])


def test_what_is_damaged_is_an_error_to_the_client() -> None:
    damaged = IntegrityError("a chunk is not what its name says")
    opened = []

    def opens(path: bytes) -> Answers:
        opened.append(path)
        return Answers(damaged)

    disk = patient(opens, b"/disks/vda", 4)
    assert isinstance(disk, PatientlyAnswering)
    for _ in range(2):
        assert served(disk) == (b"an answer", [damaged])
    assert opened == [b"/disks/vda"] * 2


def test_opening_waits_for_a_pool_that_comes_back() -> None:
    tried = []

    def opens(_path: bytes) -> Answers:
        tried.append(1)
        if len(tried) == 2:
            raise Unreachable("the media server is away")
        return Answers()

    disk = patient(opens, b"/disks/vda", 4)
    assert isinstance(disk, PatientlyAnswering)
    assert served(disk) == (b"an answer", [])
    assert len(tried) == 3


def test_damage_is_not_waited_for() -> None:
    disk = Patient(lambda _path: File(IntegrityError("damaged")), b"/disks/vda", 4)
    with pytest.raises(IntegrityError):
        disk.read_at(0, 4)
