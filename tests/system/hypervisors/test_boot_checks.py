"""Machines booted from their backups, cut off from the world."""

from __future__ import annotations

import contextlib
import struct
import zlib
from typing import TYPE_CHECKING

import pytest

from holdfast.base.errors import Cancelled, Invalid, PathMissing
from holdfast.movers.machines.boot_check import BootChecks, BootVerdict, run_boot_check
from holdfast.movers.machines.record import Record
from holdfast.sources.machines.machine import Disk, Machine, State
from tests.kit.boot_sector import boot_disk
from tests.kit.qemu import needs_qemu

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from holdfast.movers.machines.record import StoredDisk

pytestmark = needs_qemu


class Stored:
    """A file of an image, in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)

    def read_at(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]

    def data_extents(self, offset: int, length: int) -> list[tuple[int, int]]:
        return [(offset, min(length, self.size - offset))]


class Image:
    """An image of a machine with one disk, and what serves it."""

    def __init__(self, directory: Path, disk: bytes, name: str = "vda") -> None:
        self.directory = directory
        self.disk = disk
        machine = Machine(
            "6d1f2f9e-92a4-4f7c-9a4c-0e52c9f8a001",
            "web1",
            "here",
            State.RUNNING,
            disks=(Disk(name, len(disk), "", "raw"),),
        )
        record = Record(machine, None, quiesced=True)
        self.files = {b"/machine.json": record.to_bytes(), f"/disks/{name}".encode(): disk}

    def open_file(self, path: bytes) -> Stored:
        if path not in self.files:
            raise PathMissing(f"there is no {path!r}")
        return Stored(self.files[path])

    @contextlib.contextmanager
    def serve(self, disks: Mapping[str, StoredDisk]) -> Iterator[Mapping[str, str]]:
        urls = {}
        for name, file in disks.items():
            path = self.directory / f"{name}.raw"
            path.write_bytes(file.read_at(0, file.size))
            path.chmod(0o444)
            urls[name] = str(path)
        yield urls
        for name in disks:
            assert (self.directory / f"{name}.raw").read_bytes() == self.disk

    def check(self, checks: BootChecks, alive: Callable[[], None] = lambda: None) -> BootVerdict:
        scratch = self.directory / "scratch"
        scratch.mkdir(exist_ok=True)
        return run_boot_check(self.open_file, checks, self.serve, scratch, alive)


def lit(png: bytes) -> int:
    """How many bytes of a picture's pixels are not black."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    at, data = 8, b""
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            data += png[at + 8 : at + 8 + length]
        at += 12 + length
    return sum(byte != 0 for byte in zlib.decompress(data))


@pytest.mark.parametrize("name", ["vda", "sda", "hda"])
def test_a_machine_that_says_what_it_should_is_well(tmp_path: Path, name: str) -> None:
    image = Image(tmp_path, boot_disk("web1 login: "), name)
    verdict = image.check(BootChecks(serial=r"web\d login:", within_s=120))
    assert verdict.passed, verdict
    assert "web1 login:" in verdict.said
    assert list(verdict.met) == [r"'web\d login:' on the serial console"]
    assert verdict.missed == ()
    assert verdict.screenshot is not None
    assert lit(verdict.screenshot) > 100


def test_a_machine_that_says_something_else_is_not(tmp_path: Path) -> None:
    image = Image(tmp_path, boot_disk("no operating system"))
    verdict = image.check(BootChecks(serial="login:", port=22, within_s=20))
    assert not verdict.passed
    assert [one.split(" not within ")[0] for one in verdict.missed] == [
        "'login:' on the serial console",
        "an answer at TCP port 22",
    ]
    assert "no operating system" in verdict.said
    assert verdict.screenshot is not None


def test_a_machine_without_an_agent_does_not_answer_by_it(tmp_path: Path) -> None:
    image = Image(tmp_path, boot_disk("up"))
    verdict = image.check(BootChecks(agent=True, command=("/bin/true",), within_s=8))
    assert not verdict.passed
    assert [one.split(" not ")[0] for one in verdict.missed] == [
        "an answer of the guest agent",
        "success of '/bin/true'",
    ]


def test_who_is_told_to_stop_stops(tmp_path: Path) -> None:
    calls = 0

    def alive() -> None:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise Cancelled("told to stop")

    image = Image(tmp_path, boot_disk("up"))
    with pytest.raises(Cancelled):
        image.check(BootChecks(serial="never", within_s=300), alive)


def test_what_is_no_image_of_a_machine_is_told(tmp_path: Path) -> None:
    image = Image(tmp_path, boot_disk("up"))
    del image.files[b"/machine.json"]
    with pytest.raises(PathMissing):
        image.check(BootChecks(serial="up"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "nobody said"),
        ({"serial": "("}, "no regular expression"),
        ({"port": 70000}, "no TCP port"),
        ({"agent": True, "within_s": 0}, "can't be waited for"),
    ],
)
def test_what_nobody_can_wait_for_is_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(Invalid, match=words):
        BootChecks(**given)  # type: ignore[arg-type]
