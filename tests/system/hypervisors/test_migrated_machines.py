"""Machines without libvirt that moved to another host: what their bitmaps are worth is seen."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.kit.image_chain import ImageChain, lost
from tests.kit.qemu import Qemu, needs_qemu

pytestmark = needs_qemu


class Arriving(Qemu):
    """The QEMU that a machine moves to, with the disks where they are, or with copies of them."""

    def __init__(self, directory: Path, leaves: Qemu, *, copied: bool) -> None:
        super().__init__(directory, uuid=leaves.uuid, formats=leaves.formats)
        self.leaves = leaves
        self.copied = copied
        self.contents = leaves.contents
        if not copied:
            self.files = leaves.files

    def words(self) -> list[str]:
        return [*super().words(), "-incoming", "defer"]

    def move_here(self) -> None:
        """Move the machine, and end what it left."""
        assert self.test is not None
        assert self.leaves.test is not None
        uri = {"uri": f"unix:{self.directory}/incoming"}
        self.test.execute("migrate-incoming", uri)
        self.leaves.test.execute("migrate", uri | {"blk": self.copied})
        until = time.monotonic() + 120
        while self.leaves.test.execute("query-migrate")["status"] != "completed":
            assert self.leaves.test.execute("query-migrate")["status"] != "failed"
            assert time.monotonic() < until
            time.sleep(0.02)
        while self.status() != "running":
            assert time.monotonic() < until
            time.sleep(0.02)
        self.leaves.kill()


@pytest.fixture
def leaves(tmp_path: Path) -> Iterator[Qemu]:
    with Qemu(tmp_path / "first", formats=("qcow2", "raw")) as made:
        yield made


@pytest.mark.parametrize(("copied", "read_whole"), [(False, ["disk1"]), (True, ["disk0", "disk1"])])
def test_the_next_backup_of_a_machine_that_moved_is_right(
    leaves: Qemu, tmp_path: Path, copied: bool, read_whole: list[str]
) -> None:
    """The bitmap of a qcow2 moves with its file; that of a raw disk, and of a copy, is lost."""
    images = ImageChain(leaves, "qmp", str(leaves.run), tmp_path)
    leaves.some_writes(Random(1), 20)
    images.back_up()
    leaves.some_writes(Random(2), 4)
    with Arriving(tmp_path / "second", leaves, copied=copied) as arrived:
        arrived.move_here()
        arrived.some_writes(Random(3), 4)
        moved = ImageChain(arrived, "qmp", str(arrived.run), tmp_path)
        moved.checkpoint, moved.held = images.checkpoint, images.held
        snapshot = moved.back_up()
        assert lost(snapshot) == read_whole
        for remark in snapshot.remarks:
            assert remark.severity == "warning"
            assert "its list of changes since the last image is gone" in remark.message
        arrived.some_writes(Random(4), 4)
        assert not moved.back_up().remarks
