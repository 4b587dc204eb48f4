"""A real guest with a real agent is brought to rest, and goes on; its image needs no journal."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from holdfast.base.errors import NotQuiesced
from holdfast.sources.machines.provider import Kind, SnapshotOrder
from holdfast.sources.machines.providers import open_provider
from tests.kit import guest
from tests.kit.debian_machine import ask_agent
from tests.kit.image_chain import die
from tests.kit.libvirtd import Libvirtd, libvirtd_kit, needs_libvirt
from tests.kit.qemu import MIB, bytes_of, needs_qemu, read_disk
from tests.kit.served import until

pytestmark = [needs_qemu, guest.needs_guest, pytest.mark.slow]

APPEND = "console=ttyS0 quiet panic=1"


def order(known: str, scratch: Path, **changed: Any) -> SnapshotOrder:
    given: dict[str, Any] = {
        "uuid": known,
        "since": None,
        "quiesce": True,
        "require_quiesce": True,
        "scratch": scratch,
        "label": "site-7",
    }
    return SnapshotOrder(**(given | changed))


class Console:
    """What a guest says on its serial port."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def last(self) -> int:
        try:
            said = self._path.read_text(errors="replace").split()
        except FileNotFoundError:
            return 0
        numbers = [one for before, one in pairwise(said) if before == "counted"]
        return int(numbers[-1]) if numbers and numbers[-1].isdigit() else 0

    def said(self, word: str) -> bool:
        return word in self._path.read_text(errors="replace").split()

    def wait_beyond(self, number: int) -> int:
        until = time.monotonic() + 240
        while self.last() <= number:
            assert time.monotonic() < until, self._path.read_text(errors="replace")[-2000:]
            time.sleep(0.05)
        return self.last()


def assert_at_rest(provider: Any, known: str, scratch: Path, console: Console) -> float:
    before = console.wait_beyond(3)
    with provider.snapshot(order(known, scratch)) as snapshot:
        console.wait_beyond(console.last() + 3)
        raw = scratch / "read.raw"
        (disk,) = snapshot.disks
        raw.write_bytes(read_disk(disk))
        snapshot.check()
    assert before - 1 <= guest.counted(raw) <= console.last()
    raw.unlink()
    console.wait_beyond(console.last() + 3)
    assert [one for one in snapshot.remarks if one.severity != "info"] == []
    assert snapshot.frozen_s > 0
    print(f"stood still for {snapshot.frozen_s:.3f} s")
    return float(snapshot.frozen_s)


Ask = Callable[[str, dict[str, Any]], Any]


def assert_trimmed(provider: Any, known: str, scratch: Path, ask: Ask) -> None:
    """What a guest deleted costs nothing when it has trimmed, and as much as data before."""

    def data(**changed: Any) -> tuple[int, set[str]]:
        with provider.snapshot(order(known, scratch, **changed)) as snapshot:
            read = sum(bytes_of(one, Kind.DATA) for one in snapshot.disks)
            snapshot.check()
        assert [one.message for one in snapshot.remarks if one.severity != "info"] == []
        return read, {one.code for one in snapshot.remarks}

    before, _ = data()
    script = "dd if=/dev/urandom of=/mnt/noise bs=1M count=8 && sync && rm /mnt/noise && sync"
    words = {"path": "/bin/busybox", "arg": ["sh", "-c", script]}
    pid = ask("guest-exec", words)["pid"]
    until(lambda: ask("guest-exec-status", {"pid": pid})["exited"], "the guest to delete", 120)
    kept, codes = data()
    assert kept >= before + 7 * MIB
    assert "trimmed" not in codes
    less, codes = data(trim_s=120)
    assert "trimmed" in codes
    assert less <= kept - 7 * MIB


def wait_for_agent(ask: Callable[[], bool]) -> None:
    until = time.monotonic() + 240
    while not ask():
        assert time.monotonic() < until, "the guest's agent does not answer"
        time.sleep(0.2)


