"""What a machine of VMware is to a backup, at a simulated vCenter with datastores."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.base.errors import (
    AlreadyExists,
    DiskUnreadable,
    Forbidden,
    HoldfastError,
    Invalid,
    NotAuthenticated,
    NotFound,
    NotQuiesced,
    SnapshotBroken,
    Unreachable,
    Unsupported,
)
from holdfast.sources.machines.machine import State
from holdfast.sources.machines.provider import Kind, NewMachine
from holdfast.sources.machines.providers import Credentials, open_provider
from tests.kit.disk_images import MIB, needs_qemu, write
from tests.kit.machine_providers import Writer, order, read
from tests.kit.vcsim import PASSWORD, Certificate, Vcsim, wait, why_no_vcsim

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast.sources.machines.provider import Provider, Remark

pytestmark = [needs_qemu, pytest.mark.skipif(bool(why_no_vcsim()), reason=str(why_no_vcsim()))]


@pytest.fixture
def vcsim(tmp_path: Path) -> Iterator[Vcsim]:
    made = Vcsim(tmp_path)
    yield made
    made.close()


def opened(vcsim: Vcsim, credentials: Credentials | None = None) -> Provider:
    return open_provider("vmware", vcsim.url, credentials or vcsim.credentials)


def codes(remarks: Any) -> set[str]:
    return {one.code for one in remarks}


def new(frozen: Any, name: str, **others: object) -> NewMachine:
    given: dict[str, object] = {"keep_identity": False, "networks": None, "storage": None}
    given |= {"format": "vmdk", **others}
    return NewMachine(frozen.machine, frozen.definitions, name, **given)  # type: ignore[arg-type]


def test_all_that_is_told_of_a_machine(vcsim: Vcsim) -> None:
    known = vcsim.make("web", 8 * MIB)
    (one,) = opened(vcsim).machines()
    assert (one.uuid, one.name, one.state) == (known, "web", State.RUNNING)
    assert one.host == "DC0_H0"
    assert one.folder == "DC0"
    assert (one.memory, one.cpus) == (512 << 20, 2)
    assert one.datastores == ("LocalDS_0",)
    (disk,) = one.disks
    assert (disk.name, disk.format) == ("scsi0-0", "vmdk")
    assert disk.place == "[LocalDS_0] web/web_0.vmdk"
    (card,) = one.networks
    assert (card.network, card.model) == ("VM Network", "vmxnet3")
    assert card.mac == "00:50:56:80:00:03"


def test_a_large_estate_is_told_in_pages(vcsim: Vcsim, monkeypatch: pytest.MonkeyPatch) -> None:
    from holdfast.sources.machines.vmware import properties

    monkeypatch.setattr(properties, "PAGE", 2)
    made = {vcsim.make(f"web{number}", 4 * MIB) for number in range(5)}
    assert {one.uuid for one in opened(vcsim).machines()} == made


def test_a_host_without_a_vcenter_is_one_too(tmp_path: Path) -> None:
    vcsim = Vcsim(tmp_path, "-esx")
    try:
        known = vcsim.make("web", 8 * MIB)
        (truth,) = (path.read_bytes() for path in vcsim.flats(known).values())
        with opened(vcsim).snapshot(order(known, tmp_path)) as frozen:
            assert read(frozen.disks[0]) == truth
    finally:
        vcsim.close()


def test_a_wrong_password_is_told(vcsim: Vcsim) -> None:
    with pytest.raises(NotAuthenticated, match="user 'backup'") as told:
        opened(vcsim, Credentials("backup", "wrong")).machines()
    assert "wrong" not in told.value.message.partition(":")[2]


def test_a_certificate_that_nobody_vouches_for_is_not_believed(vcsim: Vcsim) -> None:
    plain = f"https://{vcsim.host}"
    with pytest.raises(Unreachable, match="certificate") as told:
        open_provider("vmware", plain, vcsim.credentials).machines()
    assert "thumbprint" in str(told.value.hint)
    pinned = f"{plain}/?thumbprint={Certificate.new().thumbprint}"
    with pytest.raises(Unreachable, match="not the one that was pinned"):
        open_provider("vmware", pinned, vcsim.credentials).machines()
    trusting = Credentials("backup", PASSWORD, vcsim.certificate.pem)
    assert open_provider("vmware", plain, trusting).machines() == []
    other = Credentials("backup", PASSWORD, Certificate.new().pem)
    with pytest.raises(Unreachable, match="certificate"):
        open_provider("vmware", plain, other).machines()
    with pytest.raises(Invalid, match="PEM"):
        open_provider("vmware", plain, Credentials("backup", PASSWORD, "nonsense")).machines()


def test_nobody_there_and_somebody_else_there(vcsim: Vcsim) -> None:
    with pytest.raises(Unreachable, match="can't be reached"):
        open_provider("vmware", "https://127.0.0.1:1", vcsim.credentials).machines()
    with pytest.raises(Unreachable, match="can't be reached"):
        open_provider("vmware", "https://vcenter.invalid", vcsim.credentials).machines()
    other = ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(vcsim.state / "cert", vcsim.state / "key")
    other.socket = context.wrap_socket(other.socket, server_side=True)
    thread = threading.Thread(target=other.serve_forever)
    thread.start()
    try:
        print_ = vcsim.certificate.thumbprint
        url = f"https://127.0.0.1:{other.server_port}/?thumbprint={print_}"
        with pytest.raises(Unreachable, match="is no vCenter or ESXi host"):
            open_provider("vmware", url, vcsim.credentials).machines()
    finally:
        other.shutdown()
        other.server_close()
        thread.join()


def test_a_user_without_the_rights_is_told_before_and_at_a_backup(
    vcsim: Vcsim, tmp_path: Path
) -> None:
    known = vcsim.make("web", 8 * MIB)
    reader = Credentials("reader", PASSWORD)
    found = opened(vcsim, reader).try_out(known, tmp_path)
    told = " ".join(one.message for one in found if one.severity == "error")
    for right in ("VirtualMachine.State.CreateSnapshot", "Datastore.FileManagement"):
        assert right in told
    with (
        pytest.raises(Forbidden, match="right"),
        opened(vcsim, reader).snapshot(order(known, tmp_path)),
    ):
        pass
    assert vcsim.snapshots() == []
    assert opened(vcsim).try_out(known, tmp_path) == [
        one for one in opened(vcsim).try_out(known, tmp_path) if one.severity != "error"
    ]


def test_no_session_no_files(vcsim: Vcsim, tmp_path: Path) -> None:
    """What reads the datastore shows the session that was opened, and ends with it."""
    known = vcsim.make("web", 8 * MIB)
    with opened(vcsim).snapshot(order(known, tmp_path)) as frozen:
        source = frozen.disks[0].source()
        assert source.read_at(0, 4096)
    with pytest.raises(HoldfastError):
        source.read_at(MIB, 4096)


def test_a_guest_that_does_not_come_to_rest(vcsim: Vcsim, tmp_path: Path) -> None:
    known = vcsim.make("web", 8 * MIB)
    vcsim.say("refuse-quiesce")
    with opened(vcsim).snapshot(order(known, tmp_path)) as frozen:
        assert "not-quiesced" in codes(frozen.remarks)
        assert read(frozen.disks[0])
    needed = order(known, tmp_path, require_quiesce=True)
    with pytest.raises(NotQuiesced, match="web"), opened(vcsim).snapshot(needed):
        pass
    assert vcsim.snapshots() == []


def lost(vcsim: Vcsim, known: str, tmp_path: Path, since: str | None) -> tuple[Remark, ...]:
    """What is said where a backup follows an image, and has to read everything all the same."""
    (truth,) = (path.read_bytes() for path in vcsim.flats(known).values())
    with opened(vcsim).snapshot(order(known, tmp_path, since=since)) as frozen:
        assert Kind.SAME not in {one.kind for one in frozen.disks[0].ranges()}
        assert read(frozen.disks[0]) == truth
        return tuple(one for one in frozen.remarks if one.code == "bitmap-lost")


def test_changes_that_can_not_be_believed_are_not(vcsim: Vcsim, tmp_path: Path) -> None:
    known = vcsim.make("web", 8 * MIB)
    with opened(vcsim).snapshot(order(known, tmp_path)) as frozen:
        since = frozen.checkpoint
    assert since is not None
    vcsim.say("reset")
    (told,) = lost(vcsim, known, tmp_path, since)
    assert "anew" in told.message
    with opened(vcsim).snapshot(order(known, tmp_path)) as frozen:
        later = frozen.checkpoint
    for one in vcsim.state.glob("kept-*"):
        one.unlink()  # the host does not know that moment any more
    (told,) = lost(vcsim, known, tmp_path, later)
    assert "is not told" in told.message
    assert "changeId" in told.message
    vcsim.say("file-fault")
    (told,) = lost(vcsim, known, tmp_path, later)
    assert "Error caused by file" in told.message


def test_a_simulator_that_knows_no_changes_is_read_whole(tmp_path: Path) -> None:
    """As govmomi has it, with nothing added: such is a host that marks no changes."""
    vcsim = Vcsim(tmp_path, "-plain")
    try:
        known = vcsim.make("web", 8 * MIB)
        (truth,) = (path.read_bytes() for path in vcsim.flats(known).values())
        with opened(vcsim).snapshot(order(known, tmp_path)) as frozen:
            assert frozen.checkpoint is None
            assert "no-bitmap" in codes(frozen.remarks)
            assert read(frozen.disks[0]) == truth
            frozen.check()
        with opened(vcsim).snapshot(order(known, tmp_path, since="{}")) as frozen:
            assert "bitmap-lost" in codes(frozen.remarks)
            writer = Writer({"scsi0-0": truth})
            again = opened(vcsim).restore(new(frozen, "again"), writer)
        assert [path.read_bytes() for path in vcsim.flats(again.uuid).values()] == [truth]
    finally:
        vcsim.close()


def test_disks_that_no_snapshot_holds_are_told(vcsim: Vcsim, tmp_path: Path) -> None:
    known = vcsim.make("web", 8 * MIB, 4 * MIB, modes=("persistent", "independent_persistent"))
    with opened(vcsim).snapshot(order(known, tmp_path)) as frozen:
        assert [one.name for one in frozen.disks] == ["scsi0-0"]
        (told,) = [one for one in frozen.remarks if one.code == "disk-left-out"]
        assert (told.severity, told.about) == ("warning", "scsi0-1")
        assert "independent" in told.message
    assert "disk-left-out" in codes(opened(vcsim).try_out(known, tmp_path))


def test_a_file_that_is_missing_or_short_is_named(vcsim: Vcsim, tmp_path: Path) -> None:
    known = vcsim.make("web", 8 * MIB)
    (flat,) = vcsim.flats(known).values()
    with flat.open("r+b") as file:
        file.truncate(5 * MIB)
    with (
        pytest.raises(DiskUnreadable, match=r"web_0-flat\.vmdk' is truncated"),
        opened(vcsim).snapshot(order(known, tmp_path)),
    ):
        pass
    flat.unlink()
    with (
        pytest.raises(NotFound, match=r"\[LocalDS_0\] web/web_0-flat.vmdk"),
        opened(vcsim).snapshot(order(known, tmp_path)),
    ):
        pass
    assert vcsim.snapshots() == []


def test_snapshots_of_others_are_left_alone(vcsim: Vcsim, tmp_path: Path) -> None:
    known = vcsim.make("web", 8 * MIB)
    machine = vcsim.find(known)
    wait(machine.CreateSnapshot_Task("before the update", "", False, False))
    wait(machine.CreateSnapshot_Task("holdfast.other.1", "not ours", False, False))
    opened(vcsim).clean_up()
    with opened(vcsim).snapshot(order(known, tmp_path)) as frozen:
        assert "leftover" not in codes(frozen.remarks)
        assert len(vcsim.snapshots()) == 3
    assert sorted(vcsim.snapshots()) == ["before the update", "holdfast.other.1"]


def test_what_a_proxy_of_elsewhere_left_goes_with_the_next_backup(
    vcsim: Vcsim, tmp_path: Path
) -> None:
    known = vcsim.make("web", 8 * MIB)
    said = '{"on": "another-proxy", "place": "/tmp/gone"}'
    wait(vcsim.find(known).CreateSnapshot_Task("holdfast.site.7", said, False, False))
    opened(vcsim).clean_up()
    assert vcsim.snapshots() == ["holdfast.site.7"]  # it may live, for all that is known here
    with opened(vcsim).snapshot(order(known, tmp_path)) as frozen:
        assert "leftover" in codes(frozen.remarks)
    assert vcsim.snapshots() == []


def test_a_snapshot_that_somebody_removes_fails_the_backup(vcsim: Vcsim, tmp_path: Path) -> None:
    known = vcsim.make("web", 8 * MIB)
    with opened(vcsim).snapshot(order(known, tmp_path)) as frozen:
        frozen.check()
        wait(vcsim.find(known).RemoveAllSnapshots_Task())
        (told,) = [one for one in frozen.remarks if one.severity == "error"]
        assert told.code == "snapshot-lost"
        time.sleep(5.1)  # it is looked for every five seconds
        with pytest.raises(SnapshotBroken, match="somebody removed"):
            frozen.check()


def test_a_vcenter_that_dies_in_the_middle_is_the_cause_that_is_told(
    vcsim: Vcsim, tmp_path: Path
) -> None:
    known = vcsim.make("web", 32 * MIB)
    (flat,) = vcsim.flats(known).values()
    write(flat, "raw", "write -P 77 0 32M")
    vcsim.say("slow")
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1"):
        _read_while_it_dies(vcsim, known, tmp_path)


def _read_while_it_dies(vcsim: Vcsim, known: str, tmp_path: Path) -> None:
    with opened(vcsim).snapshot(order(known, tmp_path)) as frozen:
        kill = threading.Timer(1.5, vcsim.process.kill)
        kill.start()
        try:
            with contextlib.suppress(HoldfastError):
                read(frozen.disks[0])
            frozen.check()
        finally:
            kill.join()


def test_many_pieces_are_read_at_once_and_each_once(vcsim: Vcsim, tmp_path: Path) -> None:
    known = vcsim.make("web", 32 * MIB)
    (flat,) = vcsim.flats(known).values()
    write(flat, "raw", "write -P 77 0 32M")
    with opened(vcsim).snapshot(order(known, tmp_path)) as frozen:
        vcsim.say("slow")  # so that reads overlap, however busy this machine is
        source = frozen.disks[0].source()
        with ThreadPoolExecutor(2) as readers:  # as a backup reads: several parts of it at once
            halves = readers.map(lambda at: source.read_at(at, 16 * MIB), (0, 16 * MIB))
            assert b"".join(halves) == b"\x4d" * (32 * MIB)
    assert (vcsim.state / "reads").read_text() == "8 4"  # eight pieces, four at most at once


def test_an_identity_is_kept_or_renewed_and_networks_as_wanted(
    vcsim: Vcsim, tmp_path: Path
) -> None:
    known = vcsim.make("web", 8 * MIB)
    with opened(vcsim).snapshot(order(known, tmp_path)) as frozen:
        disks = {one.name: read(one) for one in frozen.disks}
    with pytest.raises(AlreadyExists):
        opened(vcsim).restore(new(frozen, "back", keep_identity=True), Writer(disks))
    before = vcsim.find(known)
    bios = before.config.uuid
    wait(before.PowerOffVM_Task())
    before.UnregisterVM()
    provider = opened(vcsim)
    same = provider.restore(new(frozen, "back", keep_identity=True), Writer(disks))
    assert same.uuid == known
    assert [one.mac for one in same.networks] == ["00:50:56:80:00:03"]
    assert vcsim.find(known).config.uuid == bios
    assert vcsim.find(known).config.guestId == "debian12_64Guest"
    assert same.state is State.OFF
    provider.start(same.uuid)
    assert provider.machine(same.uuid).state is State.RUNNING

    other = provider.restore(
        new(frozen, "lab", networks=("DC0_DVPG0",), storage="LocalDS_1"), Writer(disks)
    )
    assert other.uuid != known
    assert other.datastores == ("LocalDS_1",)
    assert [one.network for one in other.networks] == ["DC0_DVPG0"]
    alone = provider.restore(new(frozen, "alone", networks=()), Writer(disks))
    from pyVmomi import vim

    card: Any
    (card,) = [
        one
        for one in vcsim.find(alone.uuid).config.hardware.device
        if isinstance(one, vim.vm.device.VirtualEthernetCard)
    ]
    assert card.connectable.startConnected is False


def test_what_can_not_be_restored_is_told_before_anything_is_written(
    vcsim: Vcsim, tmp_path: Path
) -> None:
    known = vcsim.make("web", 8 * MIB)
    with opened(vcsim).snapshot(order(known, tmp_path)) as frozen:
        disks = {one.name: read(one) for one in frozen.disks}
    writer = Writer(disks)
    provider = opened(vcsim)
    for wanted, kind, words in (
        (new(frozen, "again", format="qcow2"), Invalid, "vmdk"),
        (new(frozen, "a/b"), Invalid, "name"),
        (new(frozen, "again", storage="nowhere"), NotFound, "LocalDS_0, LocalDS_1"),
        (new(frozen, "again", networks=("nowhere",)), NotFound, "nowhere"),
    ):
        with pytest.raises(kind) as told:
            provider.restore(wanted, writer)
        assert words in f"{told.value.message} {told.value.hint}"
    frozen.definitions.pop("config.json")
    with pytest.raises(Unsupported, match="no definition of VMware"):
        provider.restore(new(frozen, "again"), writer)
    frozen.definitions["config.json"] = b'{"_vimtype": "vim.vm.ConfigInfo", "hardware": []}'
    with pytest.raises(DiskUnreadable):
        provider.restore(new(frozen, "again"), writer)
    assert not writer.asked
    assert [one.uuid for one in provider.machines()] == [known]


def test_a_machine_that_is_not_there(vcsim: Vcsim) -> None:
    with pytest.raises(NotFound):
        opened(vcsim).start(str(uuid.uuid4()))
