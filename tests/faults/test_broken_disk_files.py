"""Disk files and definitions that are damaged, missing, hostile or in use: the true cause."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast.base.errors import (
    Busy,
    DiskUnreadable,
    Forbidden,
    HoldfastError,
    Invalid,
    NotFound,
    NotQuiesced,
    SnapshotBroken,
    Unsupported,
    WrongState,
)
from holdfast.sources.machines.machine import State
from holdfast.sources.machines.provider import NewMachine
from holdfast.sources.machines.providers import open_provider
from holdfast.sources.nbd.qemu_nbd import image_node, serving
from tests.kit.disk_images import MIB, create, fill, needs_qemu, overlay, run, write
from tests.kit.machine_providers import Writer, domain_xml, order, read

if TYPE_CHECKING:
    from holdfast.sources.machines.provider import Provider

pytestmark = needs_qemu

KNOWN = "0c6a2c52-7d4e-4a11-9f0b-b4dd2f3a9a10"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    made = tmp_path / "store"
    made.mkdir()
    return made


def opened(store: Path) -> Provider:
    return open_provider("diskfiles", str(store))


def refused(store: Path, scratch: Path, name: str | None = None) -> HoldfastError:
    """What keeps a machine from being backed up, which a trial has to find too."""
    provider = opened(store)
    found = [one for one in provider.machines() if name in (None, one.name)]
    assert len(found) == 1, found
    errors = [one for one in provider.try_out(found[0].uuid, scratch) if one.severity == "error"]
    with (
        pytest.raises(HoldfastError) as caught,
        provider.snapshot(order(found[0].uuid, scratch)),
    ):
        pass
    assert caught.value.code in {one.code for one in errors}
    assert caught.value.hint
    return caught.value


class TestDamage:
    @pytest.mark.parametrize(
        ("suffix", "image_format", "options"),
        [
            ("qcow2", "qcow2", ()),
            ("vdi", "vdi", ()),
            ("vhd", "vpc", ("subformat=dynamic",)),
            ("vhdx", "vhdx", ()),
            ("vmdk", "vmdk", ("subformat=monolithicSparse",)),
        ],
    )
    def test_a_truncated_disk_is_not_read_as_zeroes(
        self, store: Path, tmp_path: Path, suffix: str, image_format: str, options: tuple[str, ...]
    ) -> None:
        path = create(store / f"web.{suffix}", image_format, 32 * MIB, *options)
        write(path, image_format, "write -P 7 1M 16M")
        os.truncate(path, path.stat().st_size - 9 * MIB)
        error = refused(store, tmp_path)
        assert isinstance(error, DiskUnreadable)
        assert str(path) in error.message

    def test_a_truncated_layer_beneath_is_named(self, store: Path, tmp_path: Path) -> None:
        base = create(store / "base.qcow2", "qcow2", 32 * MIB)
        write(base, "qcow2", "write -P 7 1M 16M")
        overlay(store / "web.qcow2", base)
        os.truncate(base, 5 * MIB)
        error = refused(store, tmp_path)
        assert isinstance(error, DiskUnreadable)
        assert f"'{base}' is truncated" in error.message

    def test_a_truncated_part_with_tables_of_its_own_is_named(
        self, store: Path, tmp_path: Path
    ) -> None:
        path = create(store / "web.vmdk", "vmdk", 32 * MIB, "subformat=twoGbMaxExtentSparse")
        write(path, "vmdk", "write -P 7 1M 16M")
        (part,) = (one for one in store.iterdir() if one.name != "web.vmdk")
        os.truncate(part, part.stat().st_size - 9 * MIB)
        error = refused(store, tmp_path)
        assert isinstance(error, DiskUnreadable)
        assert f"'{part}' is truncated" in error.message

    @pytest.mark.parametrize("subformat", ["monolithicFlat", "twoGbMaxExtentFlat"])
    def test_a_truncated_part_of_a_vmdk_is_named(
        self, store: Path, tmp_path: Path, subformat: str
    ) -> None:
        create(store / "web.vmdk", "vmdk", 8 * MIB, f"subformat={subformat}")
        (part,) = (one for one in store.iterdir() if one.name != "web.vmdk")
        os.truncate(part, 8 * MIB - 1)
        error = refused(store, tmp_path, "web")
        assert isinstance(error, DiskUnreadable)
        assert f"'{part}' is truncated: it has 8388607 bytes" in error.message

    def test_a_missing_part_of_a_vmdk_is_named(self, store: Path, tmp_path: Path) -> None:
        create(store / "web.vmdk", "vmdk", 8 * MIB, "subformat=monolithicFlat")
        (store / "web-flat.vmdk").unlink()
        error = refused(store, tmp_path)
        assert isinstance(error, NotFound)
        assert "web-flat.vmdk" in error.message

    def test_a_missing_backing_file_is_named(self, store: Path, tmp_path: Path) -> None:
        base = create(store / "base.qcow2", "qcow2", MIB)
        top = overlay(store / "web.qcow2", base)
        base.unlink()
        error = refused(store, tmp_path)
        assert isinstance(error, NotFound)
        assert str(base) in error.message
        assert str(top) in error.message

    def test_disks_that_lie_over_each_other_end(self, store: Path, tmp_path: Path) -> None:
        one, other = store / "one.qcow2", store / "other.qcow2"
        create(one, "qcow2", MIB)
        overlay(other, one)
        run("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", other, "-F", "qcow2", one)
        error = refused(store, tmp_path, "one")
        assert isinstance(error, DiskUnreadable)
        assert "over itself" in error.message

    @pytest.mark.parametrize("suffix", ["qcow2", "vmdk", "vhd", "vhdx", "vdi"])
    def test_a_file_that_is_not_what_its_name_says_is_named(
        self, store: Path, tmp_path: Path, suffix: str
    ) -> None:
        (store / f"web.{suffix}").write_bytes(b"rubbish" * 1000)
        assert isinstance(refused(store, tmp_path), DiskUnreadable)
        create(store / f"web.{suffix}", "qcow2" if suffix != "qcow2" else "vdi", MIB)
        assert isinstance(refused(store, tmp_path), DiskUnreadable)

    @pytest.mark.parametrize("at", [4, 8, 20, 24, 40, 96, 100, 104])
    def test_a_damaged_header_ends_in_words(self, store: Path, tmp_path: Path, at: int) -> None:
        path = fill(create(store / "web.qcow2", "qcow2", 8 * MIB), "qcow2")
        with path.open("r+b") as file:
            file.seek(at)
            file.write(b"\xff" * 4)
        refused(store, tmp_path)

    def test_an_encrypted_disk_is_named(self, store: Path, tmp_path: Path) -> None:
        secret = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=200"
        run(
            *("qemu-img", "create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=x"),
            *("-o", secret, store / "web.qcow2", "1M"),
        )
        error = refused(store, tmp_path)
        assert isinstance(error, Unsupported)
        assert "encrypted" in error.message

    def test_a_format_that_nobody_knows_is_named(self, store: Path, tmp_path: Path) -> None:
        disk = create(store / "web.qcow2", "qcow2", MIB)
        (store / "web.xml").write_text(
            domain_xml("web", KNOWN, [disk]).replace("type='qcow2'", "type='nbd'")
        )
        error = refused(store, tmp_path)
        assert isinstance(error, Unsupported)
        assert "'nbd'" in error.message

    def test_a_vhd_of_differences_is_not_read_as_if_it_were_whole(
        self, store: Path, tmp_path: Path
    ) -> None:
        path = fill(create(store / "web.vhd", "vpc", 8 * MIB, "subformat=dynamic"), "vpc")
        with path.open("r+b") as file:
            file.seek(60)
            file.write(struct.pack(">I", 4))
        error = refused(store, tmp_path)
        assert isinstance(error, Unsupported)
        assert "differences" in error.message


class TestInUse:
    def test_a_disk_that_a_machine_has_open_is_not_read(self, store: Path, tmp_path: Path) -> None:
        path = create(store / "web.qcow2", "qcow2", MIB)
        with serving(image_node(path, "qcow2"), "disk", writable=True):
            error = refused(store, tmp_path)
        assert isinstance(error, Busy)
        assert "machine that runs" in error.message

    def test_no_machine_starts_on_a_disk_that_is_read(self, store: Path, tmp_path: Path) -> None:
        path = create(store / "web.qcow2", "qcow2", MIB)
        (machine,) = opened(store).machines()
        with (
            opened(store).snapshot(order(machine.uuid, tmp_path)),
            pytest.raises(Busy),
            serving(image_node(path, "qcow2"), "disk", writable=True),
        ):
            pass

    @pytest.mark.parametrize("how", ["id", "state", "lock"])
    def test_a_machine_that_runs_by_its_definition_is_not_read(
        self, store: Path, tmp_path: Path, how: str
    ) -> None:
        disk = create(store / "web.qcow2", "qcow2", MIB)
        text = domain_xml("web", KNOWN, [disk], " id='3'" if how == "id" else "")
        if how == "state":
            text = f"<domstatus state='running'>{text}</domstatus>"
        (store / "web.xml").write_text(text)
        if how == "lock":
            (store / "web.xml").unlink()
            (store / "web.vmx").write_text('displayName = "web"\n')
            (store / "web.vmx.lck").mkdir()
            disk.unlink()
        (machine,) = opened(store).machines()
        assert machine.state is State.RUNNING
        assert isinstance(refused(store, tmp_path), WrongState)

    def test_what_is_in_the_memory_of_a_suspended_machine_is_said(
        self, store: Path, tmp_path: Path
    ) -> None:
        create(store / "web.vmdk", "vmdk", MIB)
        (store / "web.vmx").write_text(
            'displayName = "web"\ncheckpoint.vmState = "web.vmss"\n'
            'scsi0:0.present = "TRUE"\nscsi0:0.fileName = "web.vmdk"\n'
        )
        (machine,) = opened(store).machines()
        assert machine.state is State.SUSPENDED
        with opened(store).snapshot(order(machine.uuid, tmp_path)) as frozen:
            assert [one.code for one in frozen.remarks] == ["not-quiesced"]
        with (
            pytest.raises(NotQuiesced),
            opened(store).snapshot(order(machine.uuid, tmp_path, require_quiesce=True)),
        ):
            pass

    def test_a_file_that_changes_while_it_is_read_is_noticed(
        self, store: Path, tmp_path: Path
    ) -> None:
        path = create(store / "web.raw", "raw", MIB)
        (machine,) = opened(store).machines()
        with opened(store).snapshot(order(machine.uuid, tmp_path)) as frozen:
            read(frozen.disks[0])
            frozen.check()
            with path.open("r+b") as file:
                file.write(b"another program that asks nobody")
            os.utime(path, ns=(0, 0))
            with pytest.raises(SnapshotBroken, match="changed while it was read"):
                frozen.check()
            assert [(one.severity, one.code) for one in frozen.remarks] == [
                ("error", "changed-while-read")
            ]


class TestHostility:
    """A guest writes its disk; others who may write to a datastore write definitions."""

    def test_a_guest_can_not_have_a_file_of_the_host_read(
        self, store: Path, tmp_path: Path
    ) -> None:
        secret = tmp_path / "secret"
        secret.write_bytes(b"of the host".ljust(MIB))
        guest = overlay(store / "web.img", secret, "raw")
        error = refused(store, tmp_path)
        assert isinstance(error, Forbidden)
        assert "its guest may have written that" in error.message
        # With a definition that says raw, it is a raw disk, and what is in it is just content.
        (store / "web.xml").write_text(domain_xml("web", KNOWN, [guest]))
        with opened(store).snapshot(order(KNOWN, tmp_path)) as frozen:
            found = read(frozen.disks[0])
        assert found.startswith(b"QFI\xfb")
        assert b"of the host" not in found

    def test_a_neighbours_disk_is_out_of_reach_as_well(self, store: Path, tmp_path: Path) -> None:
        neighbour = fill(create(store / "neighbour.qcow2", "qcow2", 8 * MIB), "qcow2")
        overlay(store / "web.img", neighbour)
        assert isinstance(refused(store, tmp_path, "web"), Forbidden)

    def test_a_raw_name_is_believed_before_content(self, store: Path, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_bytes(b"of the host".ljust(MIB))
        path = overlay(store / "web.raw", secret, "raw")
        (machine,) = opened(store).machines()
        assert machine.disks[0].format == "raw"
        with opened(store).snapshot(order(machine.uuid, tmp_path)) as frozen:
            assert read(frozen.disks[0])[: path.stat().st_size] == path.read_bytes()

    @pytest.mark.parametrize(
        "backing",
        [
            "/etc/passwd",
            "../../../../../../etc/passwd",
            "json:{}",
            "nbd://127.0.0.1/x",
            "http://x/",
        ],
    )
    def test_a_disk_over_something_outside_is_refused(
        self, store: Path, tmp_path: Path, backing: str
    ) -> None:
        path = overlay(store / "web.qcow2", create(tmp_path / "any.raw", "raw", MIB), "raw")
        rename = ("qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw")
        run(*rename, "-b", backing, path)
        assert isinstance(refused(store, tmp_path), (Forbidden, NotFound))

    def test_content_kept_outside_is_refused(self, store: Path, tmp_path: Path) -> None:
        run(
            *("qemu-img", "create", "-q", "-f", "qcow2"),
            *("-o", f"data_file={tmp_path / 'outside'}", store / "web.qcow2", MIB),
        )
        assert isinstance(refused(store, tmp_path), Forbidden)

    @pytest.mark.parametrize(
        "line",
        ['RW 8 FLAT "/etc/passwd" 0', 'RW 8 FLAT "../../etc/passwd" 0', 'RW 8 FLAT "json:{}" 0'],
    )
    def test_a_vmdk_of_parts_outside_is_refused(
        self, store: Path, tmp_path: Path, line: str
    ) -> None:
        (store / "web.vmdk").write_text(
            "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n"
            f'createType="monolithicFlat"\n{line}\n'
        )
        assert isinstance(refused(store, tmp_path), (Forbidden, NotFound))

    def test_a_vmdk_that_is_not_understood_is_not_read(self, store: Path, tmp_path: Path) -> None:
        (store / "web.vmdk").write_text('# Disk DescriptorFile\n\tRW\t8 FLAT\x0b"x" "y"\n')
        error = refused(store, tmp_path)
        assert isinstance(error, DiskUnreadable)
        assert "not understood" in error.message

    def test_a_link_to_something_outside_is_refused(self, store: Path, tmp_path: Path) -> None:
        outside = fill(create(tmp_path / "outside.qcow2", "qcow2", 8 * MIB), "qcow2")
        (store / "web.qcow2").symlink_to(outside)
        error = refused(store, tmp_path)
        assert isinstance(error, Forbidden)
        assert str(outside) in error.message

    def test_links_in_a_circle_keep_nobody_from_the_others(
        self, store: Path, tmp_path: Path
    ) -> None:
        (store / "around").symlink_to(store)
        (store / "one.qcow2").symlink_to("two.qcow2")
        (store / "two.qcow2").symlink_to("one.qcow2")
        create(store / "web.qcow2", "qcow2", MIB)
        (store / "web2.xml").write_text(domain_xml("web2", KNOWN, [store / "one.qcow2"]))
        assert {one.name for one in opened(store).machines()} == {"web", "web2"}
        error = refused(store, tmp_path, "web2")
        assert isinstance(error, DiskUnreadable)
        assert "in a circle" in error.message

    def test_a_pipe_in_the_place_of_a_disk_holds_nobody_up(
        self, store: Path, tmp_path: Path
    ) -> None:
        os.mkfifo(store / "pipe.qcow2")
        (store / "web.xml").write_text(domain_xml("web", KNOWN, [store / "pipe.qcow2"]))
        assert isinstance(refused(store, tmp_path), DiskUnreadable)

    def test_entities_in_a_definition_are_refused(self, store: Path, tmp_path: Path) -> None:
        text = domain_xml("web", KNOWN, [])
        entity = '<!DOCTYPE domain [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
        (store / "web.xml").write_text(entity + text.replace(">web<", ">&e;<"))
        error = refused(store, tmp_path)
        assert isinstance(error, Invalid)
        assert "document type" in error.message

    def test_definitions_of_other_things_are_no_machines(self, store: Path) -> None:
        (store / "net.xml").write_text("<network><name>x</name></network>")
        (store / "README").write_text("about this directory")
        assert opened(store).machines() == []

    def test_settings_from_outside_are_left_out_and_said(self, store: Path, tmp_path: Path) -> None:
        disk = create(store / "web.qcow2", "qcow2", MIB)
        text = domain_xml("web", KNOWN, [disk])
        (store / "web.xml").write_text(text.replace("</os>", "<nvram>/etc/passwd</nvram></os>"))
        with opened(store).snapshot(order(KNOWN, tmp_path)) as frozen:
            assert set(frozen.definitions) == {"domain.xml"}
            assert [one.code for one in frozen.remarks] == ["definition-left-out"]

    @pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "", "."])
    def test_a_restore_leaves_its_directory_for_nobody(
        self, store: Path, tmp_path: Path, name: str
    ) -> None:
        create(store / "web.qcow2", "qcow2", MIB)
        (machine,) = opened(store).machines()
        new = NewMachine(machine, {}, name, False, None, None, "qcow2")
        with pytest.raises(Invalid):
            opened(store).restore(new, Writer({}))
        with pytest.raises(Invalid, match="outside"):
            opened(store).restore(
                NewMachine(machine, {}, "new", False, None, str(tmp_path), "qcow2"), Writer({})
            )
        assert sorted(one.name for one in store.iterdir()) == ["web.qcow2"]
