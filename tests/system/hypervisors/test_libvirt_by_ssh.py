"""Machines of another host, by ssh: read and made again with nothing of that host within reach.

That host is a libvirtd and an sshd in a mount namespace of their own: what libvirt knows the disks,
scratch files and sockets by are no paths here.
"""

# Where a snapshot ends is where it fails: blocks within blocks say what happens in which.
# ruff: noqa: PT012, SIM117

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from holdfast.base.errors import (
    Forbidden,
    HoldfastError,
    Invalid,
    NoPermission,
    NoSpace,
    NotAuthenticated,
    SnapshotBroken,
    Unreachable,
    Unsupported,
)
from holdfast.sources.machines.machine import State
from holdfast.sources.machines.provider import Kind, NewMachine, SnapshotOrder
from holdfast.sources.machines.providers import open_provider
from tests.kit.image_chain import ImageChain, lost, snapshot_order, writer
from tests.kit.libvirtd import (
    GRAIN,
    IMAGES,
    MIB,
    SIZE,
    STRANGER,
    Libvirtd,
    LibvirtMachine,
    Make,
    libvirt_machines,
    libvirtd_kit,
    needs_libvirt,
)
from tests.kit.qemu import Load, bytes_of, needs_qemu, read_disk
from tests.kit.sshd import HOST, Sshd, needs_sshd

pytestmark = [needs_qemu, needs_libvirt, needs_sshd]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Libvirtd]:
    with libvirtd_kit() as made:
        connection = made.open()
        assert made.images.exists()
        for name, place in (("default", IMAGES), ("spare", f"{IMAGES}/spare")):
            target = f"<target><path>{place}</path></target>"
            pool = connection.storagePoolDefineXML(
                f"<pool type='dir'><name>{name}</name>{target}</pool>"
            )
            pool.build()
            pool.create()
        connection.close()
        yield made


@pytest.fixture(scope="module")
def sshd(daemon: Libvirtd) -> Iterator[Sshd]:
    made = Sshd(daemon)
    yield made
    made.end()


@pytest.fixture
def make(daemon: Libvirtd) -> Iterator[Make]:
    with libvirt_machines(daemon, far=True) as make:
        yield make


@pytest.fixture
def machine(make: Make) -> LibvirtMachine:
    made = make()
    made.start()
    return made


def provider(sshd: Sshd, **options: str) -> Any:
    return open_provider("libvirt", sshd.url(**options))


def order(machine: LibvirtMachine, here: Path, **changed: Any) -> SnapshotOrder:
    return snapshot_order(machine, here, **changed)


def left(machine: LibvirtMachine) -> list[str]:
    """What is of backups at that host, but for checkpoints."""
    found = machine.leftovers()
    for pool in machine.connection.listAllStoragePools():
        pool.refresh()
        found += [one for one in pool.listVolumes() if one.startswith("holdfast")]
        found += [pool.name()] * pool.name().startswith("holdfast")
    files = (machine.daemon.directory / "lib" / "qemu").rglob("holdfast*")
    return found + [str(one) for one in files if "checkpoint" not in one.parts]


def chain(machine: LibvirtMachine, url: str, here: Path) -> ImageChain:
    return ImageChain(machine, "libvirt", url, here, lambda: left(machine))


@pytest.mark.parametrize("options", [{}, {"holdfast_nbd": "loopback"}])
def test_a_full_and_incrementals_while_the_machine_writes(
    machine: LibvirtMachine, sshd: Sshd, tmp_path: Path, options: dict[str, str]
) -> None:
    images = chain(machine, sshd.url(**options), tmp_path)
    random = Random(1)
    machine.some_writes(random, 20)
    for _ in range(3):
        with Load(machine, random):
            before = {name: len(one.log) for name, one in machine.contents.items()}
            with images.provider.snapshot(images.order()) as snapshot:
                # Nothing may be the same: a slow first read is long enough to write everything.
                assert lost(snapshot) == []
                read = images.read(snapshot)
                snapshot.check()
                snapshot.keep_checkpoint()
        for name, content in machine.contents.items():
            assert read[name] in content.moments(before[name] - 1), name
        images.held, images.checkpoint = read, snapshot.checkpoint
    assert left(machine) == []
    assert machine.checkpoints() == {images.checkpoint}


