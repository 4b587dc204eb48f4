"""A site that is served, and a real libvirt: from a policy to machines that run again."""

from __future__ import annotations

import uuid
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("lxml", reason="lxml is not installed: see the extra 'vm'")

from tests.kit import guest
from tests.kit.asking import ended
from tests.kit.libvirtd import SIZE, Libvirtd, LibvirtMachine, libvirtd_kit, needs_libvirt
from tests.kit.qemu import MIB, needs_qemu
from tests.kit.served import served, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.command import Command

pytestmark = [needs_qemu, needs_libvirt]

PATIENCE_S = 240.0


@pytest.fixture
def daemon() -> Iterator[Libvirtd]:
    with libvirtd_kit() as made:
        yield made


def policy(name: str, daemon: Libvirtd, unit: str = "default", quiesce: str = "no") -> str:
    return f"""
[[policy]]
name = "{name}"
type = "machines"
active = false
storage_unit = "{unit}"
machines = {{query = "*", quiesce = "{quiesce}", scratch = "{daemon.scratch}"}}
retention = {{daily = 7}}

[[policy.schedules]]
name = "nightly"
kind = "differential"
every = "20h"
"""


def run_and_wait(site: Command, *words: str) -> tuple[dict[str, Any], list[str]]:
    """Queue a job, wait for its end; the job that did the work, and its events."""
    job = site(*words, "--json").assert_ok().json()["job"]

    done = ended(site, job, PATIENCE_S)
    rows: list[dict[str, Any]] = site("jobs", "list", "--json").json_lines()
    (one,) = [row for row in rows if row.get("parent_id") == job] or [done]
    events = site("events", str(one["id"]), "--json").assert_ok().json_lines()
    said = [row["message"] for row in events]
    assert one["outcome"] in ("completed", "completed-with-warnings"), said
    return site("jobs", "show", str(one["id"]), "--json").json(), said


def read_whole(said: list[str]) -> bool:
    """Whether a backup could not tell what changed."""
    return any("all of disk" in one for one in said)


def newest(site: Command) -> dict[str, Any]:
    rows: list[dict[str, Any]] = site("images", "--json").assert_ok().json_lines()
    return max(rows, key=lambda row: int(row["number"]))


class Guest:
    """A guest under libvirt that counts on its disk, and says so."""

    def __init__(self, daemon: Libvirtd) -> None:
        kernel, initrd = guest.build(daemon.directory)
        self.disk = guest.disk(daemon.directory / "disks" / "guest.qcow2", 32 * MIB)
        self.console = daemon.directory / "console"
        self.connection = daemon.open()
        self.uuid = str(uuid.uuid4())
        self.domain = self.connection.defineXML(
            f"""<domain type='qemu'><name>guest</name><uuid>{self.uuid}</uuid>
<memory unit='MiB'>192</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type><kernel>{kernel}</kernel><initrd>{initrd}</initrd>
<cmdline>console=ttyS0 quiet panic=1</cmdline></os>
<cpu mode='custom' match='exact'><model>qemu64</model></cpu>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{self.disk}'/>
<target dev='vda' bus='virtio'/></disk>
<serial type='file'><source path='{self.console}' append='on'/></serial>
<channel type='unix'><target type='virtio' name='{guest.AGENT_PORT}'/></channel>
<memballoon model='none'/></devices></domain>"""
        )

    def is_up(self, domain: Any) -> bool:
        """Whether the agent in a guest answers."""
        import libvirt
        import libvirt_qemu

        try:
            libvirt_qemu.qemuAgentCommand(domain, '{"execute":"guest-ping"}', 5, 0)
        except libvirt.libvirtError:
            return False
        return True

    def counted(self) -> list[int]:
        said = self.console.read_text(errors="replace").split()
        return [int(one) for word, one in pairwise(said) if word == "counted" and one.isdigit()]

    def counts_on(self) -> None:
        before = len(self.counted())
        until(lambda: len(self.counted()) > before + 3, "the guest to count", PATIENCE_S)


