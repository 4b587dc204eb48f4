"""The files inside of a machine's image that lies in two storage units, one of which is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from holdfast.base.clock import SystemClock
from holdfast.base.ids import ImageId, pool_id
from holdfast.site.secrets import SecretSource
from holdfast.site.site import Site
from tests.kit.asking import ended
from tests.kit.command import Command
from tests.kit.disks import MIB, blank, mounted, need, run
from tests.kit.guest_files import fill
from tests.kit.machine_images import back_up
from tests.kit.served import served, until

pytest.importorskip("pytsk3", reason="pytsk3 is not installed: see the extra 'vm'")

HOSTS = b"127.0.0.1 localhost\n"


@pytest.fixture
def units(site: Command, tmp_path: Path) -> Command:
    """A site with two storage units beside its pool."""
    for name in ("first", "second"):
        site("storage", "create", name, "--pool", tmp_path / name).assert_ok()
    return site


@pytest.fixture
def machine(units: Command, tmp_path: Path) -> ImageId:
    """An image of a machine in the first unit."""
    need("mkfs.ext4")
    disk = blank(tmp_path / "vda", 40 * MIB)
    run("mkfs.ext4", "-q", "-F", disk)
    with mounted(disk, tmp_path / "mnt") as at:
        fill(at)
    with Site.open(units.home, SecretSource(), SystemClock()) as site:
        pool = site.pools.of(site.pools.of_unit("first"))
        image = back_up(pool, {"vda": disk})
        site.catalog.record_image(pool.image(image), pool_id(pool.id))
    return image


def in_unit(site: Command, unit: str) -> set[str]:
    """The images of a unit's pool, and the labels that tell an index."""
    with Site.open(site.home, SecretSource(), SystemClock()) as opened:
        pool = opened.pools.of(opened.pools.of_unit(unit))
        return {one.labels.get("index_of", one.id) for one in pool.images()}


def counted(site: Command, unit: str) -> int:
    with Site.open(site.home, SecretSource(), SystemClock()) as opened:
        return len(opened.pools.of(opened.pools.of_unit(unit)).image_ids())


def replicate(site: Command, *words: str) -> None:
    job = int(site("replicate", *words).assert_ok().text)

    done = ended(site, job)
    assert done["outcome"] == "completed", site("events", str(job)).text


def assert_files_there(site: Command, machine: ImageId, to: Path) -> None:
    (found,) = site("find", "/vda/fs/etc/hosts", "--json").assert_ok().json_lines()
    assert (found["last_image"], found["path"]) == (machine, "/vda/fs/etc/hosts")
    assert "/vda/fs/etc/hosts" in site("ls", f"{machine}:/vda/fs/etc").assert_ok().text
    site("restore", f"{machine}:/vda/fs/etc/hosts", "--to", to).assert_ok()
    assert (to / "vda/fs/etc/hosts").read_bytes() == HOSTS


@pytest.mark.parametrize("indexed", ["before", "after"])
def test_an_index_goes_where_its_image_goes(
    units: Command, machine: ImageId, tmp_path: Path, indexed: str
) -> None:
    if indexed == "before":
        units("catalog", "update").assert_ok()
    with served(units) as running:
        replicate(units, machine, "--to", "second")
        until(lambda: units("find", "/vda/fs/etc/hosts", "--json").json_lines(), "it to be found")
        # a second time brings nothing, and does no harm
        replicate(units, machine, "--to", "second")
        running.stop()
    for unit in ("first", "second"):
        assert (in_unit(units, unit), counted(units, unit)) == ({machine}, 2), unit
    # With the first unit lost, all is as it was.
    shutil.rmtree(tmp_path / "first")
    assert_files_there(units, machine, tmp_path / "to")
    # And the catalog comes back from the second alone.
    units("catalog", "rebuild")
    assert_files_there(units, machine, tmp_path / "again")
    assert counted(units, "second") == 2


def test_copies_of_an_index_go_with_their_image(
    units: Command, machine: ImageId, tmp_path: Path
) -> None:
    units("catalog", "update").assert_ok()
    with served(units) as running:
        replicate(units, machine, "--to", "second")
        running.stop()
    units("expire", machine).assert_ok()
    for unit in ("first", "second"):
        assert counted(units, unit) == 0
    assert units("find", "hosts", "--json").assert_ok().json_lines() == []


def test_an_index_that_is_made_later_goes_beside_every_copy(
    units: Command, machine: ImageId
) -> None:
    with Site.open(units.home, SecretSource(), SystemClock()) as site:
        first, second = (site.pools.of(site.pools.of_unit(one)) for one in ("first", "second"))
        copy = first.replicate(machine, second, started_ns=site.clock.now_ns()).result()
        site.catalog.record_image(copy, pool_id(second.id))
    units("catalog", "update").assert_ok()
    for unit in ("first", "second"):
        assert (in_unit(units, unit), counted(units, unit)) == ({machine}, 2), unit
