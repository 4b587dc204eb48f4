"""What every provider keeps that can run a machine from its image, and how the others refuse."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast.base.errors import AlreadyExists, MachineMissing, NotFound, Unsupported, WrongState
from holdfast.sources.machines.machine import State
from holdfast.sources.machines.overlays import Moved, Over
from holdfast.sources.machines.provider import NewMachine
from holdfast.sources.nbd.server import shown
from holdfast.sources.nbd.wire import Address
from tests.kit.disk_images import MIB, needs_qemu
from tests.kit.instant_benches import (
    InstantBench,
    InstantFarLibvirtBench,
    InstantLibvirtBench,
    InstantQmpBench,
    content,
)
from tests.kit.libvirtd import why_no_libvirt
from tests.kit.machine_providers import Bench, DiskFilesBench, order, read
from tests.kit.served import until
from tests.kit.shown_disks import MemoryDisk
from tests.kit.sshd import why_no_sshd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast.sources.machines.machine import Machine
    from holdfast.sources.machines.provider import Provider

pytestmark = needs_qemu

BENCHES: dict[str, Callable[[Path], InstantBench]] = {
    "libvirt": InstantLibvirtBench,
    "libvirt over ssh": InstantFarLibvirtBench,
    "qmp": InstantQmpBench,
}


@pytest.fixture(params=BENCHES)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[InstantBench]:
    if request.param == "qmp" and not shutil.which("qemu-system-x86_64"):
        pytest.skip("needs qemu-system-x86")
    if "libvirt" in request.param and (reason := why_no_libvirt()):
        pytest.skip(reason)
    if "ssh" in request.param and (reason := why_no_sshd()):
        pytest.skip(reason)
    made = BENCHES[request.param](tmp_path)
    try:
        yield made
    finally:
        made.close()


@dataclass
class Image:
    """What a backup holds of a machine, and where it is served."""

    machine: Machine
    definitions: dict[str, bytes]
    disks: dict[str, bytes]
    socket: str
    shown: dict[str, MemoryDisk] = field(default_factory=dict)

    @contextlib.contextmanager
    def served(
        self, bench: Bench, provider: Provider | None = None
    ) -> Iterator[Callable[[], None]]:
        """Served; what sees to it that the hypervisor reaches that."""
        self.shown = {name: MemoryDisk(content) for name, content in self.disks.items()}
        with (
            shown(self.shown, Address(path=self.socket)),
            (provider or bench.open()).carrying(Over("", "", self.socket)) as keep,
        ):
            keep()
            yield keep

    def order(self, name: str, known: str) -> NewMachine:
        return NewMachine(
            machine=self.machine,
            definitions=self.definitions,
            name=name,
            keep_identity=False,
            networks=None,
            storage=None,
            format="qcow2",
            uuid=known,
        )


def image_of(bench: Bench, scratch: Path, *sizes: int) -> Image:
    known = bench.make("web", *sizes)
    with bench.open().snapshot(order(known, scratch)) as frozen:
        disks = {one.name: read(one) for one in frozen.disks}
        return Image(frozen.machine, frozen.definitions, disks, str(scratch / "nbd"))


def over(image: Image, name: str = "again", image_format: str = "qcow2") -> Over:
    known = str(uuid.uuid5(uuid.NAMESPACE_URL, name))
    return Over(known, name, image.socket, format=image_format)


def files_of(place: Path, bench: InstantBench) -> set[Path]:
    """What could be left over."""
    found = (one for at in (place, *bench.places) for one in at.rglob("*"))
    return {one for one in found if one.is_file() and one.name != "truth.raw"}


@pytest.mark.parametrize("image_format", ["qcow2", "raw"])
def test_a_machine_runs_from_its_image_and_is_moved_while_it_is_written(
    bench: InstantBench, tmp_path: Path, image_format: str
) -> None:
    image = image_of(bench, tmp_path, 8 * MIB, 4 * MIB + 512)
    one, provider = over(image, image_format=image_format), bench.open()
    seen: list[Moved] = []
    with image.served(bench):
        made = provider.start_over(image.order("again", one.uuid), one)
        assert (made.uuid, made.name, made.state) == (one.uuid, "again", State.RUNNING)
        first, second = (disk.name for disk in made.disks)
        assert list(image.disks) == [first, second]
        assert {disk: content(bench, made.uuid, disk) for disk in image.disks} == image.disks
        bench.change(made.uuid, first, 3 * MIB, 77, 65536)
        assert set(provider.standing(one).needs) == {first, second}
        # A second order to begin finds it.
        assert provider.start_over(image.order("again", one.uuid), one).uuid == made.uuid

        def alive() -> None:
            bench.change(made.uuid, second, MIB, 78 + len(seen), 4096)

        provider.migrate(one, seen.append, alive)
        assert provider.standing(one).needs == ()
        bench.change(made.uuid, second, 2 * MIB, 99, 512)
    assert seen[-1].done == seen[-1].total >= 8 * MIB
    found = {disk: content(bench, made.uuid, disk) for disk in image.disks}
    wanted = bytearray(image.disks[first])
    wanted[3 * MIB : 3 * MIB + 65536] = bytes([77]) * 65536
    assert found[first] == wanted
    assert found[second][2 * MIB : 2 * MIB + 512] == bytes([99]) * 512
    assert found[second][MIB + 4096 : 2 * MIB] == image.disks[second][MIB + 4096 : 2 * MIB]
    # It is a machine like others: started anew from its own disks, in the format that was wanted.
    assert {disk.format for disk in provider.machine(one.uuid).disks} == {image_format}
    with pytest.raises(WrongState, match="needs its image"):
        provider.discard(one)
    bench.restart(made.uuid)
    assert {disk: content(bench, made.uuid, disk) for disk in image.disks} == found
    assert image.socket not in bench.definition(one.uuid)
    assert "-far/nbd" not in bench.definition(one.uuid)
    assert "stop" not in bench.definition(one.uuid)
    left = {path.suffix for path in files_of(tmp_path, bench) if "/again" in str(path)}
    assert (".raw" in left) == (image_format == "raw")
    assert (".qcow2" in left) == (image_format == "qcow2")


def test_a_move_that_was_left_goes_on(bench: InstantBench, tmp_path: Path) -> None:
    image = image_of(bench, tmp_path, 8 * MIB, 4 * MIB)
    one, provider = over(image), bench.open()
    under_way: list[set[str]] = []
    with image.served(bench):
        provider.start_over(image.order("again", one.uuid), one)
        for disk in image.shown.values():
            disk.may_go.clear()

        def leave() -> None:
            under_way.append(bench.at_work(one.uuid))
            for disk in image.shown.values():
                disk.may_go.set()
            raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt):
            provider.migrate(one, lambda _: None, leave)
        # Two that end at once under libvirt end QEMU: it looks at all nodes after each.
        (begun,) = under_way
        assert len(begun) == (1 if bench.kind == "libvirt" else 2)
        until(lambda: not bench.at_work(one.uuid), "what was begun to end without us")
        bench.look(one.uuid)
        seen: list[Moved] = []
        bench.open().migrate(one, seen.append)
        assert seen[-1].done == seen[-1].total
        bench.open().migrate(one, lambda _: None)
    assert {disk: content(bench, one.uuid, disk) for disk in image.disks} == image.disks


@pytest.mark.parametrize("running", [True, False], ids=["running", "off"])
def test_what_is_discarded_leaves_nothing(
    bench: InstantBench, tmp_path: Path, running: bool
) -> None:
    image = image_of(bench, tmp_path, 8 * MIB, 4 * MIB)
    one, provider = over(image), bench.open()
    before = files_of(tmp_path, bench)
    with image.served(bench):
        provider.start_over(image.order("again", one.uuid), one)
        bench.change(one.uuid, next(iter(image.disks)), MIB, 5, 65536)
        if not running:
            bench.stop(one.uuid)
            found = provider.standing(one)
            assert (found.state, set(found.needs)) == (State.OFF, set(image.disks))
            with pytest.raises(WrongState, match="is off"):
                provider.migrate(one, lambda _: None)
        provider.discard(one)
        with pytest.raises(MachineMissing):
            provider.standing(one)
        provider.discard(one)
    assert files_of(tmp_path, bench) == before
    assert [found.name for found in provider.machines()] == ["web"]


def test_one_that_was_switched_off_is_started_again_with_what_it_wrote(
    bench: InstantBench, tmp_path: Path
) -> None:
    image = image_of(bench, tmp_path, 8 * MIB)
    one, provider = over(image), bench.open()
    (name,) = image.disks
    with image.served(bench):
        provider.start_over(image.order("again", one.uuid), one)
        bench.change(one.uuid, name, MIB, 5, 65536)
        bench.stop(one.uuid)
        provider.start_over(image.order("again", one.uuid), one)
        assert content(bench, one.uuid, name)[MIB : MIB + 65536] == bytes([5]) * 65536
        provider.discard(one)


def test_what_is_there_is_not_touched(bench: InstantBench, tmp_path: Path) -> None:
    image = image_of(bench, tmp_path, 8 * MIB)
    provider = bench.open()
    before = files_of(tmp_path, bench)
    with image.served(bench):
        with pytest.raises(AlreadyExists, match="web"):
            provider.start_over(image.order("web", over(image).uuid), over(image, "web"))
        known = provider.machines()[0].uuid
        mine = Over(known, "web", image.socket)
        with contextlib.suppress(WrongState, NotFound):
            provider.discard(mine)
    assert files_of(tmp_path, bench) == before
    assert [found.uuid for found in provider.machines()] == [known]


_DIES = """
import os, sys, json, pickle
from holdfast.sources.machines.providers import open_provider
kind, url, at, what = sys.argv[1:]
image_order, over = pickle.load(sys.stdin.buffer)
left = int(at)