def test_an_incremental_reads_what_changed(
    machine: LibvirtMachine, sshd: Sshd, tmp_path: Path
) -> None:
    images = chain(machine, sshd.url(), tmp_path)
    machine.write("vda", 0, SIZE, 1)
    images.back_up()
    machine.write("vda", 3 * GRAIN, GRAIN, 2)
    with images.provider.snapshot(images.order()) as snapshot:
        assert bytes_of(snapshot.disks[0], Kind.DATA) == GRAIN


def test_wherever_a_proxy_is_killed_the_next_run_is_right(
    machine: LibvirtMachine, sshd: Sshd, tmp_path: Path
) -> None:
    images = chain(machine, sshd.url(), tmp_path)
    machine.some_writes(Random(11), 10)
    images.back_up()
    seen = set()
    for step in ["read", "kept", *range(1, 400, 4)]:
        machine.some_writes(Random(str(step)), 2)
        killed = images.die_at(step).killed
        machine.some_writes(Random(f"again {step}"), 2)
        snapshot = images.back_up()
        assert lost(snapshot) == [], step
        seen |= {one.code for one in snapshot.remarks}
        assert machine.checkpoints() == {images.checkpoint}, step
        if not killed:
            break
    assert "leftover" in seen
    assert not killed
    assert int(step) > 40


def test_what_a_dead_proxy_left_is_cleaned_up_when_asked(
    machine: LibvirtMachine, sshd: Sshd, tmp_path: Path
) -> None:
    images = chain(machine, sshd.url(), tmp_path)
    assert images.die_at("read").killed
    assert left(machine)
    told = images.provider.clean_up()
    assert {one.code for one in told} == {"leftover"}
    assert left(machine) == []
    assert not images.provider.clean_up()


def test_a_lost_connection_fails_the_backup_and_no_other(
    machine: LibvirtMachine, sshd: Sshd, tmp_path: Path
) -> None:
    images = chain(machine, sshd.url(), tmp_path)
    machine.some_writes(Random(20), 10)
    images.back_up()
    machine.some_writes(Random(21), 4)
    with pytest.raises(HoldfastError):
        with images.provider.snapshot(images.order()) as snapshot:
            images.provider._host.tunnel.close()
            read_disk(snapshot.disks[0], images.held["vda"])
    machine.some_writes(Random(22), 4)
    assert lost(images.back_up()) == []
    assert machine.checkpoints() == {images.checkpoint}


@pytest.mark.parametrize("tools", [True, False])
def test_a_machine_that_is_off_is_read(
    machine: LibvirtMachine, sshd: Sshd, tmp_path: Path, tools: bool
) -> None:
    images = chain(machine, sshd.url(), tmp_path)
    machine.some_writes(Random(12), 10)
    images.back_up()
    machine.some_writes(Random(13), 4)
    machine.shut_down()
    if not tools:
        without_tools(images)
    snapshot = images.back_up()
    assert snapshot.machine.state is State.OFF
    assert lost(snapshot) == []
    assert machine.checkpoints() == {images.checkpoint}
    assert not list(tmp_path.iterdir())
    machine.start()
    machine.some_writes(Random(14), 4)
    assert lost(images.back_up()) == []


def without_tools(images: ImageChain) -> None:
    """As a host without qemu's programs would tell."""
    from dataclasses import replace

    host = images.provider._host
    host._there = replace(host.there(), tools=False)


