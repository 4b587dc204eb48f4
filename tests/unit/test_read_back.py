"""What was written is compared with what is on the disk, holes as well."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast.movers.machines.read_back import Written

SIZE = 9 << 20
PIECES = [(0, b"a" * 5000), (5000, b"b" * 10), (4 << 20, b"c" * (3 << 20))]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    with path.open("wb") as made:
        for offset, data in PIECES:
            made.seek(offset)
            made.write(data)
        made.truncate(SIZE)
    return path


def difference(file: Path, size: int = SIZE) -> str | None:
    written = Written()
    for offset, data in PIECES:
        written.add(offset, data)
    directory = os.open(file.parent, os.O_RDONLY)
    try:
        return written.difference(os.fsencode(file.name), directory, size)
    finally:
        os.close(directory)


def test_what_is_as_it_was_written_does_not_differ(file: Path) -> None:
    assert difference(file) is None
    # zeros that take space are zeros
    with file.open("r+b") as made:
        made.seek(1 << 20)
        made.write(bytes(100_000))
    assert difference(file) is None


@pytest.mark.parametrize("at", [0, 5009, 6000, (3 << 20) + 7, (7 << 20) - 1, 7 << 20, SIZE - 1])
def test_one_other_byte_is_told(file: Path, at: int) -> None:
    with file.open("r+b") as made:
        made.seek(at)
        made.write(b"!")
    assert difference(file) is not None


def test_another_length_is_told(file: Path) -> None:
    os.truncate(file, SIZE + 1)
    assert difference(file) == f"has {SIZE + 1} bytes, in the machine it has {SIZE}"


def test_a_file_that_is_gone_or_a_link_is_told(file: Path) -> None:
    file.rename(file.parent / "other")
    assert "cannot be read again" in (difference(file) or "")
    file.symlink_to("other")
    assert "cannot be read again" in (difference(file) or "")