def count(frame, event, _):
    global left
    if event in ("call", "c_call") and "sources/machines" in frame.f_code.co_filename:
        left -= 1
        if left == 0:
            os._exit(9)

provider = open_provider(kind, url)
provider.machines()
sys.setprofile(count)
if what == "start":
    provider.start_over(image_order, over)
elif what == "migrate":
    provider.migrate(over, lambda _: None)
else:
    provider.discard(over)
sys.setprofile(None)
"""


def _dies(bench: InstantBench, image: Image, one: Over, what: str, at: int) -> bool:
    """Have a process do something and die at a step of it; whether it got to the end."""
    import pickle

    done = subprocess.run(
        [sys.executable, "-c", _DIES, bench.kind, bench.url, str(at), what],
        input=pickle.dumps((image.order(one.name, one.uuid), one)),
        capture_output=True,
        check=False,
        cwd=os.getcwd(),
    )
    assert done.returncode in (0, 9), done.stderr.decode()
    return done.returncode == 0


def _steps() -> Iterator[int]:
    at = 1.0
    while True:
        yield int(at)
        at = at * 2 + 1


def test_whoever_dies_while_it_begins_leaves_nothing_that_is_in_the_way(
    bench: InstantBench, tmp_path: Path
) -> None:
    image = image_of(bench, tmp_path, 4 * MIB, 4 * MIB)
    before = files_of(tmp_path, bench)
    for at in _steps():
        with image.served(bench):
            one = over(image)
            whole = _dies(bench, image, one, "start", at)
            if at % 2:
                provider = bench.open()
                made = provider.start_over(image.order("again", one.uuid), one)
                assert set(provider.standing(one).needs) == set(image.disks)
                assert (
                    content(bench, one.uuid, made.disks[0].name) == image.disks[made.disks[0].name]
                )
            bench.open().discard(one)
            assert files_of(tmp_path, bench) == before, at
            assert [found.name for found in bench.open().machines()] == ["web"]
            if whole:
                return


def test_whoever_dies_while_it_discards_is_followed_by_one_who_does(
    bench: InstantBench, tmp_path: Path
) -> None:
    image = image_of(bench, tmp_path, 4 * MIB)
    before = files_of(tmp_path, bench)
    for at in _steps():
        with image.served(bench):
            one = over(image)
            bench.open().start_over(image.order("again", one.uuid), one)
            whole = _dies(bench, image, one, "discard", at)
            bench.open().discard(one)
            assert files_of(tmp_path, bench) == before, at
            assert [found.name for found in bench.open().machines()] == ["web"]
            if whole:
                return


@pytest.mark.parametrize("image_format", ["qcow2", "raw"])
def test_whoever_dies_while_it_moves_is_followed_by_one_who_does(
    bench: InstantBench, tmp_path: Path, image_format: str
) -> None:
    image = image_of(bench, tmp_path, 4 * MIB)
    (name,) = image.disks
    for number, at in enumerate(_steps()):
        one = over(image, f"again{number}", image_format)
        with image.served(bench):
            bench.open().start_over(image.order(one.name, one.uuid), one)
            bench.change(one.uuid, name, MIB, 5, 65536)
            whole = _dies(bench, image, one, "migrate", at)
            bench.open().migrate(one, lambda _: None)
        assert bench.open().standing(one).needs == ()
        wanted = image.disks[name][:MIB] + bytes([5]) * 65536 + image.disks[name][MIB + 65536 :]
        bench.restart(one.uuid)
        assert content(bench, one.uuid, name) == wanted, at
        assert image.socket not in bench.definition(one.uuid)
        bench.stop(one.uuid)
        if whole:
            return


def test_disk_files_refuse_in_words(tmp_path: Path) -> None:
    pytest.importorskip("lxml")
    bench = DiskFilesBench(tmp_path)
    image = image_of(bench, tmp_path, 4 * MIB)
    one, provider = over(image), bench.open()
    for ask in (
        lambda: provider.start_over(image.order("again", one.uuid), one),
        lambda: provider.standing(one),
        lambda: provider.go_on(one),
        lambda: provider.migrate(one, lambda _: None),
        lambda: provider.discard(one),
        provider.reads_as,
        lambda: provider.carrying(one),
    ):
        with pytest.raises(Unsupported, match="can't run a machine from its image"):
            ask()
    bench.close()
