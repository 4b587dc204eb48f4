"""A machine of libvirt that runs from its image, by a proxy: a real guest, moved, discarded."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit import reading_guest
from tests.kit.agents import Machine, MachineSite
from tests.kit.asking import recovery_of
from tests.kit.disk_images import needs_qemu
from tests.kit.guest import build, needs_guest
from tests.kit.libvirtd import IMAGES, Libvirtd, libvirtd_kit, needs_libvirt
from tests.kit.reading_guest import READY, counted
from tests.kit.served import until

if TYPE_CHECKING:
    from collections.abc import Iterator


pytestmark = [needs_qemu, needs_guest, needs_libvirt]

UUID = "22222222-2222-3333-4444-555555555555"
POLICY = """
[[policy]]
name = "vms"
type = "machines"
active = false
machines = {query = "*", quiesce = "no", scratch = "SCRATCH"}

[[policy.schedules]]
name = "nightly"
kind = "differential"
every = "20h"
"""


class Host:
    """A libvirtd with one machine, whose guest reads and writes; QEMU runs as another user."""

    def __init__(self, daemon: Libvirtd, *, far: bool = False) -> None:
        """Make it; with `far`, its disks are where only libvirt has them at the paths it knows."""
        import os
        import shutil

        self.daemon = daemon
        place = daemon.directory
        self.log = place / "scratch" / "console"
        self.log.touch(mode=0o666)
        self.log.chmod(0o666)
        (place / "boot").mkdir()
        kernel, initrd = build(place / "boot", reading_guest.INIT)
        for path in (kernel, initrd, place / "boot"):
            path.chmod(0o755)
        self.disk = reading_guest.disk(place / "disks" / "web.qcow2")
        self.content = (place / "disks" / "web-content" / "data").read_bytes()
        shutil.rmtree(place / "disks" / "web-content")
        known = Path(IMAGES) if far else place / "images"
        self.images = daemon.images if far else known
        self.images.mkdir(exist_ok=True)
        self.images.chmod(0o711)
        disk = self.disk
        if far:
            shutil.move(disk, self.images / "web.qcow2")
            disk = known / "web.qcow2"
        os.chown(place / "scratch", 64055, -1)
        self.connection = daemon.open()
        target = f"<target><path>{known}</path></target>"
        self.connection.storagePoolCreateXML(
            f"<pool type='dir'><name>default</name>{target}</pool>"
        )
        self.domain = self.connection.defineXML(f"""<domain type='qemu'>
<name>web</name><uuid>{UUID}</uuid><memory unit='MiB'>192</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type><kernel>{kernel}</kernel><initrd>{initrd}</initrd>
<cmdline>console=ttyS0 quiet panic=1</cmdline></os>
<cpu mode='custom' match='exact'><model>qemu64</model></cpu>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/>
<target dev='vda' bus='virtio'/></disk>
<serial type='file'><source path='{self.log}'/><target port='0'/></serial>
<memballoon model='none'/></devices></domain>""")

    def count_on(self, more: int = 5) -> None:
        begun = counted(self.log)
        until(lambda: counted(self.log) >= begun + more, "the guest to count", 180)

    def await_ready(self) -> None:
        until(lambda: READY in reading_guest.said(self.log), "the guest", 180)

    def files(self) -> set[str]:
        return {str(one) for one in self.images.iterdir()}


@pytest.fixture
def host() -> Iterator[Host]:
    with libvirtd_kit() as daemon:
        made = Host(daemon)
        made.domain.create()
        made.count_on(3)
        yield made
        made.connection.close()


def back_up(network: MachineSite, host: Host, tmp_path: Path, url: str = "") -> str:
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY.replace("SCRATCH", str(host.daemon.scratch)))
    at = ("--kind", "libvirt", "--at", url or host.daemon.url, "--proxy", "proxy1")
    network.site("hypervisor", "add", "kvm1", *at).assert_ok()
    network.site("policy", "apply", policy, "--yes").assert_ok()
    job = network.run("vms")
    try:
        done = network.ended(job)
    except AssertionError as error:
        raise AssertionError(f"{error}: {network.site('events', str(job)).text}") from error
    assert done["outcome"].startswith("completed"), network.site("events", str(job)).text
    host.domain.destroy()
    host.domain.undefineFlags(0x10)  # with its checkpoints
    (host.images / "web.qcow2").unlink(missing_ok=True)
    host.log.write_text("")
    network.site("hypervisor", "discover", "kvm1").assert_ok()
    return str(network.listed("images")[0]["id"])


def await_state(network: MachineSite, state: str) -> dict[str, Any]:
    last: dict[str, Any] = {}

    def look() -> bool:
        last.update(recovery_of(network.site))
        assert last["state"] != "failed", last
        return bool(last["state"] == state)

    until(look, state, 180)
    return last


def assert_completed(network: MachineSite, job: int, proxy: Machine) -> None:
    done = network.ended(job)
    said = network.site("events", str(job)).text, proxy.log.read_text()[-3000:]
    assert done["outcome"].startswith("completed"), (done, said)


def test_a_guest_outlives_its_proxy_and_becomes_its_own_machine(
    network: MachineSite, host: Host, tmp_path: Path
) -> None:
    with network.machine("proxy1") as proxy:
        image = back_up(network, host, tmp_path)
        words = ("instant", image, "--to", "kvm1", "--format", "raw")
        network.site(*words).assert_ok()
        await_state(network, "running")
        host.await_ready()
        host.count_on()
        proxy.kill()
        time.sleep(5)
        proxy.start()
        await_state(network, "running")
        host.count_on(20)
        job = int(network.site("instant", "migrate", "1").assert_ok().text)
        assert_completed(network, job, proxy)
        await_state(network, "own")
        host.count_on()
        proxy.stop()
    host.count_on()
    far = counted(host.log)
    domain = host.connection.lookupByUUIDString(UUID)
    definition = domain.XMLDesc(2)
    assert "holdfast" not in definition
    assert "rerror_policy" not in definition
    domain.destroy()
    (own,) = host.files()
    assert own.endswith("/web-vda.raw")
    assert own in definition
    counter, data = reading_guest.content_of(own, "raw", tmp_path)
    assert counter >= far
    assert data == host.content
    # It starts by itself, from what it wrote.
    domain.create()
    host.count_on()


def test_what_is_discarded_by_a_proxy_leaves_nothing(
    network: MachineSite, host: Host, tmp_path: Path
) -> None:
    with network.machine("proxy1") as proxy:
        image = back_up(network, host, tmp_path)
        words = ("instant", image, "--to", "kvm1", "--new-identity", "--name", "web-test")
        network.site(*words).assert_ok()
        await_state(network, "running")
        host.await_ready()
        # Who cancels the job that serves it can have it served again.
        serve = network.site("instant", "show", "1", "--json").json()["serve_job"]
        network.site("jobs", "cancel", str(serve)).assert_ok()
        unserved = await_state(network, "not served")
        assert "what it wrote is safe" in unserved["words"]
        network.site("instant", "resume", "1").assert_ok()
        await_state(network, "running")
        host.count_on(20)
        job = int(network.site("instant", "discard", "1").assert_ok().text)
        assert_completed(network, job, proxy)
        await_state(network, "discarded")
        assert host.files() == set()
        assert host.connection.listAllDomains() == []
        network.site("expire", image).assert_ok()
        proxy.stop()
