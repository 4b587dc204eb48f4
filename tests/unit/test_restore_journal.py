"""What a restore's journal believes of disks that an earlier try left."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from holdfast.base.errors import AlreadyExists
from holdfast.sources.machines.machine import Disk, Machine
from holdfast.sources.machines.provider import NewMachine
from holdfast.sources.machines.unfinished import Journal

if TYPE_CHECKING:
    from holdfast.sources.machines.unfinished import Part

DISK = Disk("vda", 100, "/old/a", "raw")
PATH = "/pool/web-vda.raw"
ORDER = NewMachine(
    Machine("ab", "web", "kvm1", disks=(DISK,)), {}, "web", False, (), None, "raw", image="cd" * 16
)


class Shelf:
    """Files as they are looked at, and a journal, in memory."""

    def __init__(self) -> None:
        self.journal = b""
        self.files: dict[str, str] = {}
        self.lives = "first"

    def read(self) -> bytes:
        return self.journal

    def append(self, data: bytes) -> None:
        self.journal += data

    def clear(self) -> None:
        self.journal = b""

    def look(self, path: str) -> str | None:
        return self.files.get(path)

    def remove(self, path: str) -> None:
        self.files.pop(path, None)

    def life(self) -> str:
        return self.lives


def begun(shelf: Shelf, until: int) -> None:
    """A copy of a disk of which so much is there."""
    part = found(shelf)
    assert part.is_new
    shelf.files[PATH] = "mark 0"
    part.made()
    shelf.files[PATH] = f"mark {until}"
    part.keep(until)


def found(shelf: Shelf) -> Part:
    return Journal.opened(shelf, ORDER).part(DISK, PATH, source="here", whole="head")


def test_a_copy_is_gone_on_with_while_what_was_sent_lasts() -> None:
    shelf = Shelf()
    begun(shelf, 40)
    part = found(shelf)
    assert (part.begin, part.is_new) == (40, False)
    shelf.lives = "second"
    part = found(shelf)
    assert (part.begin, part.is_new) == (0, True)
    assert shelf.files == {}


def test_a_disk_that_is_whole_is_known_by_its_mark_and_by_how_it_begins() -> None:
    shelf = Shelf()
    begun(shelf, 100)
    for first in ("mark", "head"):
        shelf.files[PATH] = f"{first} 100"
        assert Journal.opened(shelf, ORDER).has("vda", PATH), first
    shelf.files[PATH] = "head 99"
    assert not Journal.opened(shelf, ORDER).has("vda", PATH)
    shelf.files[PATH], shelf.lives = "head 100", "second"
    assert not Journal.opened(shelf, ORDER).has("vda", PATH)
    # It is known all the same, and may be taken away.
    assert Journal.opened(shelf, replace(ORDER, restart=True)).known == {}
    assert shelf.files == {}


def test_a_disk_that_is_not_whole_is_known_by_its_mark_alone() -> None:
    shelf = Shelf()
    begun(shelf, 40)
    for other in ("head 100", "other 100"):
        shelf.files[PATH] = other
        with pytest.raises(AlreadyExists, match="there is a file"):
            found(shelf)
        Journal.opened(shelf, ORDER).throw_away()
        assert shelf.files == {PATH: other}
        shelf.files.clear()
        begun(shelf, 40)


def test_a_disk_that_was_noted_and_got_nothing_is_begun_anew() -> None:
    shelf = Shelf()
    found(shelf).made(identity="mark")
    assert found(shelf).is_new
    for told in ("empty 0", "mark 64"):
        shelf.files[PATH] = told
        part = found(shelf)
        assert part.is_new
        assert shelf.files == {}
        part.made(identity="mark")
    shelf.files[PATH] = "other 64"
    with pytest.raises(AlreadyExists, match="there is a file"):
        found(shelf)


def test_a_journal_from_before_there_were_marks_is_read() -> None:
    shelf = Shelf()
    shelf.lives = ""
    part = Journal.opened(shelf, ORDER).part(DISK, PATH)
    shelf.files[PATH] = "7 2026 100"
    part.made()
    part.keep(40)
    assert b"whole" not in shelf.journal
    assert b"life" not in shelf.journal
    again = Journal.opened(shelf, ORDER).part(DISK, PATH)
    assert (again.begin, again.is_new) == (40, False)