@needs_libvirt
def test_a_guest_under_libvirt_stands_still_for_a_moment() -> None:
    import libvirt
    import libvirt_qemu

    with libvirtd_kit() as daemon:
        kernel, initrd = guest.build(daemon.directory)
        console = Console(daemon.directory / "console")
        known = str(uuid.uuid4())
        connection = daemon.open()
        domain = connection.defineXML(_domain(daemon, known, kernel, initrd))
        domain.create()

        def answers() -> bool:
            try:
                libvirt_qemu.qemuAgentCommand(domain, '{"execute":"guest-ping"}', 5, 0)
            except libvirt.libvirtError:
                return False
            return True

        wait_for_agent(answers)
        provider = open_provider("libvirt", daemon.url)
        for _ in range(3):
            assert_at_rest(provider, known, daemon.scratch, console)

        def ask(command: str, arguments: dict[str, Any]) -> Any:
            asked = json.dumps({"execute": command, "arguments": arguments})
            return json.loads(libvirt_qemu.qemuAgentCommand(domain, asked, 30, 0))["return"]

        assert_trimmed(provider, known, daemon.scratch, ask)
        for step in ("frozen", "begun"):
            assert_woken_after_death(daemon, provider, known, step)
            # It is woken by now, or the guest would not count on.
            assert_at_rest(provider, known, daemon.scratch, console)
        _hang(domain)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("holdfast.sources.machines.libvirt.running.FREEZE_TIMEOUT_S", 2)
            patch.setattr("holdfast.sources.machines.libvirt.running.THAW_TIMEOUT_S", 1)
            with pytest.raises(NotQuiesced), provider.snapshot(order(known, daemon.scratch)):
                pass
        wait_for_agent(answers)
        console.wait_beyond(console.last() + 5)
        assert_at_rest(provider, known, daemon.scratch, console)
        assert_woken_late(domain, provider, known, daemon.scratch, console)
        domain.destroy()
        connection.close()


def assert_woken_after_death(daemon: Libvirtd, provider: Any, known: str, step: str) -> None:
    """A proxy that is killed while its guest stands still leaves one who wakes it."""
    import libvirt_qemu

    given = asdict(order(known, daemon.scratch))
    died = die("libvirt", daemon.url, given, step, daemon.directory)
    assert died.killed
    assert died.said.startswith("stands still: 1 ")

    connection = daemon.open()
    domain = connection.lookupByUUIDString(known)

    def awake() -> bool:
        said = libvirt_qemu.qemuAgentCommand(domain, '{"execute":"guest-fsfreeze-status"}', 30, 0)
        return bool(json.loads(said)["return"] == "thawed")

    wait_for_agent(awake)
    connection.close()
    with provider.snapshot(order(known, daemon.scratch)) as snapshot:
        # The checkpoint is made before the guest is brought to rest.
        assert {one.code for one in snapshot.remarks} == {"leftover"}


def assert_woken_late(
    domain: Any, provider: Any, known: str, scratch: Path, console: Console
) -> None:
    """An agent that freezes, and hangs when it is to thaw, does so as soon as it comes to."""
    import libvirt

    stops = "until [ -e /run/qga.state.isfrozen ]; do sleep 0.1; done; sleep 2; "
    _run(domain, f"{stops}kill -STOP $(pidof qemu-ga); echo stopped > /dev/ttyS0; {_COMES_TO}")
    begin = libvirt.virDomain.backupBegin

    def begin_late(*given: Any) -> Any:
        until(lambda: console.said("stopped"), "the agent to hang", 120)
        return begin(*given)

    raw = scratch / "read.raw"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("holdfast.sources.machines.libvirt.running.FREEZE_TIMEOUT_S", 3)
        patch.setattr("holdfast.sources.machines.libvirt.running.THAW_TIMEOUT_S", 1)
        patch.setattr(libvirt.virDomain, "backupBegin", begin_late)
        with provider.snapshot(order(known, scratch)) as snapshot:
            (told,) = [one for one in snapshot.remarks if one.severity == "error"]
            assert told.code == "thaw-unanswered"
            raw.write_bytes(read_disk(snapshot.disks[0]))
            snapshot.check()
    assert guest.counted(raw) <= console.last() + 1
    raw.unlink()
    # Nobody but the backup, which is over, would have woken it.
    console.wait_beyond(console.last() + 3)
    assert_at_rest(provider, known, scratch, console)


