"""Machines that run and write, through the engine into a real pool: images hold what was there."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from holdfast.base.clock import SystemClock
from holdfast.base.ids import ImageId, SourceName
from holdfast.engine import DiskSink
from holdfast.movers.machines.backup_run import MachineOrder, run_machine_backup
from holdfast.movers.machines.ends import NearDestination
from holdfast.sources.machines.provider import Remark
from holdfast.sources.machines.providers import open_provider
from holdfast.vault import PoolKey, create_pool
from tests.kit.libvirtd import LibvirtMachine, libvirtd_kit, why_no_libvirt
from tests.kit.qemu import SIZE, Qemu, needs_qemu

pytestmark = needs_qemu

INCREMENTALS = 10
Running = tuple[Any, str, str, Path]


@pytest.fixture(params=["qmp", "libvirt"])
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    """A machine, how its hypervisor is opened, and a place for scratch."""
    if request.param == "qmp":
        with Qemu(tmp_path, formats=("qcow2", "raw")) as made:
            yield made, "qmp", str(made.run), tmp_path
        return
    if reason := why_no_libvirt():
        pytest.skip(reason)
    with libvirtd_kit() as daemon:
        machine = LibvirtMachine(daemon, "web", str(uuid.uuid4()))
        machine.start()
        yield machine, "libvirt", daemon.url, daemon.scratch
        machine.remove()


def test_images_follow_each_other_and_read_what_changed(running: Running, tmp_path: Path) -> None:
    machine, kind, url, scratch = running
    pool = create_pool(
        str(tmp_path / "pool"), secret=PoolKey(bytes(range(32))), clock=SystemClock()
    )
    order = MachineOrder(
        uuid=machine.uuid,
        source=SourceName("web:vm"),
        host="web",
        scratch=scratch,
        label="site-7",
        labels={},
        quiesce=False,
    )
    provider = open_provider(kind, url)
    random, parent, images = Random(1), None, []
    first = machine.names[0]
    machine.write(first, 0, SIZE, 1)
    told: list[Remark] = []
    for _ in range(1 + INCREMENTALS):
        done = run_machine_backup(
            provider, order, NearDestination(pool, parent), SystemClock(), told.append
        )
        parent = ImageId(done.image.id)
        held = {name: bytes(content.now) for name, content in machine.contents.items()}
        images.append((parent, held))
        assert [one.code for one in told if one.severity == "warning"] == []
        machine.some_writes(random, 5)
    for image, held in images:
        for name, content in held.items():
            file = pool.open_file(image, f"/disks/{name}".encode())
            assert file.read_at(0, SIZE) == content, (image, name)
            restored = tmp_path / f"{image}-{name}"
            sink = DiskSink.file(str(restored), SIZE)
            pool.restore_disk(image, f"/disks/{name}".encode(), sink, verify=True).result()
            assert restored.read_bytes() == content, (image, name)
    assert len(images) == 1 + INCREMENTALS
    assert machine.leftovers() == []
