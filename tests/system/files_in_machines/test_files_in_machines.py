"""Files on the disks of a machine, by the commands that people use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast.base.clock import SystemClock
from holdfast.base.ids import ImageId
from holdfast.site.secrets import SecretSource
from holdfast.site.site import Site
from tests.kit.command import Command
from tests.kit.disks import mounted
from tests.kit.guest_files import walked

pytest.importorskip("pytsk3", reason="pytsk3 is not installed: see the extra 'vm'")


def test_ls_leads_into_a_disk(site: Command, machine: ImageId, tmp_path: Path) -> None:
    top = site("ls", "latest").assert_ok().text.splitlines()
    assert top == ["/disks/", "/machine.json", "/vda/"]
    assert site("ls", "latest:/vda").assert_ok().text.splitlines() == ["/vda/fs/"]
    listed = site("ls", f"{machine[:8]}:/vda/fs/etc", "--json").assert_ok().json_lines()
    assert {"/vda/fs/etc/hosts", "/vda/fs/etc/deep"} <= {one.get("path") for one in listed}
    hosts = next(one for one in listed if one.get("path") == "/vda/fs/etc/hosts")
    assert (hosts["size"], hosts["nlink"]) == (20, 2)
    long = site("ls", "latest:/vda/fs/soft", "--long").assert_ok().text
    assert "-> etc/hosts" in long
    with mounted(tmp_path / "vda", tmp_path / "mnt", "ro") as at:
        expected = len(walked(at))
    everything = site("ls", "latest:/vda/fs", "--recursive").assert_ok().out.splitlines()
    # one name has a line feed in it
    assert len(everything) == expected + 1
    site("ls", "latest:/vda/fs/nothing").assert_failed(2, "/vda/fs/nothing")
    site("ls", "latest:/vdb").assert_failed(2, "/vdb")


def test_files_are_restored_from_within_a_disk(
    site: Command, machine: ImageId, tmp_path: Path
) -> None:
    target = tmp_path / "to"
    words = ("restore", "latest:/vda/fs/etc", "--to", target, "--strip-components", "2", "--json")
    told = site(*words, "--verify").assert_ok().json()
    assert told["findings_total"] == 0
    assert told["verified_files"] == told["files"] > 3
    with mounted(tmp_path / "vda", tmp_path / "mnt", "ro") as at:
        expected = walked(at / "etc")
        hosts = os.stat(at / "etc" / "hosts")
    found = walked(target / "etc")
    assert found.keys() == expected.keys()
    assert all(found[one].content == expected[one].content for one in found)
    assert (target / "etc/hosts").stat().st_mtime_ns == hosts.st_mtime_ns
    site("restore", "latest", "/vda/fs/etc", "/machine.json", "--to", tmp_path / "x").assert_failed(
        64, "two commands"
    )


def test_files_inside_are_found_until_their_image_goes(
    site: Command, machine: ImageId, tmp_path: Path
) -> None:
    (waits,) = site("images", "--json").assert_ok().json_lines()
    assert (waits["files_inside"], waits["id"]) == ("pending", machine)
    (found,) = site("find", "/vda/fs/etc/hosts", "--json").assert_ok().json_lines()
    assert (found["last_image"], found["size"]) == (machine, 20)
    assert not found["source"].startswith(":")
    words = ("restore", f"{found['last_image']}:{found['path']}", "--to", tmp_path / "to")
    site(*words).assert_ok()
    assert (tmp_path / "to/vda/fs/etc/hosts").read_bytes() == b"127.0.0.1 localhost\n"
    (indexed,) = site("images", "--json").assert_ok().json_lines()
    assert (indexed["files_inside"], indexed["id"]) == ("indexed", machine)
    site("catalog", "rebuild").assert_ok()
    assert len(site("find", "hosts", "--json").assert_ok().json_lines()) == 1
    with Site.open(site.home, SecretSource(), SystemClock()) as opened:
        assert len(opened.pool.image_ids()) == 2
    site("expire", machine).assert_ok()
    with Site.open(site.home, SecretSource(), SystemClock()) as opened:
        assert opened.pool.image_ids() == []
    assert site("find", "hosts", "--json").assert_ok().json_lines() == []
