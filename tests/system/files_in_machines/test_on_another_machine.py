"""Files on the disks of a machine, restored onto another machine that has joined."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.base.ids import ImageId
from tests.kit.agents import machine_site
from tests.kit.command import Command
from tests.kit.disks import mounted
from tests.kit.guest_files import walked

pytest.importorskip("pytsk3", reason="pytsk3 is not installed: see the extra 'vm'")


def test_files_come_back_on_a_machine_that_has_joined(
    site: Command, machine: ImageId, tmp_path: Path
) -> None:
    target = tmp_path / "there"
    with machine_site(site, tmp_path / "hosts") as network:
        (tmp_path / "hosts").mkdir()
        with network.machine("web2"):
            words = ("restore", f"{machine}:/vda/fs/etc", "--to", target, "--client", "web2")
            job = int(site(*words, "--strip-components", "2", "--verify").assert_ok().text)
            done = network.ended(job)
            assert done["outcome"] == "completed", (done, site("events", str(job)).text)
            # Some of its own and some of its disks' in one restore is nothing that there is.
            mixed = ("restore", machine, "/machine.json", "/vda/fs/soft", "--client", "web2")
            job = int(site(*mixed, "--to", tmp_path / "mixed").assert_ok().text)
            assert network.ended(job)["outcome"] == "failed"
            assert "some are inside" in site("events", str(job)).text
            # And the machine's own files come back as they did.
            own = ("restore", machine, "/machine.json", "--client", "web2")
            job = int(site(*own, "--to", tmp_path / "own").assert_ok().text)
            assert network.ended(job)["outcome"] == "completed"
        network.running.stop()
    with mounted(tmp_path / "vda", tmp_path / "mnt", "ro") as at:
        expected = walked(at / "etc")
    found = walked(target / "etc")
    assert found.keys() == expected.keys()
    assert all(found[one].content == expected[one].content for one in found)
    assert all(found[one].uid == expected[one].uid for one in found)
    assert b"host1" in (tmp_path / "own/machine.json").read_bytes()
