"""A restore to a hypervisor is killed wherever it is, and goes on with what got there."""

from __future__ import annotations

import socket
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("lxml", reason="lxml is not installed: see the extra 'vm'")

from holdfast.base.clock import SystemClock
from holdfast.base.errors import AlreadyExists, Unreachable
from holdfast.base.ids import ImageId, SourceName
from holdfast.movers.machines import work as machine_work
from holdfast.movers.machines.backup_run import MachineOrder, run_machine_backup
from holdfast.movers.machines.ends import NearDestination, NearImage
from holdfast.movers.machines.work import restore_machine
from holdfast.vault import PoolKey, create_pool
from holdfast.wire.machine_work import MachineRestoreWork, Reached
from tests.kit import restoring_machine
from tests.kit.disk_images import MIB, needs_qemu
from tests.kit.killed_restores import kill_at
from tests.kit.libvirtd import STRANGER, Libvirtd, why_no_libvirt
from tests.kit.machine_providers import Bench, FarLibvirtBench, LibvirtBench, VmwareBench
from tests.kit.sshd import why_no_sshd
from tests.kit.vcsim import why_no_vcsim

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast.engine import Counters, Pool
    from holdfast.wire.messages import WorkEvent

pytestmark = needs_qemu

SIZE = 8 * MIB
DATA = 6 * MIB


class NotRootBench(FarLibvirtBench):
    """A user of that host who manages machines, and may read no disk of theirs."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        (self._daemon.directory / "run" / "libvirt-sock").chmod(0o777)
        assert self._sshd is not None
        self.restores_by = self._sshd.url(user=STRANGER)


class TlsBench(FarLibvirtBench):
    """A host that gives nobody a shell: restores reach it by TLS alone."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.restores_by = self._daemon.tls_url

    def _libvirtd(self) -> Libvirtd:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return Libvirtd(tls_port=free.getsockname()[1])


BENCHES: dict[str, tuple[Callable[[Path], Bench], Callable[[], str | None]]] = {
    "libvirt": (LibvirtBench, why_no_libvirt),
    "libvirt over ssh": (FarLibvirtBench, lambda: why_no_libvirt() or why_no_sshd()),
    "libvirt, not root": (NotRootBench, lambda: why_no_libvirt() or why_no_sshd()),
    "libvirt over TLS": (TlsBench, lambda: why_no_libvirt() or why_no_sshd()),
    "vmware": (VmwareBench, why_no_vcsim),
}
COPIED = ("libvirt, not root", "libvirt over TLS")
"""Where libvirt copies what is written here."""


