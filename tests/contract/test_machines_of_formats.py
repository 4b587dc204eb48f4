"""Machines with disks of each format that their hypervisor takes: written whole, and started."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("lxml", reason="lxml is not installed: see the extra 'vm'")

from holdfast.base.clock import SystemClock
from holdfast.base.errors import Invalid
from holdfast.base.ids import ImageId, SourceName
from holdfast.movers.machines.backup_run import MachineOrder, run_machine_backup
from holdfast.movers.machines.ends import NearDestination, NearImage
from holdfast.movers.machines.work import restore_machine
from holdfast.sources.machines.machine import State
from holdfast.sources.machines.provider import NewMachine
from holdfast.sources.machines.providers import KINDS
from holdfast.vault import PoolKey, create_pool
from holdfast.wire.machine_work import MachineRestoreWork, Reached
from tests.kit.disk_images import MIB, needs_qemu
from tests.kit.libvirtd import why_no_libvirt
from tests.kit.machine_providers import (
    Bench,
    FarLibvirtBench,
    LibvirtBench,
    QmpBench,
    Writer,
    order,
    read,
)
from tests.kit.sshd import why_no_sshd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast.engine import Pool

pytestmark = needs_qemu

SIZES = (40 * MIB, 4 * MIB + 512)


class Site:
    """A hypervisor with a machine, and a pool with an image of that."""

    def __init__(self, bench: Bench, directory: Path) -> None:
        self.bench = bench
        self.place = directory
        self.pool: Pool = create_pool(
            str(directory / "pool"), secret=PoolKey(bytes(range(32))), clock=SystemClock()
        )
        known = bench.make("web", *SIZES)
        wanted = MachineOrder(
            uuid=known,
            source=SourceName("web:vm"),
            host="web",
            scratch=directory,
            label="site-7",
        )
        end = NearDestination(self.pool, None)
        done = run_machine_backup(bench.open(), wanted, end, SystemClock(), lambda _: None)
        self.image = ImageId(done.image.id)
        self.truth = bench.truth(known)

    def restore(self, image_format: str) -> str:
        """Make a machine of the image, and start it; its uuid."""
        work = MachineRestoreWork(
            self.image,
            hypervisor="there",
            reached=Reached("there", self.bench.kind, self.bench.url, {}),
            name=f"again-{image_format}",
            keep_identity=False,
            networks=(),
            format=image_format,
            start=True,
            verify=True,
        )
        restore_machine(work, NearImage(self.pool, self.image), lambda _: None, lambda _: None)
        known = self.bench.open().machines()
        return next(one.uuid for one in known if one.name == work.name)


@pytest.fixture(scope="module")
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    if request.param == "libvirt" and (reason := why_no_libvirt()):
        pytest.skip(reason)
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("needs qemu-system-x86")
    directory = tmp_path_factory.mktemp("site")
    made: Bench = LibvirtBench(directory) if request.param == "libvirt" else QmpBench(directory)
    try:
        yield Site(made, directory)
    finally:
        made.close()


FORMATS = [(kind, one) for kind in ("libvirt", "qmp") for one in KINDS[kind].disk_formats]


@pytest.mark.parametrize(("site", "image_format"), FORMATS, indirect=["site"])
def test_a_machine_starts_from_such_disks_and_writes_to_them(site: Site, image_format: str) -> None:
    known = site.restore(image_format)
    machine = site.bench.open().machine(known)
    assert machine.state is State.RUNNING
    assert [one.format for one in machine.disks] == [image_format] * 2
    for disk in machine.disks:
        assert disk.size == len(site.truth[disk.name])
        assert_sound(disk.place, image_format)
    assert list(site.bench.truth(known).values()) == list(site.truth.values())
    # Where there was data, and where there was none: a new cluster in its file.
    written = {name: bytearray(content) for name, content in site.truth.items()}
    (name, *_) = written
    for offset in (4096, 30 * MIB):
        site.bench.change(known, name, offset, 0x5A, 8192)
        written[name][offset : offset + 8192] = b"\x5a" * 8192
    with site.bench.open().snapshot(order(known, site.place)) as frozen:
        assert {one.name: read(one) for one in frozen.disks} == written


def assert_sound(place: str, image_format: str) -> None:
    """Nothing is wrong in a file, as far as qemu can tell, which a machine has open."""
    if image_format != "raw":
        words = ["qemu-img", "check", "-U", "-f", image_format, place]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("site", ["libvirt"], indirect=True)
def test_what_libvirt_allows_for_qcow2_alone_goes_with_that_format(
    site: Site, tmp_path: Path
) -> None:
    (known, *_) = (one.uuid for one in site.bench.open().machines() if one.name == "web")
    with site.bench.open().snapshot(order(known, tmp_path)) as frozen:
        machine, definitions = frozen.machine, dict(frozen.definitions)
    before = b"type='qcow2'/>"
    assert definitions["domain.xml"].count(before) == len(SIZES)
    more = b"<metadata_cache><max_size unit='bytes'>4194304</max_size></metadata_cache>"
    definitions["domain.xml"] = definitions["domain.xml"].replace(
        before, b"type='qcow2' cache='none' discard_no_unref='on'>" + more + b"</driver>"
    )
    new = NewMachine(machine, definitions, "tuned", False, (), None, "vmdk")
    made = site.bench.open().restore(new, Writer(site.truth))
    with site.bench.open().snapshot(order(made.uuid, tmp_path)) as frozen:
        told = frozen.definitions["domain.xml"].decode()
    assert told.count("type='vmdk' cache='none'") == len(SIZES)
    assert "metadata_cache" not in told


@pytest.mark.skipif(bool(why_no_libvirt() or why_no_sshd()), reason="needs libvirtd and sshd")
def test_a_disk_that_no_vmdk_file_holds_is_refused_where_qemu_would_write_it(
    tmp_path: Path,
) -> None:
    bench = FarLibvirtBench(tmp_path)
    try:
        known = bench.make("web", 8 * MIB)
        with bench.open().snapshot(order(known, tmp_path)) as frozen:
            definitions = frozen.definitions
            (disk,) = frozen.machine.disks
            machine = replace(frozen.machine, disks=(replace(disk, size=2 << 40),))
        new = NewMachine(machine, definitions, "large", False, (), None, "vmdk")
        writer = Writer({})
        with pytest.raises(Invalid, match="holds less than 2 TiB"):
            bench.open().restore(new, writer)
        assert not writer.asked
        assert [one.name for one in bench.open().machines()] == ["web"]
    finally:
        bench.close()