@guest.needs_guest
@pytest.mark.slow
def test_a_guest_comes_back_beside_the_original_and_in_its_place(
    site: Command, daemon: Libvirtd, tmp_path: Path
) -> None:
    import libvirt

    machine = Guest(daemon)
    machine.domain.create()
    until(lambda: machine.is_up(machine.domain), "the agent", PATIENCE_S)
    machine.counts_on()
    (tmp_path / "policy.toml").write_text(policy("estate", daemon, quiesce="require"))
    with served(site) as running:
        site("hypervisor", "add", "kvm", "--kind", "libvirt", "--at", daemon.url).assert_ok()
        site("policy", "apply", str(tmp_path / "policy.toml"), "--yes").assert_ok()
        site("policy", "validate", str(tmp_path / "policy.toml")).assert_ok()
        read: list[int] = []
        for _ in range(3):
            machine.counts_on()
            job, said = run_and_wait(site, "policy", "run", "estate")
            assert any("stood still" in one for one in said), said
            assert not read_whole(said)
            read.append(job["counters"]["bytes_read"])
        assert max(read[1:]) < read[0], read
        image = newest(site)["id"]

        words = (
            "restore-machine",
            image,
            "--to",
            "kvm",
            "--storage",
            str(daemon.directory / "new"),
        )
        site(*words).assert_failed(2, "hypervisor discover kvm")
        run_and_wait(site, *words, "--new-identity", "--name", "again", "--start")
        again = machine.connection.lookupByName("again")
        assert again.UUIDString() != machine.uuid
        until(lambda: machine.is_up(again), "the restored guest to be up", PATIENCE_S)
        machine.counts_on()
        again.destroy()
        again.undefine()

        machine.domain.destroy()
        machine.domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA)
        machine.disk.unlink()
        machine.console.unlink()
        site("hypervisor", "discover", "kvm").assert_ok()
        run_and_wait(site, *words, "--start")
        back = machine.connection.lookupByUUIDString(machine.uuid)
        assert back.name() == "guest"
        until(lambda: machine.is_up(back), "the guest to be up in its place", PATIENCE_S)
        machine.counts_on()
        site("hypervisor", "discover", "kvm").assert_ok()
        # It is followed on: the restored disk has no bitmap, so all of it is read once.
        assert read_whole(run_and_wait(site, "policy", "run", "estate")[1])
        assert not read_whole(run_and_wait(site, "policy", "run", "estate")[1])
        back.destroy()
        running.stop()


def test_what_is_in_the_way_of_a_backup_is_told_by_validation(
    site: Command, daemon: Libvirtd, tmp_path: Path
) -> None:
    """What a trial at the hypervisor shows, with what to do about it; and it leaves nothing."""
    machine = LibvirtMachine(daemon, "web", str(uuid.uuid4()), formats=("qcow2",))
    machine.start()
    text = policy("estate", daemon).replace("active = false\n", "")
    file = tmp_path / "policy.toml"

    def validate(text: str) -> tuple[int, str]:
        file.write_text(text)
        told = site("policy", "validate", str(file))
        assert machine.leftovers() == []
        assert machine.checkpoints() == set()
        return told.status, " ".join(told.text.split())

    site("hypervisor", "add", "kvm", "--kind", "libvirt", "--at", daemon.url).assert_ok()
    status, told = validate(text)
    assert (status, "error" in told) == (1, False), told
    assert "no guest agent answers" in told

    closed = daemon.directory / "c"  # of a short path, as a socket in it needs
    closed.mkdir(mode=0o700)
    status, told = validate(text.replace(str(daemon.scratch), str(closed / "n")))
    assert status == 64
    assert "Permission denied" in told
    assert "directories of mode 711 above it" in told
    assert list(closed.iterdir()) == [], "what a validation made is gone"

    only = daemon.url.replace("libvirt-sock", "libvirt-sock-ro")
    site("hypervisor", "set", "kvm", "--at", only).assert_ok()
    status, told = validate(text)
    assert status == 64
    assert "of the group 'libvirt', or root" in told
    machine.remove()


def test_two_policies_with_one_machine_each_have_their_incrementals(
    site: Command, daemon: Libvirtd, tmp_path: Path
) -> None:
    random = Random(3)
    machine = LibvirtMachine(daemon, "web", str(uuid.uuid4()), formats=("qcow2",))
    machine.start()
    machine.write("vda", 0, SIZE, 7)
    site("storage", "create", "second", "--pool", tmp_path / "second").assert_ok()
    both = policy("near", daemon) + policy("far", daemon, unit="second")
    (tmp_path / "policy.toml").write_text(both)
    with served(site) as running:
        site("hypervisor", "add", "kvm", "--kind", "libvirt", "--at", daemon.url).assert_ok()
        site("policy", "apply", str(tmp_path / "policy.toml"), "--yes").assert_ok()
        for step in range(3):
            for name in ("near", "far"):
                machine.some_writes(random, 2)
                now = bytes(machine.contents["vda"].now)
                job, said = run_and_wait(site, "policy", "run", name)
                assert not read_whole(said), (step, name)
                read = job["counters"]["bytes_read"]
                assert read < SIZE // 2 if step else read >= SIZE, (step, name, read)
                image = newest(site)
                out = tmp_path / f"{name}{step}"
                site("restore", image["id"], "--to", out).assert_ok()
                assert (out / "disks" / "vda").read_bytes() == now
        assert len(machine.checkpoints()) == 2
        running.stop()
    machine.remove()
