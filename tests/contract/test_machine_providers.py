"""What every provider of machines keeps, whatever runs them."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast.base.errors import AlreadyExists, HoldfastError, Invalid, NotFound
from holdfast.sources.machines.machine import Machine
from holdfast.sources.machines.provider import Kind, NewMachine
from tests.kit.disk_images import MIB, needs_qemu
from tests.kit.libvirtd import why_no_libvirt
from tests.kit.machine_providers import (
    Bench,
    DiskFilesBench,
    FarLibvirtBench,
    LibvirtBench,
    QmpBench,
    VmwareBench,
    Writer,
    assert_whole,
    names,
    order,
    read,
)
from tests.kit.served import until
from tests.kit.sshd import why_no_sshd
from tests.kit.vcsim import why_no_vcsim

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = needs_qemu

BENCHES: dict[str, Callable[[Path], Bench]] = {
    "diskfiles": DiskFilesBench,
    "libvirt": LibvirtBench,
    "libvirt over ssh": FarLibvirtBench,
    "qmp": QmpBench,
    "vmware": VmwareBench,
}
"""Every provider that can be had here; one that can't skips, and says why."""


@pytest.fixture(params=BENCHES)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    if request.param == "qmp" and not shutil.which("qemu-system-x86_64"):
        pytest.skip("needs qemu-system-x86")
    if request.param.startswith("libvirt") and (reason := why_no_libvirt()):
        pytest.skip(reason)
    if request.param == "libvirt over ssh" and (reason := why_no_sshd()):
        pytest.skip(reason)
    if request.param == "vmware" and (reason := why_no_vcsim()):
        pytest.skip(reason)
    made = BENCHES[request.param](tmp_path)
    try:
        yield made
        until(lambda: not made.traces(), f"the end of {made.traces()}")
    finally:
        made.close()


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory with a short path, as a socket in it needs one."""
    with tempfile.TemporaryDirectory(prefix="hf-") as made:
        yield Path(made)


def new(machine: Machine, definitions: dict[str, bytes], name: str, **others: object) -> NewMachine:
    given: dict[str, object] = {
        "keep_identity": False,
        "networks": None,
        "storage": None,
        "format": "qcow2",
    }
    return NewMachine(machine, definitions, name, **(given | others))  # type: ignore[arg-type]


def test_machines_are_listed_as_they_are(bench: Bench) -> None:
    made = {bench.make("web", 8 * MIB), bench.make("db", 4 * MIB + bench.sector, 16 * MIB)}
    found = {one.uuid: one for one in bench.open().machines()}
    assert set(found) == made
    by_name = {one.name: one for one in found.values()}
    assert [one.size for one in by_name["web"].disks] == [8 * MIB]
    assert [one.size for one in by_name["db"].disks] == [4 * MIB + bench.sector, 16 * MIB]
    assert len({one.name for one in by_name["db"].disks}) == 2
    for one in found.values():
        assert one.host
        assert one.datastores
        assert bench.open().machine(one.uuid) == one
        assert Machine.from_json(one.to_json()) == one


def test_a_machine_keeps_its_uuid(bench: Bench) -> None:
    known = bench.make("web", 8 * MIB)
    bench.change(known, bench.open().machines()[0].disks[0].name, 2 * MIB, 9, 65536)
    assert [one.uuid for one in bench.open().machines()] == [known]


def test_a_machine_that_is_not_there_is_named(bench: Bench, tmp_path: Path) -> None:
    bench.make("web", 8 * MIB)
    missing = str(uuid.uuid4())
    with pytest.raises(NotFound, match=missing):
        bench.open().machine(missing)
    with pytest.raises(NotFound, match=missing), bench.open().snapshot(order(missing, tmp_path)):
        pass


def test_a_trial_of_what_can_be_backed_up_finds_nothing(bench: Bench, scratch: Path) -> None:
    known = bench.make("web", 8 * MIB)
    found = bench.open().try_out(known, scratch)
    assert list(scratch.iterdir()) == []
    assert [one for one in found if one.severity == "error"] == []


def test_a_guest_that_can_not_trim_is_in_nobodys_way(bench: Bench, tmp_path: Path) -> None:
    known = bench.make("web", 8 * MIB)
    with bench.open().snapshot(order(known, tmp_path, trim_s=2)) as frozen:
        assert [one.name for one in frozen.disks] == names(frozen.machine)
        frozen.check()
        assert [one.code for one in frozen.remarks].count("not-trimmed") == 1


def test_a_trial_says_where_nothing_would_be_trimmed(bench: Bench, scratch: Path) -> None:
    known = bench.make("web", 8 * MIB)
    found = bench.open().try_out(known, scratch, trim=True)
    assert [one.code for one in found].count("not-trimmed") == 1
    assert [one for one in found if one.severity == "error"] == []


def test_what_is_read_is_what_was_there(bench: Bench, tmp_path: Path) -> None:
    known = bench.make("web", 8 * MIB, 4 * MIB + bench.sector)
    truth = bench.truth(known)
    with bench.open().snapshot(order(known, tmp_path)) as frozen:
        assert frozen.machine.uuid == known
        assert frozen.definitions
        assert [one.name for one in frozen.disks] == names(frozen.machine) == list(truth)
        for disk in frozen.disks:
            ranges = list(disk.ranges())
            assert_whole(ranges, disk.size)
            assert {one.kind for one in ranges} == {Kind.DATA, Kind.HOLE}
            assert sum(one.length for one in ranges if one.kind is Kind.DATA) < disk.size
            assert read(disk) == truth[disk.name]
        frozen.check()


def test_nothing_is_the_same_without_a_checkpoint(bench: Bench, tmp_path: Path) -> None:
    known = bench.make("web", 8 * MIB)
    with bench.open().snapshot(order(known, tmp_path, since="from-somewhere-else")) as frozen:
        for disk in frozen.disks:
            assert Kind.SAME not in {one.kind for one in disk.ranges()}
    with bench.open().snapshot(order(known, tmp_path)) as frozen:
        for disk in frozen.disks:
            assert Kind.SAME not in {one.kind for one in disk.ranges()}


def test_incrementals_that_follow_each_other_are_right(bench: Bench, tmp_path: Path) -> None:
    known = bench.make("web", 8 * MIB)
    (name,) = bench.truth(known)
    image, since = b"", None
    for step in range(4):
        truth = bench.truth(known)[name]
        with bench.open().snapshot(order(known, tmp_path, since=since)) as frozen:
            (disk,) = frozen.disks
            ranges = list(disk.ranges())
            assert_whole(ranges, disk.size)
            if since is not None and bench.tells_changes:
                assert Kind.SAME in {one.kind for one in ranges}
            image = read(disk, image)
            assert image == truth
            frozen.check()
            frozen.keep_checkpoint()
            since = frozen.checkpoint
        bench.change(known, name, (step + 1) * MIB + 4096, 100 + step, 8192)


def test_a_backup_that_failed_is_not_followed(bench: Bench, tmp_path: Path) -> None:
    known = bench.make("web", 8 * MIB)
    (name,) = bench.truth(known)
    with bench.open().snapshot(order(known, tmp_path)) as frozen:
        image = read(frozen.disks[0])
        frozen.keep_checkpoint()
        since = frozen.checkpoint
    bench.change(known, name, 2 * MIB, 55, 65536)
    with (
        contextlib.suppress(RuntimeError),
        bench.open().snapshot(order(known, tmp_path, since=since)),
    ):
        raise RuntimeError
    bench.change(known, name, 5 * MIB, 56, 65536)
    truth = bench.truth(known)[name]
    with bench.open().snapshot(order(known, tmp_path, since=since)) as frozen:
        assert read(frozen.disks[0], image) == truth


def test_a_disk_that_is_not_wanted_is_left_out_and_said(bench: Bench, tmp_path: Path) -> None:
    known = bench.make("web", 8 * MIB, 4 * MIB)
    first, second = (one.name for one in bench.open().machine(known).disks)
    with bench.open().snapshot(order(known, tmp_path, leave_out=(second,))) as frozen:
        assert [one.name for one in frozen.disks] == [first] == names(frozen.machine)
        assert [one.name for one in frozen.machine.disks] == [first, second]


def test_what_stops_a_backup_releases_the_machine(bench: Bench, tmp_path: Path) -> None:
    known = bench.make("web", 8 * MIB)

    def stop() -> None:
        raise KeyboardInterrupt

    with (
        contextlib.suppress(KeyboardInterrupt),
        bench.open().snapshot(order(known, tmp_path), stop),
    ):
        pass
    until(lambda: not bench.traces(), "the end of the first")
    with (
        contextlib.suppress(RuntimeError),
        bench.open().snapshot(order(known, tmp_path)) as frozen,
    ):
        frozen.disks[0].ranges()
        raise RuntimeError
    until(lambda: not bench.traces(), "the end of the second")
    with bench.open().snapshot(order(known, tmp_path)) as frozen:
        assert read(frozen.disks[0])


def test_two_backups_at_once_are_right_or_the_second_is_told(bench: Bench, tmp_path: Path) -> None:
    known, other = bench.make("web", 8 * MIB), bench.make("db", 4 * MIB)
    truth = bench.truth(known) | {"other": b"".join(bench.truth(other).values())}
    with (
        bench.open().snapshot(order(known, tmp_path)) as one,
        bench.open().snapshot(order(other, tmp_path)) as two,
    ):
        assert read(two.disks[0]) == truth["other"]
        with (
            contextlib.suppress(HoldfastError),
            bench.open().snapshot(order(known, tmp_path)) as three,
        ):
            assert read(three.disks[0]) == truth[three.disks[0].name]
        assert read(one.disks[0]) == truth[one.disks[0].name]
        one.check()


def test_a_backup_that_was_killed_leaves_nothing_for_long(bench: Bench, tmp_path: Path) -> None:
    known = bench.make("web", 8 * MIB)
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from holdfast.sources.machines.providers import Credentials, open_provider\n"
        "from holdfast.sources.machines.provider import SnapshotOrder\n"
        "kind, url, known, scratch, user, password = sys.argv[1:]\n"
        "order = SnapshotOrder(known, None, True, False, Path(scratch), 'site-1')\n"
        "with open_provider(kind, url, Credentials(user, password)).snapshot(order) as frozen:\n"
        "    frozen.disks[0].ranges()\n"
        "    print('reading', flush=True)\n"
        "    time.sleep(600)\n"
    )
    command = [sys.executable, "-c", code, bench.kind, bench.url, known, str(tmp_path)]
    command += [bench.credentials.user, bench.credentials.password]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "reading\n"
            assert bench.traces()
        finally:
            child.send_signal(signal.SIGKILL)
    bench.open().clean_up()
    until(lambda: not bench.traces(), "the end of what was left")
    truth = bench.truth(known)
    with bench.open().snapshot(order(known, tmp_path)) as frozen:
        assert read(frozen.disks[0]) == truth[frozen.disks[0].name]


def test_what_is_restored_is_what_was_backed_up(bench: Bench, tmp_path: Path) -> None:
    known = bench.make("web", 8 * MIB, 4 * MIB + bench.sector)
    with bench.open().snapshot(order(known, tmp_path)) as frozen:
        disks = {one.name: read(one) for one in frozen.disks}
        machine, definitions = frozen.machine, frozen.definitions
    for image_format in bench.formats:
        writer = Writer(disks)
        name = f"again-{image_format}"
        made = bench.open().restore(new(machine, definitions, name, format=image_format), writer)
        assert made.name == name
        assert made.uuid != known
        assert len(writer.asked) == 2
        assert [one.format for one in made.disks] == [image_format] * 2
        assert list(bench.truth(made.uuid).values()) == list(disks.values())
        assert not {one.mac for one in made.networks} & {one.mac for one in machine.networks}
        with bench.open().snapshot(order(made.uuid, tmp_path)) as frozen:
            assert [read(one) for one in frozen.disks] == list(disks.values())


def test_a_format_that_can_not_be_had_is_refused_before_anything_is_made(
    bench: Bench, tmp_path: Path
) -> None:
    known = bench.make("web", 8 * MIB)
    with bench.open().snapshot(order(known, tmp_path)) as frozen:
        machine, definitions = frozen.machine, frozen.definitions
    for image_format in {"qcow2", "raw", "vmdk", "vhdx", "vdi", "qed"} - {*bench.formats}:
        writer = Writer({})
        with pytest.raises(Invalid, match=f"'{image_format}'") as caught:
            bench.open().restore(new(machine, definitions, "again", format=image_format), writer)
        assert all(one in str(caught.value.hint) for one in bench.formats)
        assert not writer.asked
    assert [one.uuid for one in bench.open().machines()] == [known]


def test_a_disk_that_was_left_out_is_not_made(bench: Bench, tmp_path: Path) -> None:
    known = bench.make("web", 8 * MIB, 4 * MIB)
    second = bench.open().machine(known).disks[1].name
    with bench.open().snapshot(order(known, tmp_path, leave_out=(second,))) as frozen:
        disks = {one.name: read(one) for one in frozen.disks}
        writer = Writer(disks)
        made = bench.open().restore(
            new(frozen.machine, frozen.definitions, "again", format=bench.formats[0]), writer
        )
    assert [one.size for one in made.disks] == [8 * MIB]


def test_what_is_there_already_is_not_overwritten(bench: Bench, tmp_path: Path) -> None:
    known = bench.make("web", 8 * MIB)
    before = bench.truth(known)
    with bench.open().snapshot(order(known, tmp_path)) as frozen:
        machine, definitions = frozen.machine, frozen.definitions
    writer = Writer(before)
    with pytest.raises(AlreadyExists, match="web"):
        bench.open().restore(new(machine, definitions, "web", format=bench.formats[0]), writer)
    with pytest.raises(AlreadyExists, match=known):
        bench.open().restore(
            new(machine, definitions, "again", keep_identity=True, format=bench.formats[0]), writer
        )
    assert not writer.asked
    assert bench.truth(known) == before
    assert [one.uuid for one in bench.open().machines()] == [known]


def test_a_restore_that_fails_leaves_nothing(bench: Bench, tmp_path: Path) -> None:
    known = bench.make("web", 8 * MIB, 4 * MIB)
    disks = bench.truth(known)
    with bench.open().snapshot(order(known, tmp_path)) as frozen:
        machine, definitions = frozen.machine, frozen.definitions
    for failing in disks:
        with pytest.raises(RuntimeError, match="the pool is gone"):
            bench.open().restore(
                new(machine, definitions, "again", format=bench.formats[0]),
                Writer(disks, fails_at=failing),
            )
        assert [one.uuid for one in bench.open().machines()] == [known]
    made = bench.open().restore(
        new(machine, definitions, "again", format=bench.formats[0]), Writer(disks)
    )
    assert list(bench.truth(made.uuid).values()) == list(disks.values())
