"""Machines of libvirt that are off: their files are read where they lie, and stand still."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from holdfast.sources.machines.provider import Kind
from holdfast.sources.machines.providers import open_provider
from tests.kit.image_chain import snapshot_order
from tests.kit.libvirtd import (
    SIZE,
    LibvirtMachine,
    Make,
    libvirt_machines,
    libvirtd_kit,
    needs_libvirt,
)
from tests.kit.qemu import needs_qemu

pytestmark = [needs_qemu, needs_libvirt]


@pytest.fixture
def make() -> Iterator[Make]:
    with libvirtd_kit() as daemon, libvirt_machines(daemon) as make:
        yield make


def frozen(machine: LibvirtMachine) -> Any:
    provider = open_provider("libvirt", machine.daemon.url)
    return provider.snapshot(snapshot_order(machine, machine.daemon.scratch))


def test_files_of_a_machine_that_is_off_are_read_where_they_lie(make: Make) -> None:
    """With nobody between: once they are open, qemu-nbd may be gone."""
    machine = make()
    machine.start()
    machine.some_writes(Random(16), 10)
    machine.shut_down()
    with frozen(machine) as snapshot:
        read = {one.name: one.source() for one in snapshot.disks}
        for served in snapshot._served:
            os.kill(served.process.pid, signal.SIGKILL)
            served.process.wait(60)
        for one in snapshot.disks:
            held = bytearray(SIZE)
            for part in one.ranges():
                if part.kind is Kind.DATA:
                    content = read[one.name].read_at(part.offset, part.length)
                    held[part.offset : part.offset + part.length] = content
            assert held == machine.contents[one.name].now, one.name


def test_a_machine_that_is_started_at_the_last_moment_ends_the_backup_with_an_error(
    make: Make,
) -> None:
    """When all was read nobody asks any more whether the snapshot stands."""
    machine = make()
    with frozen(machine) as snapshot:
        snapshot.check()
        assert [one for one in snapshot.remarks if one.severity == "error"] == []
        machine.start()
        (told,) = [one for one in snapshot.remarks if one.severity == "error"]
        assert told.code == "changed-while-read"
        assert "was started" in told.message