@pytest.mark.parametrize("tools", [True, False])
def test_a_disk_that_lies_over_another_is_read_whole(
    make: Make, sshd: Sshd, tmp_path: Path, tools: bool
) -> None:
    machine = make(formats=("qcow2",))
    machine.start()
    machine.some_writes(Random(23), 10)
    machine.shut_down()
    (file,) = machine.files
    base = file.with_suffix(".base")
    file.rename(base)
    words = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", f"{IMAGES}/{base.name}"]
    subprocess.run([*words, "-F", "qcow2", str(file), str(SIZE)], check=True)
    images = chain(machine, sshd.url(), tmp_path)
    if not tools:
        without_tools(images)
    images.back_up()
    machine.start()
    machine.some_writes(Random(24), 4)
    images.back_up()


def test_a_machine_may_be_started_while_its_files_are_read(
    machine: LibvirtMachine, sshd: Sshd, tmp_path: Path
) -> None:
    machine.shut_down()
    with pytest.raises(SnapshotBroken, match="was started"):
        with provider(sshd).snapshot(order(machine, tmp_path)) as snapshot:
            machine.start()
            snapshot.check()
    chain(machine, sshd.url(), tmp_path).back_up()


@pytest.mark.parametrize("wanted", ["spare", f"{IMAGES}/elsewhere"])
def test_scratch_files_lie_where_the_url_says(
    machine: LibvirtMachine, sshd: Sshd, tmp_path: Path, wanted: str
) -> None:
    (machine.daemon.images / "elsewhere").mkdir(mode=0o711, exist_ok=True)
    images = chain(machine, sshd.url(holdfast_scratch=wanted), tmp_path)
    with images.provider.snapshot(order(machine, tmp_path)):
        assert list(machine.daemon.images.glob(f"{wanted.rpartition('/')[2]}/holdfast-site-*.vda"))
    images.back_up()


def test_scratch_is_given_up_before_the_guest_stands_still(
    machine: LibvirtMachine, sshd: Sshd, tmp_path: Path
) -> None:
    machine.write("vda", 0, SIZE, 1)
    with pytest.raises(SnapshotBroken, match=f"{MIB} are allowed"):
        with provider(sshd).snapshot(order(machine, tmp_path, scratch_bytes=MIB)) as snapshot:
            machine.write("vda", 0, SIZE, 2)
            until = time.monotonic() + 60
            while any("<domainbackup" in one for one in machine.leftovers()):
                assert time.monotonic() < until
                time.sleep(0.02)
            snapshot.check()
    assert machine.status() == 1
    chain(machine, sshd.url(), tmp_path).back_up()