class Site:
    """A pool with two images of a machine, and the hypervisor that they are of."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.place, self.staging = directory, directory / "staging"
        self.staging.mkdir()
        self.kind = kind
        self.bench = BENCHES[kind][0](directory)
        self.events: list[WorkEvent] = []
        self.truth: dict[str, list[bytes]] = {}
        self.pool: Pool = create_pool(
            str(directory / "pool"),
            secret=PoolKey(restoring_machine.SECRET),
            clock=SystemClock(),
        )
        known = self.bench.make("web", SIZE, SIZE)
        for number in range(2):
            for disk in self.bench.open().machine(known).disks:
                for at in range(DATA // MIB):
                    byte = 1 + at + 10 * number + 30 * (disk.name[-1] in "b1")
                    self.bench.change(known, disk.name, at * MIB, byte, MIB)
            order = MachineOrder(
                uuid=known,
                source=SourceName("web:vm"),
                host="web",
                scratch=directory,
                label="site-7",
            )
            end = NearDestination(self.pool, None)
            done = run_machine_backup(self.bench.open(), order, end, SystemClock(), lambda _: None)
            self.truth[done.image.id] = list(self.bench.truth(known).values())
        self.first, self.second = self.truth

    def work(self, name: str, **others: Any) -> MachineRestoreWork:
        url = getattr(self.bench, "restores_by", self.bench.url)
        given = self.bench.credentials
        credentials = {"user": given.user, "password": given.password} if given.user else {}
        reached = Reached("there", self.bench.kind, url, credentials)
        made = MachineRestoreWork(
            self.first,
            hypervisor="there",
            reached=reached,
            name=name,
            keep_identity=False,
            networks=(),
            format="vmdk" if self.kind == "vmware" else "raw",
        )
        return replace(made, **others)

    def kill_at(self, work: MachineRestoreWork, step: str) -> None:
        kill_at(work, step, pool=self.place / "pool", cache=self.place / "cache")
        assert work.name not in self.machines()

    def restore(self, work: MachineRestoreWork) -> int:
        """How many bytes were sent, or written where nothing is sent."""
        self.events.clear()
        before, read = self.sent(), [0]

        def report(counters: Counters | None) -> None:
            read.append(0 if counters is None else counters.bytes_read)

        image = NearImage(self.pool, ImageId(work.image))
        restore_machine(work, image, report, self.events.append)
        done = sum(one for one, after in zip(read, [*read[1:], 0], strict=True) if after < one)
        return self.sent() - before if self.kind in ("vmware", *COPIED) else done

    def sent(self) -> int:
        if self.kind == "vmware":
            told = self.place / "vcsim-state" / "sent"
            return int(told.read_text()) if told.exists() else 0
        return SENT[0]

    def machines(self) -> dict[str, str]:
        return {one.name: one.uuid for one in self.bench.open().machines()}

    def made(self, name: str) -> list[bytes]:
        return list(self.bench.truth(self.machines()[name]).values())

    def files(self, name: str) -> list[Path]:
        """What there is of a restore, at the hypervisor and here."""
        found = [one for one in self.staging.iterdir() if "restore" in one.name]
        far = isinstance(self.bench, FarLibvirtBench)
        place = self.bench._daemon.images if far else self.place  # type: ignore[attr-defined]
        return found + [one for one in place.rglob("*") if name in str(one) and one.is_file()]

    @property
    def causes(self) -> list[str]:
        return [one.cause for one in self.events]


SENT = [0]


@pytest.fixture(scope="module", params=BENCHES)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    if reason := BENCHES[request.param][1]():
        pytest.skip(reason)
    made = Site(request.param, tmp_path_factory.mktemp("site"))
    yield made
    made.bench.close()


@pytest.fixture(autouse=True)
def little_at_once(monkeypatch: pytest.MonkeyPatch, site: Site) -> None:
    monkeypatch.setenv("TMPDIR", str(site.staging))
    monkeypatch.setattr(tempfile, "tempdir", str(site.staging))
    monkeypatch.setattr(machine_work, "KEEP_BYTES", 4 * restoring_machine.KEPT)
    if why_no_libvirt() is None:
        from holdfast.sources.machines.libvirt import volumes

        send_all = volumes._send_all

        def counted(stream: Any, data: bytes) -> None:
            SENT[0] += len(data) * (len(data) >= 1 << 16)  # a disk's, and no journal's
            send_all(stream, data)

        monkeypatch.setattr(volumes, "SENT_BYTES", 4 * restoring_machine.KEPT)
        monkeypatch.setattr(volumes, "_send_all", counted)


STEPS = {
    "libvirt": (
        ("written:3145728", "raw", 9),
        ("written:3145728", "vmdk", 9),
        ("made", "vdi", 0),
    ),
    "libvirt, not root": (
        ("sent:2500000", "raw", 11),
        ("copied:4194304", "qcow2", 9),
        ("headed:1", "vmdk", 0),
        ("made", "vdi", 0),
    ),
    "vmware": (
        ("written:3145728", "vmdk", 16),
        ("sent:1", "vmdk", 16),
        (f"copied:{SIZE}", "vmdk", 8),
        ("made", "vmdk", 0),
    ),
}
"""Where it is killed, of which format its disks are, and how many MiB of 12 of data (VMware: of 16
in all) go there afterwards."""
STEPS["libvirt over ssh"] = STEPS["libvirt"]
STEPS["libvirt over TLS"] = STEPS["libvirt, not root"]

# The others have the same journal as disk files, which have these tests, too.
MIDST = {"vmware": f"copied:{SIZE}"} | dict.fromkeys(COPIED, "copied:4194304")


def test_a_restore_that_is_killed_anywhere_goes_on_with_what_got_there(site: Site) -> None:
    for number, (step, image_format, most) in enumerate(STEPS[site.kind]):
        work = site.work(f"again-{number}", format=image_format)
        site.kill_at(work, step)
        sent = site.restore(work)
        assert sent <= most * MIB, step
        assert {"continued", "copy-continued"} & set(site.causes), step
        assert site.made(f"again-{number}") == site.truth[site.first], step
        left = [one.name for one in site.files(f"again-{number}")]
        assert not [one for one in left if "restore" in one], step
        disk = "-flat.vmdk" if site.kind == "vmware" else f".{image_format}"
        assert len([one for one in left if one.endswith(disk)]) == 2, step


@pytest.mark.parametrize("site", MIDST, indirect=True)
def test_another_image_begins_anew_or_is_told_of_what_is_in_its_way(site: Site) -> None:
    step = MIDST[site.kind]
    work = site.work("other")
    site.kill_at(work, step)
    second = replace(work, image=site.second)
    with pytest.raises(AlreadyExists, match=f"unfinished|{site.first}"):
        site.restore(second)
    site.restore(replace(second, unfinished="restart", verify=True))
    assert not {"continued", "copy-continued"} & set(site.causes)
    assert site.made("other") == site.truth[site.second]
    work = site.work("gone")
    site.kill_at(work, step)
    assert site.files("gone")
    site.restore(replace(work, unfinished="discard"))
    assert site.causes
    assert set(site.causes) == {"thrown-away"}
    assert site.files("gone") == []


@pytest.mark.parametrize("site", MIDST, indirect=True)
def test_a_file_that_was_replaced_is_not_gone_on_with(site: Site) -> None:
    work = site.work("swapped")
    site.kill_at(work, MIDST[site.kind])
    (one, *_) = [one for one in site.files("swapped") if one.name.endswith((".raw", "-flat.vmdk"))]
    copy = one.with_name("copy")
    copy.write_bytes(bytes(one.stat().st_size))
    copy.replace(one)
    if site.kind == "vmware":  # what is in a directory of ours is ours
        assert site.restore(work) == 2 * SIZE
        assert site.made("swapped") == site.truth[site.first]
    else:
        with pytest.raises(AlreadyExists, match="there is a file"):
            site.restore(work)
        assert one.read_bytes() == bytes(one.stat().st_size)


@pytest.mark.parametrize("site", COPIED, indirect=True)
def test_a_disk_that_was_made_and_got_nothing_is_in_nobodys_way(site: Site) -> None:
    work, before = site.work("blank"), site.files("blank")
    site.kill_at(work, "empty")
    assert len(site.files("blank")) > len(before)
    site.restore(replace(work, unfinished="discard"))
    assert site.files("blank") == before
    site.kill_at(work, "empty")
    assert site.restore(work) > 11 * MIB
    assert site.made("blank") == site.truth[site.first]


BOOT = "holdfast.sources.machines.libvirt.far_making._boot"


@pytest.mark.parametrize("site", COPIED, indirect=True)
def test_what_may_be_lost_with_a_power_failure_there_is_copied_anew(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, boot in enumerate(("another-start", "")):
        work = site.work(f"rebooted-{number}")
        site.kill_at(work, MIDST[site.kind])
        with monkeypatch.context() as patch:
            patch.setattr(BOOT, lambda _, boot=boot: boot)
            assert site.restore(work) > 11 * MIB
        assert "copy-continued" not in site.causes
        assert site.made(f"rebooted-{number}") == site.truth[site.first]
    # One that starts anew while all of this is at work.
    work = site.work("rebooted")
    boots = iter([*["first"] * 2, *["second"] * 99])
    with monkeypatch.context() as patch:
        patch.setattr(BOOT, lambda _: next(boots))
        with pytest.raises(Unreachable, match="started anew"):
            site.restore(work)
    assert "rebooted" not in site.machines()
    site.restore(work)
    assert site.made("rebooted") == site.truth[site.first]


@pytest.mark.parametrize("site", COPIED, indirect=True)
def test_a_disk_that_is_not_whole_does_not_look_like_one(site: Site) -> None:
    work = replace(site.work("masked"), format="qcow2")
    site.kill_at(work, MIDST[site.kind])
    (one,) = [one for one in site.files("masked") if one.name == "masked-vda.qcow2"]
    assert one.read_bytes().startswith(b"holdfast-restore")
    site.restore(replace(work, verify=True))
    assert one.read_bytes().startswith(b"QFI\xfb")
    assert site.made("masked") == site.truth[site.first]
