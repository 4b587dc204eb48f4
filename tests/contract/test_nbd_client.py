"""The NBD client with the real qemu-nbd: what is read, what is allocated, what is handed over."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from holdfast.base.errors import (
    Busy,
    DiskUnreadable,
    HoldfastError,
    Invalid,
    NoPermission,
    NotFound,
    Unreachable,
    Unsupported,
)
from holdfast.sources.nbd import client, protocol, qemu_nbd
from holdfast.sources.nbd.qemu_nbd import image_node, serving
from holdfast.sources.nbd.wire import Address
from tests.kit.disk_images import MIB, content, create, fill, needs_qemu, overlay, run, write
from tests.kit.served import until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_qemu


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return fill(create(tmp_path / "disk.qcow2", "qcow2", 8 * MIB), "qcow2")


def all_read(address: Address) -> bytes:
    connection = client.connect(address)
    found = connection.read(0, connection.export.size)
    connection.close()
    return bytes(found)


def test_what_is_read_is_what_is_in_the_disk(disk: Path, tmp_path: Path) -> None:
    truth = content(disk, "qcow2", tmp_path / "raw")
    with serving(image_node(disk, "qcow2"), "disk") as served:
        for structured in (True, False):
            connection = client.connect(served.address, structured=structured)
            assert connection.export.structured is structured
            assert connection.export.size == len(truth)
            assert connection.export.flags & protocol.Flags.READ_ONLY
            assert connection.read(0, len(truth)) == truth
            assert connection.read(1048575, 3) == truth[1048575:1048578]
            assert connection.read(len(truth), 0) == b""
            with pytest.raises(Invalid):
                connection.read(len(truth) - 1, 2)
            connection.close()


def test_long_reads_go_in_requests_that_the_server_takes(tmp_path: Path) -> None:
    disk = create(tmp_path / "disk.qcow2", "qcow2", 80 * MIB)
    write(disk, "qcow2", "write -P 9 40M 8M")
    with serving(image_node(disk, "qcow2"), "disk") as served:
        connection = client.connect(served.address)
        found = connection.read(0, 80 * MIB)
        connection.close()
    assert found == bytes(40 * MIB) + b"\x09" * 8 * MIB + bytes(32 * MIB)


def test_block_status_covers_the_disk_and_tells_holes_from_data(tmp_path: Path) -> None:
    disk = create(tmp_path / "disk.qcow2", "qcow2", 5 * 1024 * MIB + 512)
    write(disk, "qcow2", "write -P 1 1M 64k", "write -z 2M 64k", "write -P 2 4608M 1M")
    with serving(image_node(disk, "qcow2"), "disk") as served:
        connection = client.connect(served.address, contexts=[protocol.ALLOCATION])
        found = connection.block_status()[protocol.ALLOCATION]
        part = connection.block_status(MIB - 4096, 8192)[protocol.ALLOCATION]
        connection.close()
    data = [(one.offset, one.length) for one in found if not one.flags & protocol.ZERO]
    assert data == [(MIB, 65536), (4608 * MIB, MIB)]
    assert [one.offset for one in found] == [
        0,
        *(one.offset + one.length for one in found[:-1]),
    ]
    assert found[-1].offset + found[-1].length == 5 * 1024 * MIB + 512
    assert [(one.offset, one.length, bool(one.flags & 2)) for one in part] == [
        (MIB - 4096, 4096, True),
        (MIB, 4096, False),
    ]


def test_a_dirty_bitmap_tells_what_was_written_since(disk: Path) -> None:
    run("qemu-img", "bitmap", "--add", "-g", "64k", "-f", "qcow2", disk, "since")
    write(disk, "qcow2", "write -P 5 2M 64k", "write -P 5 6M 100k")
    context = protocol.DIRTY_BITMAP + "since"
    with serving(image_node(disk, "qcow2"), "disk", bitmap="since") as served:
        wanted = [protocol.ALLOCATION, context]
        connection = client.connect(served.address, contexts=wanted)
        found = connection.block_status()
        connection.close()
    dirty = [(one.offset, one.length) for one in found[context] if one.flags & protocol.DIRTY]
    assert dirty == [(2 * MIB, 65536), (6 * MIB, 131072)]
    for extents in found.values():
        assert sum(one.length for one in extents) == 8 * MIB


def test_a_context_that_the_server_lacks_is_not_there(disk: Path) -> None:
    with serving(image_node(disk, "qcow2"), "disk") as served:
        connection = client.connect(served.address, contexts=[protocol.DIRTY_BITMAP + "none"])
        assert connection.export.contexts == {}
        with pytest.raises(Unsupported, match="allocated"):
            connection.block_status()
        connection.close()


def test_exports_are_listed_and_one_that_is_missing_is_named(disk: Path) -> None:
    with serving(image_node(disk, "qcow2"), "disk") as served:
        assert client.list_exports(served.address) == [""]
        with pytest.raises(NotFound, match="export 'other'"):
            client.connect(served.address, "other")


def test_what_is_written_is_there_when_the_block_ends(tmp_path: Path) -> None:
    disk = create(tmp_path / "disk.qcow2", "qcow2", 8 * MIB)
    with serving(image_node(disk, "qcow2"), "disk", writable=True) as served:
        connection = client.connect(served.address)
        connection.write(MIB - 1, b"holdfast")
        connection.flush()
        connection.close()
    truth = bytearray(8 * MIB)
    truth[MIB - 1 : MIB + 7] = b"holdfast"
    assert content(disk, "qcow2", tmp_path / "raw") == truth


def test_a_disk_that_is_only_read_takes_no_writes(disk: Path) -> None:
    with serving(image_node(disk, "qcow2"), "disk") as served:
        connection = client.connect(served.address)
        with pytest.raises(NoPermission, match="lets nobody write"):
            connection.write(5, b"x")
        assert len(connection.read(0, 512)) == 512
        connection.close()


def test_sockets_are_handed_over_ready_to_be_read_from(disk: Path, tmp_path: Path) -> None:
    truth = content(disk, "qcow2", tmp_path / "raw")
    with (
        serving(image_node(disk, "qcow2"), "disk") as served,
        client.sockets(served.address, count=3, structured=False) as given,
    ):
        assert len(set(given.fds)) == 3
        assert given.export.size == len(truth)
        for fd in given.fds:
            with socket.socket(fileno=os.dup(fd)) as copy:
                assert copy.getblocking()
                copy.sendall(protocol.REQUEST_HEADER.pack(protocol.REQUEST, 0, 0, 77, MIB, 4096))
                magic, error, cookie = struct.unpack(">IIQ", copy.recv(16, socket.MSG_WAITALL))
                assert (magic, error, cookie) == (protocol.SIMPLE_REPLY, 0, 77)
                assert copy.recv(4096, socket.MSG_WAITALL) == truth[MIB : MIB + 4096]


def test_a_snapshot_inside_of_an_image_is_read_as_it_was(tmp_path: Path) -> None:
    disk = fill(create(tmp_path / "disk.qcow2", "qcow2", 8 * MIB), "qcow2")
    before = content(disk, "qcow2", tmp_path / "before")
    run("qemu-img", "snapshot", "-c", "monday", disk)
    write(disk, "qcow2", "write -P 66 0 4M")
    with serving(image_node(disk, "qcow2"), "disk", snapshot="monday") as served:
        assert all_read(served.address) == before


class TestTrueCauses:
    def test_a_missing_file(self, tmp_path: Path) -> None:
        gone = tmp_path / "gone.qcow2"
        with (
            pytest.raises(NotFound, match=str(gone)),
            serving(image_node(gone, "qcow2"), "disk 'vda'"),
        ):
            pass

    def test_a_missing_backing_file(self, disk: Path, tmp_path: Path) -> None:
        top = overlay(tmp_path / "top.qcow2", disk)
        node = image_node(top, "qcow2", backing=image_node(tmp_path / "gone.qcow2", "qcow2"))
        with pytest.raises(NotFound, match=r"gone\.qcow2"), serving(node, "disk 'vda'"):
            pass

    def test_a_disk_that_a_machine_has_open(self, disk: Path) -> None:
        with (
            serving(image_node(disk, "qcow2"), "disk 'vda'", writable=True),
            pytest.raises(Busy, match="'vda' is in use"),
            serving(image_node(disk, "qcow2"), "disk 'vda'"),
        ):
            pass

    def test_a_truncated_header(self, disk: Path) -> None:
        os.truncate(disk, 60)
        with (
            pytest.raises(DiskUnreadable, match="truncated"),
            serving(image_node(disk, "qcow2"), "disk 'vda'"),
        ):
            pass

    @pytest.mark.parametrize("claimed", ["vmdk", "vpc", "vhdx", "vdi"])
    def test_another_format_than_it_is_said_to_have(self, disk: Path, claimed: str) -> None:
        with (
            pytest.raises((DiskUnreadable, Unsupported), match="'vda'"),
            serving(image_node(disk, claimed), "disk 'vda'"),
        ):
            pass

    def test_an_encrypted_image(self, tmp_path: Path) -> None:
        disk = tmp_path / "disk.qcow2"
        secret = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=200"
        run(
            *("qemu-img", "create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=x"),
            *("-o", secret, disk, "1M"),
        )
        with (
            pytest.raises(Unsupported, match="encrypted"),
            serving(image_node(disk, "qcow2"), "disk 'vda'"),
        ):
            pass

    def test_a_driver_that_qemu_lacks(self, disk: Path) -> None:
        with (
            pytest.raises(Unsupported, match="do not know the format"),
            serving(image_node(disk, "nosuch"), "disk 'vda'"),
        ):
            pass

    def test_no_qemu_at_all(self, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nowhere")
        with (
            pytest.raises(Unsupported, match="no qemu-nbd") as caught,
            serving(image_node(disk, "qcow2"), "disk 'vda'"),
        ):
            pass
        assert "qemu-utils" in str(caught.value.hint)


def _running(words: str) -> bool:
    found = subprocess.run(["pgrep", "-f", words], capture_output=True, check=False)
    return found.returncode == 0


def test_what_is_in_the_first_bytes_of_a_raw_disk_is_not_believed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"the host's own" + bytes(512 - 14))
    raw = overlay(tmp_path / "guest.raw", secret, "raw")
    with serving(image_node(raw, "raw"), "disk") as served:
        found = all_read(served.address)
    assert found[:4] == b"QFI\xfb"
    assert b"the host's own" not in found


def test_a_header_is_not_followed_where_no_backing_file_was_given(tmp_path: Path) -> None:
    below = fill(create(tmp_path / "below.qcow2", "qcow2", MIB * 8), "qcow2")
    top = overlay(tmp_path / "top.qcow2", below)
    with serving(image_node(top, "qcow2"), "disk") as served:
        assert not any(all_read(served.address))


def test_an_error_inside_the_block_ends_the_process(disk: Path, tmp_path: Path) -> None:
    directory = tmp_path
    with contextlib.suppress(RuntimeError), serving(image_node(disk, "qcow2"), "disk") as served:
        directory = served.log.parent
        assert _running(str(directory))
        raise RuntimeError
    assert not _running(str(directory))
    assert not directory.exists()


def test_a_process_that_dies_is_told_of(disk: Path) -> None:
    with serving(image_node(disk, "qcow2"), "disk 'vda'") as served:
        connection = client.connect(served.address)
        served.check()
        run("pkill", "-KILL", "-f", f"^[^ ]*qemu-nbd.*{served.log.parent}")
        until(lambda: served.process.poll() is not None, "the end of qemu-nbd")
        with pytest.raises(Unreachable):
            connection.read(0, 512)
        with pytest.raises(HoldfastError, match="qemu-nbd ended with status 137"):
            served.check()
        connection.drop()


def test_a_backup_that_is_killed_takes_its_server_with_it(disk: Path) -> None:
    code = (
        "import sys, time\n"
        "from holdfast.sources.nbd.qemu_nbd import image_node, serving\n"
        f"with serving(image_node({str(disk)!r}, 'qcow2'), 'disk') as served:\n"
        "    print(served.log.parent, flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            directory = child.stdout.readline().strip()
            assert _running(directory)
            assert directory not in map(str, qemu_nbd.clear_leftovers())
        finally:
            child.send_signal(signal.SIGKILL)
    until(lambda: not _running(directory), "the end of qemu-nbd")
    assert directory in map(str, qemu_nbd.clear_leftovers())
    assert not os.path.exists(directory)


def test_a_socket_that_nobody_has_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such socket"):
        client.connect(Address("/nowhere/at/all"))
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1"):
        client.connect(Address(host="127.0.0.1", port=1))
    with pytest.raises(Unreachable):
        client.connect(Address("/" + "x" * 200))