def test_too_little_scratch_is_said_before_anything_is_frozen(
    machine: LibvirtMachine, sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.sources.machines.libvirt.near.RESERVE_BYTES", 1 << 60)
    with pytest.raises(NoSpace, match="would stand still"):
        with provider(sshd).snapshot(order(machine, tmp_path)):
            pass
    assert left(machine) == []


@pytest.mark.parametrize("tools", [True, False])
@pytest.mark.parametrize("image_format", ["qcow2", "raw"])
def test_a_machine_is_made_there_with_its_firmware(
    make: Make, sshd: Sshd, tmp_path: Path, tools: bool, image_format: str
) -> None:
    machine = make(formats=("qcow2",))
    variables = machine.daemon.directory / "lib" / "qemu" / "nvram"
    variables.mkdir(mode=0o711, exist_ok=True)
    (variables / "vars.fd").write_bytes(b"settings")
    firmware = "<nvram>/var/lib/libvirt/qemu/nvram/vars.fd</nvram></os>"
    loader = "<loader readonly='yes' type='pflash'>/usr/share/seabios/bios-256k.bin</loader>"
    machine.domain.undefine()
    machine.xml = machine.xml.replace("</os>", f"{loader}{firmware}<features><acpi/></features>")
    machine.domain = machine.connection.defineXML(machine.xml)
    images = chain(machine, sshd.url(), tmp_path)
    snapshot = images.back_up()
    assert snapshot.definitions["nvram"] == b"settings"
    if not tools:
        without_tools(images)
    name = f"{machine.name}-again"
    new = NewMachine(snapshot.machine, snapshot.definitions, name, False, (), "spare", image_format)
    found = images.provider.restore(new, writer(images.held))
    try:
        (disk,) = (one for one in found.disks if one.left_out is None)
        assert disk.place == f"{IMAGES}/spare/{name}-vda.{image_format}"
        assert not Path(disk.place).exists()
        assert (found.state, disk.format, disk.size) == (State.OFF, image_format, SIZE)
        assert found.uuid != machine.uuid
        spare = machine.daemon.images / "spare"
        assert (spare / f"{name}.nvram").read_bytes() == b"settings"
        with provider(sshd).snapshot(order(machine, tmp_path, uuid=found.uuid)) as snapshot:
            assert {one.name: read_disk(one) for one in snapshot.disks} == images.held
    finally:
        machine.connection.lookupByUUIDString(found.uuid).undefineFlags(4)


def test_a_trial_shows_that_it_can_be_read_and_leaves_nothing(
    machine: LibvirtMachine, sshd: Sshd, tmp_path: Path
) -> None:
    images = chain(machine, sshd.url(), tmp_path)
    images.back_up()
    found = images.provider.try_out(machine.uuid, tmp_path)
    assert [one for one in found if one.severity == "error"] == []
    assert left(machine) == []
    assert machine.checkpoints() == {images.checkpoint}


def refused(url: str, uuid: str, here: Path) -> HoldfastError:
    """What a trial, before the window, has to say."""
    with pytest.raises(HoldfastError) as caught:
        open_provider("libvirt", url).try_out(uuid, here)
    assert caught.value.hint
    return caught.value


def test_true_causes_are_told_before_the_window(
    machine: LibvirtMachine, sshd: Sshd, tmp_path: Path
) -> None:
    known = machine.uuid

    other = sshd.make_key("other")
    found = refused(sshd.url(keyfile=str(other)), known, tmp_path)
    assert isinstance(found, NotAuthenticated)
    assert "does not let the proxy in" in found.message
    assert "authorized_keys" in str(found.hint)

    empty = tmp_path / "known_hosts"
    empty.write_text("")
    found = refused(sshd.url(known_hosts=str(empty)), known, tmp_path)
    assert isinstance(found, NotAuthenticated)
    assert "key of the host" in found.message
    assert "known_hosts" in str(found.hint)

    empty.write_text(f"[{HOST}]:{sshd.port} {other.with_suffix('.pub').read_text()}")
    found = refused(sshd.url(known_hosts=str(empty)), known, tmp_path)
    assert isinstance(found, NotAuthenticated)
    assert "may be another host" in found.message

    shutil.copy(sshd.key, open_to_all := tmp_path / "key")
    os.chmod(open_to_all, 0o644)
    found = refused(sshd.url(keyfile=str(open_to_all)), known, tmp_path)
    assert isinstance(found, NoPermission)
    assert "can be read by others" in found.message
    nowhere = refused(sshd.url(keyfile="/nowhere"), known, tmp_path)
    assert isinstance(nowhere, NoPermission)

    found = refused(sshd.url().replace(HOST, "host.invalid"), known, tmp_path)
    assert isinstance(found, Unreachable)
    assert "there is no host" in found.message
    found = refused(sshd.url().replace(f":{sshd.port}", ":1"), known, tmp_path)
    assert isinstance(found, Unreachable)
    assert "does not answer by ssh" in found.message

    found = refused(sshd.url(socket="/run/nowhere"), known, tmp_path)
    assert isinstance(found, Unreachable)
    assert "libvirt does not run on" in found.message

    found = refused(sshd.url().replace("/system", "/session"), known, tmp_path)
    assert isinstance(found, Unsupported)
    found = refused(sshd.url(holdfast_nbd="plain"), known, tmp_path)
    assert isinstance(found, Invalid)
    *_, told = provider(sshd, holdfast_scratch="nowhere").try_out(known, tmp_path)
    assert told.severity == "error"
    assert "no storage pool 'nowhere'" in told.message


@pytest.mark.parametrize("user", ["nobody", STRANGER])
def test_a_user_without_the_right_is_told_so(
    machine: LibvirtMachine, sshd: Sshd, tmp_path: Path, user: str
) -> None:
    """One who has a shell there, and one who has none."""
    found = refused(sshd.url(user=user), machine.uuid, tmp_path)
    assert isinstance(found, Forbidden)
    assert "may not use" in found.message
    assert "be root there" in str(found.hint)


def test_a_user_who_manages_machines_and_is_not_root(
    machine: LibvirtMachine, sshd: Sshd, tmp_path: Path
) -> None:
    """Sockets of QEMU are closed to him; that host's loopback address is open."""
    gate = machine.daemon.directory / "run" / "libvirt-sock"
    gate.chmod(0o777)
    try:
        url = sshd.url(user=STRANGER)
        *_, found = open_provider("libvirt", url).try_out(machine.uuid, tmp_path)
        assert (found.severity, found.code) == ("error", "not-readable")
        assert "holdfast_nbd=loopback" in found.message
        assert left(machine) == []
        images = chain(machine, sshd.url(user=STRANGER, holdfast_nbd="loopback"), tmp_path)
        told = images.provider.try_out(machine.uuid, tmp_path)
        assert [one for one in told if one.severity == "error"] == []
        machine.some_writes(Random(40), 5)
        images.back_up()
        machine.some_writes(Random(41), 5)
        assert lost(images.back_up()) == []
        machine.shut_down()
        told = images.provider.try_out(machine.uuid, tmp_path)
        assert {one.code for one in told if one.about} >= {"copied"}
        images.back_up()
    finally:
        gate.chmod(0o700)


def test_sockets_that_are_not_forwarded_are_told(
    machine: LibvirtMachine, daemon: Libvirtd, tmp_path: Path
) -> None:
    sshd = Sshd(daemon, "AllowStreamLocalForwarding no")
    try:
        found = refused(sshd.url(), machine.uuid, tmp_path)
        assert isinstance(found, Forbidden)
        assert "AllowStreamLocalForwarding" in str(found.hint)
    finally:
        sshd.end()


def test_a_host_by_tcp_is_read_as_plain_data_only_where_that_is_said(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    daemon = Libvirtd(tcp_port=port)
    try:
        daemon.start()
        connection = daemon.open()
        assert daemon.images.exists()
        connection.storagePoolCreateXML(
            f"<pool type='dir'><name>default</name><target><path>{IMAGES}</path></target></pool>"
        )
        machine = LibvirtMachine(daemon, "web", str(uuid.uuid4()), far=True)
        machine.start()
        machine.some_writes(Random(50), 5)
        url = f"qemu+tcp://{HOST}:{port}/system"
        *_, told = open_provider("libvirt", url).try_out(machine.uuid, tmp_path)
        assert told.severity == "error"
        assert "can't be read by TLS" in told.message
        images = chain(machine, f"{url}?holdfast_nbd=plain", tmp_path)
        images.back_up()
        machine.some_writes(Random(51), 5)
        assert lost(images.back_up()) == []
        assert machine.checkpoints() == {images.checkpoint}
        machine.shut_down()
        snapshot = images.back_up()
        assert lost(snapshot) == []
        new = NewMachine(snapshot.machine, snapshot.definitions, "again", False, (), None, "qcow2")
        found = images.provider.restore(new, writer(images.held))
        with images.provider.snapshot(order(machine, tmp_path, uuid=found.uuid)) as again:
            assert {one.name: read_disk(one) for one in again.disks} == images.held
        connection.close()
        machine.remove()
    finally:
        daemon.end()
