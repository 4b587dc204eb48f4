"""Notes of acts: who hears them, and what keeps nobody from the others."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

from holdfast.control.act_notes import ActNotes, Draft, NotedRow

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def noted(notes: ActNotes, at: int, *, ended: bool = True) -> Draft:
    draft = notes.begin("local:root", at)
    rows = (NotedRow("hold_image", f"images/{at}/holds", "done", {}),)
    draft.write(draft.note._replace(rows=rows, ended_ns=at + 1 if ended else None), durable=False)
    return draft


def heard(notes: ActNotes) -> list[int]:
    return [note.begun_ns for _, note in notes.told() if note is not None]


def test_what_is_under_way_is_heard_when_it_has_ended_and_each_once(tmp_path: Path) -> None:
    notes = ActNotes(tmp_path)
    noted(notes, 2)
    draft = noted(notes, 1, ended=False)
    assert heard(notes) == [2]
    draft.write(draft.note._replace(ended_ns=3), durable=True)
    assert heard(notes) == [1]
    assert heard(notes) == []


def test_one_that_can_not_be_read_keeps_nobody_from_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = ActNotes(tmp_path)
    for at in (1, 2, 3):
        noted(notes, at)
    bad = next((tmp_path / "acts").glob(f"{2:020d}-*")).stat().st_ino
    flock = fcntl.flock

    def broken(descriptor: int, how: int) -> None:
        if os.fstat(descriptor).st_ino == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        flock(descriptor, how)

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", broken)
        assert heard(notes) == [1, 3]
    assert heard(notes) == [2]