_COMES_TO = "sleep 8; kill -CONT $(pidof qemu-ga)"


def _hang(domain: Any) -> None:
    """Have the agent stop in a second, and go on eight later."""
    _run(domain, f"sleep 1; kill -STOP $(pidof qemu-ga); {_COMES_TO}")
    time.sleep(2)


def _run(domain: Any, script: str) -> None:
    import libvirt_qemu

    asked = {"path": "/bin/busybox", "arg": ["sh", "-c", script]}
    command = json.dumps({"execute": "guest-exec", "arguments": asked})
    libvirt_qemu.qemuAgentCommand(domain, command, 10, 0)


def _domain(daemon: Libvirtd, known: str, kernel: Path, initrd: Path) -> str:
    disk = guest.disk(daemon.directory / "disks" / "guest.qcow2", 32 * MIB)
    return f"""<domain type='qemu'><name>guest</name><uuid>{known}</uuid>
<memory unit='MiB'>192</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type><kernel>{kernel}</kernel><initrd>{initrd}</initrd>
<cmdline>{APPEND}</cmdline></os>
<cpu mode='custom' match='exact'><model>qemu64</model></cpu>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
<disk type='file' device='disk'><driver name='qemu' type='qcow2' discard='unmap'/>
<source file='{disk}'/>
<target dev='vda' bus='virtio'/></disk>
<serial type='file'><source path='{daemon.directory}/console' append='on'/></serial>
<channel type='unix'><target type='virtio' name='{guest.AGENT_PORT}'/></channel>
<memballoon model='none'/></devices></domain>"""


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A guest without libvirt: the directory of its sockets, and its uuid."""
    kernel, initrd = guest.build(tmp_path)
    disk = guest.disk(tmp_path / "guest.qcow2", 32 * MIB)
    run, known = tmp_path / "run", str(uuid.uuid4())
    run.mkdir()
    words = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "qemu64", "-m", "192", "-nodefaults"]
    words += ["-display", "none", "-append", APPEND]
    words += ["-kernel", str(kernel), "-initrd", str(initrd)]
    words += ["-serial", f"file:{tmp_path}/console", "-uuid", known, "-name", "guest"]
    words += ["-qmp", f"unix:{run}/guest.qmp,server=on,wait=off"]
    words += ["-chardev", f"socket,path={run}/guest.qga,server=on,wait=off,id=qga0"]
    words += ["-device", "virtio-serial"]
    words += ["-device", f"virtserialport,chardev=qga0,name={guest.AGENT_PORT}"]
    words += ["-drive", f"if=none,id=d0,file={disk},format=qcow2,discard=unmap"]
    words += ["-device", "virtio-blk-pci,drive=d0,id=vda"]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL)
    try:
        yield run, known
    finally:
        process.kill()
        process.wait(60)


def test_a_guest_without_libvirt_stands_still_for_a_moment(
    alone: tuple[Path, str], tmp_path: Path
) -> None:
    run, known = alone
    console = Console(tmp_path / "console")
    provider = open_provider("qmp", str(run))
    console.wait_beyond(0)

    def answers() -> bool:
        return "not-quiesced" not in {one.code for one in provider.try_out(known, tmp_path)}

    wait_for_agent(answers)
    for _ in range(3):
        assert_at_rest(provider, known, tmp_path, console)

    def ask(command: str, arguments: dict[str, Any]) -> Any:
        return ask_agent(run / "guest.qga", command, arguments)

    assert_trimmed(provider, known, tmp_path, ask)
