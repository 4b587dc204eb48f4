"""Machines that libvirt moves to another host while they run, and their lists of changes.

Both hosts are libvirtds with their QEMUs here; what one has at libvirt's usual place for disks the
other does not see.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from holdfast.sources.machines.machine import State
from holdfast.sources.machines.provider import Kind
from holdfast.sources.machines.providers import open_provider
from tests.kit.image_chain import ImageChain, lost
from tests.kit.libvirtd import SIZE, Libvirtd, LibvirtMachine, libvirt_machines, needs_libvirt
from tests.kit.qemu import bytes_of, needs_qemu

pytestmark = [needs_qemu, needs_libvirt]


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Libvirtd, Libvirtd]]:
    made = Libvirtd(user="root"), Libvirtd(user="root")
    try:
        for one in made:
            one.start()
        yield made
    finally:
        for one in made:
            one.end()


@pytest.fixture
def chain(hosts: tuple[Libvirtd, Libvirtd], tmp_path: Path) -> Iterator[Callable[..., ImageChain]]:
    """A machine of the first host with a full and an incremental, and writes after that."""
    with libvirt_machines(hosts[0]) as make:

        def begun(**given: Any) -> ImageChain:
            machine = make(**given)
            machine.start()
            images = ImageChain(machine, "libvirt", hosts[0].url, tmp_path)
            machine.some_writes(Random(1), 8)
            images.back_up()
            machine.some_writes(Random(2), 4)
            assert lost(images.back_up()) == []
            machine.some_writes(Random(3), 4)
            return images

        yield begun


def move(images: ImageChain, to: Libvirtd, extra: int = 0, **more: str) -> None:
    """Move a machine to another host, as ``virsh migrate --live --persistent`` does."""
    import libvirt

    machine = images.machine
    flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PERSIST_DEST
    flags |= libvirt.VIR_MIGRATE_UNDEFINE_SOURCE | libvirt.VIR_MIGRATE_UNSAFE
    given = {libvirt.VIR_MIGRATE_PARAM_URI: f"unix://{to.directory}/move"}
    connection = to.open()
    machine.domain.migrate3(connection, given | more, flags | extra)
    connection.close()
    machine.daemon = to
    machine.connection.close()
    machine.reconnect()
    images.provider = open_provider("libvirt", to.url)


def bitmaps(machine: LibvirtMachine) -> set[str]:
    """Names of the bitmaps that QEMU has."""
    import libvirt_qemu

    asked = json.dumps({"execute": "query-named-block-nodes"})
    told = json.loads(libvirt_qemu.qemuMonitorCommand(machine.domain, asked, 0))
    return {each["name"] for one in told["return"] for each in one.get("dirty-bitmaps", ())}


def codes(snapshot: Any) -> set[str]:
    return {one.code for one in snapshot.remarks if one.code.startswith("bitmap-")}


def test_what_changed_comes_along_there_and_back(
    hosts: tuple[Libvirtd, Libvirtd], chain: Callable[..., ImageChain]
) -> None:
    images = chain()
    machine = images.machine
    for number, host in enumerate((hosts[1], hosts[0])):
        move(images, host)
        assert machine.checkpoints() == set()
        machine.some_writes(Random(10 + number), 4)
        with images.provider.snapshot(images.order()) as snapshot:
            assert snapshot.machine.uuid == machine.uuid
            assert bytes_of(snapshot.disks[0], Kind.SAME) > SIZE // 2
            (told,) = [one.message for one in snapshot.remarks if one.code == "bitmap-moved"]
            assert "'vda'" in told
        assert codes(images.back_up()) == set()  # it is followed since the one that failed
        machine.some_writes(Random(20 + number), 4)
        assert codes(images.back_up()) == set()
        assert machine.checkpoints() == bitmaps(machine) == {images.checkpoint}


def test_a_machine_that_moved_and_was_shut_down_is_followed(
    hosts: tuple[Libvirtd, Libvirtd], chain: Callable[..., ImageChain]
) -> None:
    images = chain()
    machine = images.machine
    move(images, hosts[1])
    machine.some_writes(Random(4), 4)
    machine.shut_down()
    off = images.back_up()
    assert (off.machine.state, lost(off)) == (State.OFF, [])
    machine.start()
    machine.some_writes(Random(5), 4)
    assert codes(images.back_up()) == {"bitmap-moved"}
    assert machine.checkpoints() == bitmaps(machine) == {images.checkpoint}


def test_a_list_of_changes_that_did_not_come_along_is_missed(
    hosts: tuple[Libvirtd, Libvirtd], chain: Callable[..., ImageChain]
) -> None:
    import libvirt_qemu

    images = chain()
    machine = images.machine
    move(images, hosts[1])
    asked = {"execute": "query-named-block-nodes"}
    told = json.loads(libvirt_qemu.qemuMonitorCommand(machine.domain, json.dumps(asked), 0))
    (node,) = [one["node-name"] for one in told["return"] if one.get("dirty-bitmaps")]
    gone = {
        "execute": "block-dirty-bitmap-remove",
        "arguments": {"node": node, "name": images.checkpoint},
    }
    libvirt_qemu.qemuMonitorCommand(machine.domain, json.dumps(gone), 0)
    snapshot = images.back_up()
    assert lost(snapshot) == ["vda"]
    assert "bitmap-moved" not in codes(snapshot)
    machine.some_writes(Random(6), 4)
    assert codes(images.back_up()) == set()


def make_room(images: ImageChain, host: Libvirtd) -> None:
    """An empty disk at a host, for the one disk of the machine to be copied to."""
    (here,) = images.machine.files
    there = host.images / here.name
    words = ["qemu-img", "create", "-q", "-f", "qcow2", str(there), str(SIZE)]
    subprocess.run(words, check=True)


def move_with_disks(images: ImageChain, host: Libvirtd) -> None:
    """Have libvirt copy the disks to that host as well."""
    import libvirt

    disks = {libvirt.VIR_MIGRATE_PARAM_DISKS_URI: f"unix://{host.directory}/disks.socket"}
    move(images, host, libvirt.VIR_MIGRATE_NON_SHARED_DISK, **disks)


def test_a_machine_that_moved_with_its_disks_is_right(
    hosts: tuple[Libvirtd, Libvirtd], chain: Callable[..., ImageChain]
) -> None:
    """Its disks are copied to files of the other host: libvirt takes the list of changes along."""
    images = chain(far=True, formats=("qcow2",))
    machine = images.machine
    make_room(images, hosts[1])
    move_with_disks(images, hosts[1])
    machine.some_writes(Random(7), 4)
    assert codes(images.back_up()) == {"bitmap-moved"}
    machine.some_writes(Random(8), 4)
    assert codes(images.back_up()) == set()
    assert machine.checkpoints() == bitmaps(machine) == {images.checkpoint}


def test_a_machine_that_moved_back_onto_its_old_disks_is_right(
    hosts: tuple[Libvirtd, Libvirtd], chain: Callable[..., ImageChain]
) -> None:
    """They have the same list of changes, as it was when the machine left them."""
    images = chain(far=True, formats=("qcow2",))
    machine = images.machine
    make_room(images, hosts[1])
    for number, host in enumerate((hosts[1], hosts[0])):
        move_with_disks(images, host)
        machine.some_writes(Random(30 + number), 6)
    images.back_up()
    machine.some_writes(Random(32), 4)
    assert codes(images.back_up()) == set()
    assert machine.checkpoints() == bitmaps(machine) == {images.checkpoint}
