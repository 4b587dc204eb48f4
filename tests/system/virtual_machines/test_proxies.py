"""Virtual machines that a proxy backs up to the site over the network, and makes again."""

from __future__ import annotations

import subprocess
from random import Random
from typing import TYPE_CHECKING

from tests.kit.agents import MachineSite
from tests.kit.qemu import Qemu, needs_qemu

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = needs_qemu

POLICY = """
[[policy]]
name = "vms"
type = "machines"
active = false
machines = {query = "*", quiesce = "no"}

[[policy.schedules]]
name = "nightly"
kind = "differential"
every = "20h"
"""


def test_a_proxy_backs_up_what_it_reaches_and_makes_it_again(
    network: MachineSite, tmp_path: Path
) -> None:
    random = Random(5)
    policy = tmp_path / "vms.toml"
    policy.write_text(POLICY)
    with Qemu(tmp_path / "kvm", formats=("qcow2",)) as guest, network.machine("proxy1"):
        guest.some_writes(random, 12)
        at = ("--kind", "qmp", "--at", guest.run, "--proxy", "proxy1")
        network.site("hypervisor", "add", "kvm1", *at).assert_ok()
        (found,) = network.listed("machines")
        assert (found["name"], found["hypervisor"]) == ("web", "kvm1")
        network.site("policy", "apply", policy, "--yes").assert_ok()
        images, read = [], []
        for _ in range(3):
            job = int(network.site("policy", "run", "vms").assert_ok().text)
            done = network.ended(job)
            said = network.site("events", str(job)).text
            assert done["outcome"] in {"completed", "completed-with-warnings"}, (done, said)
            (image,) = (one for one in network.listed("images") if one["id"] == done["image_id"])
            assert image["host"] == "web"
            images.append(image)
            read.append(done["counters"]["bytes_read"])
            held = tmp_path / "held"
            words = ("restore", images[-1]["id"], "--to", held, "--overwrite", "always")
            network.site(*words).assert_ok()
            assert (held / "disks" / "disk0").read_bytes() == bytes(guest.contents["disk0"].now)
            guest.some_writes(random, 2)
        assert len({one["id"] for one in images}) == 3
        # What did not change was not read again: two writes change a hundred KiB or so each.
        assert max(read[1:]) < read[0], read
        back = tmp_path / "back"
        words = ("restore-machine", images[0]["id"], "--to-dir", back, "--client", "proxy1")
        job = int(network.site(*words, "--name", "web2", "--new-identity").assert_ok().text)
        done = network.ended(job)
        assert done["outcome"] == "completed", network.site("events", str(job)).text
        (made,) = (one for one in back.rglob("disk0.*"))
        raw = tmp_path / "made.raw"
        subprocess.run(["qemu-img", "convert", "-O", "raw", made, raw], check=True)
        network.site("restore", images[0]["id"], "--to", tmp_path / "first").assert_ok()
        assert raw.read_bytes() == (tmp_path / "first" / "disks" / "disk0").read_bytes()
        network.site("verify", "--read-data").assert_ok()
        assert guest.leftovers() == []


def test_without_its_proxy_a_hypervisor_is_said_to_be_out_of_reach(
    network: MachineSite, tmp_path: Path
) -> None:
    network.join("proxy1")
    at = ("--kind", "qmp", "--at", tmp_path, "--proxy", "proxy1")
    network.site("hypervisor", "add", "kvm1", *at).assert_failed(2, "proxy1")
