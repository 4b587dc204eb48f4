"""Files in logical volumes of LVM2 that lie on two disks of a machine, by the usual commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.base.clock import SystemClock
from holdfast.base.ids import ImageId, pool_id
from holdfast.site.secrets import SecretSource
from holdfast.site.site import Site
from holdfast.sources.filesystems.opening import open_files
from holdfast.sources.filesystems.volumes import look
from tests.kit.command import Command
from tests.kit.disks import FileDisk
from tests.kit.guest_files import told, walked
from tests.kit.logical_volumes import GROUP, Group, make
from tests.kit.machine_images import back_up

pytest.importorskip("pytsk3", reason="pytsk3 is not installed: see the extra 'vm'")

VOLUMES = ("striped", "wide")


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Group:
    return make(tmp_path_factory.mktemp("lvm"))


@pytest.fixture
def machine(site: Command, group: Group) -> ImageId:
    """An image of the machine with those disks, which the catalog knows."""
    with Site.open(site.home, SecretSource(), SystemClock()) as opened:
        image = back_up(opened.pool, group.disks)
        opened.catalog.record_image(opened.pool.image(image), pool_id(opened.pool.id))
    return image


def test_what_is_read_in_a_logical_volume_is_what_a_mount_showed(group: Group) -> None:
    with FileDisk(group.disks["vda"]) as one, FileDisk(group.disks["vdb"]) as other:
        layout = look({"vda": one, "vdb": other})
        assert [(each.name, each.files.kind) for each in layout.volumes] == [
            (f"lvm/{GROUP}/{name}", "ext4") for name in VOLUMES
        ]
        assert layout.remarks == ()
        for name, volume in zip(VOLUMES, layout.volumes, strict=True):
            files = open_files(volume)
            try:
                assert told(files) == group.walked[name]
            finally:
                files.close()


def test_a_logical_volume_without_one_of_its_disks_is_named(group: Group) -> None:
    with FileDisk(group.disks["vda"]) as one:
        layout = look({"vda": one})
    assert layout.volumes == ()
    assert {(each.code, each.about) for each in layout.remarks} >= {
        ("volume-not-read", f"lvm/{GROUP}/{name}") for name in VOLUMES
    }


def test_files_of_logical_volumes_are_listed_found_and_restored(
    site: Command, machine: ImageId, group: Group, tmp_path: Path
) -> None:
    top = site("ls", "latest").assert_ok().text.splitlines()
    assert set(top) == {"/disks/", "/lvm/", "/machine.json", "/vda/", "/vdb/"}
    below = site("ls", f"latest:/lvm/{GROUP}").assert_ok().text.splitlines()
    assert below == [f"/lvm/{GROUP}/{name}/" for name in VOLUMES]
    for name in VOLUMES:
        assert_listed(site, group, name)
    # ... and by the catalog, in which the files of agents are too
    agents = tmp_path / "agents"
    (agents / "etc").mkdir(parents=True)
    (agents / "etc" / "hosts").write_bytes(b"of an agent\n")
    site("backup", agents).assert_ok()
    found = site("find", "hosts", "--json").assert_ok().json_lines()
    here = {one["path"]: one for one in found}
    inside = {f"/lvm/{GROUP}/{name}/etc/hosts" for name in VOLUMES}
    assert here.keys() == {f"{agents}/etc/hosts", *inside}
    assert {here[one]["last_image"] for one in inside} == {machine}
    for name in VOLUMES:
        assert_restored(site, group, name, machine, tmp_path / name)


def assert_listed(site: Command, group: Group, name: str) -> None:
    """`ls` tells of all of a volume, with the sizes, modes and times that a mount showed."""
    root = f"/lvm/{GROUP}/{name}"
    listed = site("ls", f"latest:{root}", "--recursive", "--json").assert_ok().json_lines()
    assert len(listed) == len(group.walked[name])
    by_path = {one["path"]: one for one in listed if "path" in one}
    readable = {
        path: seen
        for path, seen in group.walked[name].items()
        if path.isascii() and b"\n" not in path
    }
    assert len(readable) > 1000
    for path, seen in readable.items():
        one = by_path[root + path.decode()]
        assert (one["kind"], one["nlink"]) == (seen.kind, seen.nlink), path
        if seen.kind == "file":
            assert one["size"] == seen.size, path


def assert_restored(site: Command, group: Group, name: str, image: ImageId, to: Path) -> None:
    """What is restored of a volume, one file and one directory, is what a mount showed."""
    root = f"lvm/{GROUP}/{name}"
    site("restore", f"{image}:/{root}/large", "--to", to / "one", "--verify").assert_ok()
    large = walked(to / "one" / root)
    expected = group.walked[name][b"/large"]
    assert large.keys() == {b"/large"}
    assert large[b"/large"] == expected
    site("restore", f"{image}:/{root}/etc", "--to", to / "etc").assert_ok()
    there = {
        path: seen for path, seen in walked(to / "etc" / root).items() if path.startswith(b"/etc/")
    }
    shown = {path: seen for path, seen in group.walked[name].items() if path.startswith(b"/etc/")}
    assert there.keys() == shown.keys()
    for path, seen in there.items():
        wanted = shown[path]
        assert (seen.kind, seen.content, seen.mode) == (wanted.kind, wanted.content, wanted.mode)
        assert (seen.uid, seen.gid) == (wanted.uid, wanted.gid)
        assert seen.mtime_ns == wanted.mtime_ns, path
