"""The NBD server with real clients: qemu's programs, nbdinfo, and our own client."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.base.errors import HoldfastError, InputOutput, NoPermission, NotFound
from holdfast.sources.nbd import client, protocol
from holdfast.sources.nbd.server import shown
from holdfast.sources.nbd.wire import Address
from tests.kit.disk_images import MIB, needs_nbdinfo, needs_qemu, run
from tests.kit.served import until
from tests.kit.shown_disks import MemoryDisk, spotted, stored_disk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.engine import FileReader
    from holdfast.sources.nbd.offers import Readable

DISK = spotted(8 * MIB + 512)


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Address:
    return Address(str(tmp_path_factory.mktemp("n") / "s"))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> FileReader:
    """The disk in an image, whose clients the engine answers."""
    return stored_disk(tmp_path_factory.mktemp("stored"), DISK)


@pytest.fixture(params=["by itself", "by the engine"])
def one(request: pytest.FixtureRequest, place: Address) -> Iterator[Address]:
    disk: Readable = MemoryDisk(DISK)
    if request.param == "by the engine":
        disk = request.getfixturevalue("stored")
    with shown({"web/vda": disk}, place) as address:
        yield address


@needs_qemu
def test_qemu_img_copies_it(one: Address, tmp_path: Path) -> None:
    copy = tmp_path / "copy.raw"
    for url in (f"nbd+unix:///?socket={one.path}", f"nbd+unix:///web/vda?socket={one.path}"):
        run("qemu-img", "convert", "-f", "raw", "-O", "raw", url, copy)
        assert copy.read_bytes() == DISK
        assert copy.stat().st_blocks * 512 < len(DISK) // 2


@needs_qemu
def test_qemu_img_compares_it_and_maps_it(one: Address, tmp_path: Path) -> None:
    raw = tmp_path / "truth.raw"
    raw.write_bytes(DISK)
    url = f"nbd+unix:///?socket={one.path}"
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", url, raw)
    found = json.loads(run("qemu-img", "map", "--output=json", "-f", "raw", url))
    said = [(part["start"], part["start"] + part["length"]) for part in found if part["data"]]
    for begin, end in said:
        # Images know holes of 64 KiB.
        assert any(DISK[begin : begin + 65536])
        assert any(DISK[end - 65536 : end])
    assert sum(end - begin for begin, end in said) < len(DISK)


@needs_qemu
def test_qemu_io_reads_anywhere_and_writes_nowhere(one: Address) -> None:
    url = f"nbd+unix:///?socket={one.path}"
    run("qemu-io", "-r", "-f", "raw", "-c", "read -P 1 1024 4096", "-c", "read -P 0 100k 64k", url)
    said = run("qemu-io", "-r", "-f", "raw", "-c", f"read {len(DISK) - 512} 512", url)
    assert "read 512/512" in said


@needs_qemu
def test_a_machine_may_write_over_it_into_a_file_of_its_own(one: Address, tmp_path: Path) -> None:
    over = tmp_path / "over.qcow2"
    backing = f"nbd+unix:///?socket={one.path}"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", backing, "-F", "raw", over)
    run("qemu-io", "-f", "qcow2", "-c", "write -P 200 0 1M", over)
    copy = tmp_path / "copy.raw"
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", over, copy)
    assert copy.read_bytes() == b"\xc8" * MIB + DISK[MIB:]


@needs_nbdinfo
def test_nbdinfo_understands_all_that_is_said(place: Address) -> None:
    disks = {"one": MemoryDisk(DISK), "two": MemoryDisk(bytes(MIB)), "": MemoryDisk(b"x" * 512)}
    with shown(disks, place) as address:
        url = f"nbd+unix://{{}}?socket={address.path}"
        listed = json.loads(run("nbdinfo", "--json", "--list", url.format("")))
        assert {each["export-name"] for each in listed["exports"]} == set(disks)
        (told,) = json.loads(run("nbdinfo", "--json", url.format("/one")))["exports"]
        assert told["export-size"] == len(DISK)
        assert told["is_read_only"]
        assert told["can_multi_conn"]
        assert told["can_df"]
        assert told["contexts"] == ["base:allocation"]
        found = json.loads(run("nbdinfo", "--map", "--json", url.format("/two")))
        assert [(part["offset"], part["length"], part["type"]) for part in found] == [(0, MIB, 3)]


def test_tcp_is_spoken_too() -> None:
    with shown({"": MemoryDisk(DISK)}, Address(host="127.0.0.1", port=0)) as address:
        assert address.port
        connection = client.connect(address)
        assert connection.read(0, len(DISK)) == DISK
        connection.close()


def test_several_exports_are_told_apart(place: Address) -> None:
    disks = {name: MemoryDisk(name.encode() * 512) for name in ("one", "two", "über/alles")}
    with shown(disks, place) as address:
        assert client.list_exports(address) == list(disks)
        for name, disk in disks.items():
            connection = client.connect(address, name)
            assert connection.read(0, disk.size) == disk.content
            connection.close()
        for missing in ("", "three"):
            with pytest.raises(NotFound):
                client.connect(address, missing)


@pytest.mark.parametrize("structured", [True, False])
def test_any_range_is_read_as_it_is(one: Address, structured: bool) -> None:
    connection = client.connect(one, structured=structured)
    for offset, length in ((0, 1), (999, 2), (69_999, 2), (295_000, 80_000), (len(DISK) - 1, 1)):
        assert connection.read(offset, length) == DISK[offset : offset + length]
    assert connection.read(0, len(DISK)) == DISK
    connection.close()


def test_what_is_allocated_is_told_for_what_was_asked(one: Address) -> None:
    connection = client.connect(one, contexts=[protocol.ALLOCATION])
    (found,) = connection.block_status().values()
    assert sum(part.length for part in found) == len(DISK)
    for part in found:
        if part.flags:
            assert not any(DISK[part.offset : part.offset + part.length])
    assert any(part.flags == protocol.HOLE | protocol.ZERO for part in found)
    connection.close()


def test_holes_do_not_travel(place: Address) -> None:
    disk = MemoryDisk(bytes(16 * MIB) + b"x" * 4096)
    with shown({"": disk}, place) as address:
        connection = client.connect(address)
        assert connection.read(0, disk.size) == disk.content
        connection.close()
    assert disk.reads == [(16 * MIB, 4096)]


def test_many_clients_read_at_once(one: Address) -> None:
    def read_all(number: int) -> bool:
        connection = client.connect(one, structured=bool(number % 2))
        step = 100_000 + number
        found = b"".join(
            bytes(connection.read(at, min(step, len(DISK) - at)))
            for at in range(0, len(DISK), step)
        )
        connection.close()
        return found == DISK

    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(read_all, range(24)))


def test_a_quick_request_does_not_wait_for_a_slow_one(place: Address) -> None:
    slow, quick = MemoryDisk(b"s" * 4096), MemoryDisk(b"q" * 4096)
    slow.may_go.clear()
    with shown({"slow": slow, "quick": quick}, place) as address:
        first = client.connect(address, "slow")
        waiting = threading.Thread(target=first.read, args=(0, 4096))
        waiting.start()
        until(lambda: slow.reads, "the slow read to begin")
        second = client.connect(address, "quick")
        assert second.read(0, 4096) == quick.content
        slow.may_go.set()
        waiting.join()
        first.close()
        second.close()


@pytest.mark.parametrize("structured", [True, False])
def test_what_can_not_be_read_is_an_error_and_the_rest_goes_on(
    place: Address, structured: bool
) -> None:
    disk = MemoryDisk(b"x" * MIB)
    disk.bad = range(4096, 8192)
    told: list[tuple[str, Exception]] = []
    with shown(
        {"vda": disk}, place, troubled=lambda name, error: told.append((name, error))
    ) as address:
        connection = client.connect(address, structured=structured)
        with pytest.raises(InputOutput, match="EIO"):
            connection.read(0, MIB)
        assert connection.read(8192, 4096) == b"x" * 4096
        connection.close()
    assert [name for name, _ in told] == ["vda"]
    assert "a bad sector" in str(told[0][1])


@pytest.mark.parametrize("structured", [True, False])
def test_what_a_damaged_pool_lacks_is_an_error_and_told(
    place: Address, tmp_path: Path, structured: bool
) -> None:
    disk = stored_disk(tmp_path, os.urandom(MIB))
    for pack in (tmp_path / "pool" / "packs").glob("*/*"):
        pack.chmod(0o600)
        pack.write_bytes(bytes(pack.stat().st_size))
    told: list[tuple[str, Exception]] = []
    with shown(
        {"vda": disk}, place, troubled=lambda name, error: told.append((name, error))
    ) as address:
        connection = client.connect(address, structured=structured)
        for _ in range(2):
            with pytest.raises(InputOutput, match="EIO"):
                connection.read(0, MIB)
        connection.close()
    assert [name for name, _ in told] == ["vda", "vda"]
    assert isinstance(told[0][1], HoldfastError)


def test_a_disk_that_hands_back_too_little_is_an_error(place: Address) -> None:
    disk = MemoryDisk(b"x" * MIB)
    disk.content = disk.content[:-1]
    with shown({"": disk}, place) as address:
        connection = client.connect(address)
        with pytest.raises(InputOutput, match="only 4095 of 4096"):
            connection.read(MIB - 4096, 4096)
        connection.close()


def test_nothing_is_written(one: Address) -> None:
    connection = client.connect(one)
    with pytest.raises(NoPermission):
        connection.write(0, b"x")
    connection.flush()
    assert connection.read(1000, 1) == b"\x01"
    connection.close()


def test_a_socket_is_for_this_user_alone_and_goes(place: Address) -> None:
    assert place.path is not None
    with shown({"": MemoryDisk(DISK)}, place):
        assert os.stat(place.path).st_mode & 0o777 == 0o600
        with pytest.raises(HoldfastError, match="listen"), shown({}, place):
            pass
    assert not Path(place.path).exists()


@pytest.mark.parametrize("by_the_engine", [False, True])
def test_clients_are_left_when_it_is_closed(
    place: Address, stored: FileReader, by_the_engine: bool
) -> None:
    disk: Readable = stored if by_the_engine else MemoryDisk(DISK)
    with shown({"": disk}, place) as address:
        connection = client.connect(address)
        idle = socket.socket(socket.AF_UNIX)
        idle.connect(str(address.path))
    with pytest.raises(HoldfastError):
        connection.read(0, 1)
    connection.drop()
    idle.close()
    assert not [each for each in threading.enumerate() if each.name.startswith("nbd")]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8 * MIB), st.integers(1, 400_000)), max_size=8))
def test_all_ranges_are_right_whatever_is_asked(asked: list[tuple[int, int]]) -> None:
    disk = MemoryDisk(DISK)
    with shown({"": disk}, Address(host="127.0.0.1", port=0)) as address:
        connection = client.connect(address, contexts=[protocol.ALLOCATION])
        for offset, wanted in asked:
            length = min(wanted, len(DISK) - offset)
            assert connection.read(offset, length) == DISK[offset : offset + length]
            (found,) = connection.block_status(offset, length).values()
            assert sum(part.length for part in found) == length
            for part in found:
                if part.flags & protocol.ZERO:
                    assert not any(DISK[part.offset : part.offset + part.length])
        connection.close()


def raw_client(address: Address) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(30)
    made.connect(str(address.path))
    return made


def agreed(address: Address) -> socket.socket:
    """A client past its agreement, by the old way."""
    made = raw_client(address)
    assert len(made.recv(18, socket.MSG_WAITALL)) == 18
    made.sendall(struct.pack(">I", 3) + protocol.OPTION.pack(protocol.IHAVEOPT, 1, 0))
    size, flags = struct.unpack(">QH", made.recv(10, socket.MSG_WAITALL))
    assert size == len(DISK)
    assert flags & protocol.Flags.READ_ONLY
    return made


def test_answers_do_not_mix_however_many_are_under_way(one: Address) -> None:
    asked = {
        cookie: (cookie * 7919 % (len(DISK) - MIB), 1 + cookie * 104_729 % MIB)
        for cookie in range(300)
    }
    with agreed(one) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        said = b"".join(request(0, *about, cookie) for cookie, about in asked.items())
        sending = threading.Thread(target=made.sendall, args=(said,))
        sending.start()
        with made.makefile("rb") as answers:
            for _ in range(len(asked)):
                magic, error, cookie = protocol.SIMPLE_HEADER.unpack(answers.read(16))
                assert (magic, error) == (protocol.SIMPLE_REPLY, 0)
                offset, length = asked.pop(cookie)
                assert answers.read(length) == DISK[offset : offset + length]
        sending.join()


def request(command: int, offset: int, length: int, cookie: int = 1) -> bytes:
    return protocol.REQUEST_HEADER.pack(protocol.REQUEST, 0, command, cookie, offset, length)


class TestHostileClients:
    def still_works(self, address: Address) -> None:
        connection = client.connect(address)
        assert connection.read(1000, 4096) == DISK[1000:5096]
        connection.close()

    @pytest.mark.parametrize(
        "said",
        [
            b"",
            b"GET / HTTP/1.1\r\n\r\n" * 100,
            struct.pack(">I", 0),
            struct.pack(">I", 0xFFFFFFFF),
            struct.pack(">I", 3) + b"\0" * 64,
            struct.pack(">I", 3) + protocol.OPTION.pack(protocol.IHAVEOPT, 7, 0xFFFFFFFF),
            struct.pack(">I", 3) + protocol.OPTION.pack(protocol.IHAVEOPT, 1, 3) + b"no!",
            struct.pack(">I", 3) + protocol.OPTION.pack(protocol.IHAVEOPT, 99, 0) * 300,
        ],
    )
    def test_rubbish_before_an_export_ends_the_connection(self, one: Address, said: bytes) -> None:
        with raw_client(one) as made:
            made.sendall(said)
            if said == b"":
                made.shutdown(socket.SHUT_WR)
            while made.recv(65536):
                pass
        self.still_works(one)

    @pytest.mark.parametrize("option", [3, 6, 7, 8, 9, 10])
    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\0",
            b"\xff\xff\xff\xff",
            struct.pack(">I", 4000) + b"x" * 10,
            struct.pack(">II", 0, 0xFFFFFFFF),
            struct.pack(">III", 0, 1, 0xFFFFFFFF),
            struct.pack(">I", 3) + b"\xff\xfe\xfd" + struct.pack(">I", 0),
        ],
    )
    def test_options_that_are_not_whole_are_answered(
        self, one: Address, option: int, data: bytes
    ) -> None:
        with raw_client(one) as made:
            made.recv(18, socket.MSG_WAITALL)
            abort = protocol.OPTION.pack(protocol.IHAVEOPT, 2, 0)
            asked = protocol.OPTION.pack(protocol.IHAVEOPT, option, len(data)) + data
            made.sendall(struct.pack(">I", 3) + asked + abort)
            heard = b""
            while more := made.recv(65536):
                heard += more
            magic, about, _, _ = protocol.OPTION_ANSWER.unpack_from(heard)
            assert (magic, about) == (protocol.OPTION_REPLY, option)
        self.still_works(one)

    @pytest.mark.parametrize(
        ("command", "offset", "length", "error"),
        [
            (0, len(DISK), 1, protocol.Failure.EINVAL),
            (0, 0, 33 * MIB, protocol.Failure.EINVAL),
            (0, 0xFFFFFFFFFFFFFFFF, 0xFFFFFFFF, protocol.Failure.EINVAL),
            (0, 0, 0, protocol.Failure.EINVAL),
            (1, 0, 0, protocol.Failure.EPERM),
            (4, 0, 512, protocol.Failure.EPERM),
            (6, 0, 512, protocol.Failure.EPERM),
            (7, 0, 512, protocol.Failure.EINVAL),
            (77, 0, 512, protocol.Failure.EINVAL),
        ],
    )
    def test_requests_that_can_not_be_are_refused(
        self, one: Address, command: int, offset: int, length: int, error: int
    ) -> None:
        with agreed(one) as made:
            made.sendall(request(command, offset, length, 9))
            answer = protocol.SIMPLE_HEADER.unpack(made.recv(16, socket.MSG_WAITALL))
            assert answer == (protocol.SIMPLE_REPLY, error, 9)
            made.sendall(request(0, 1000, 8, 10))
            assert made.recv(24, socket.MSG_WAITALL)[16:] == DISK[1000:1008]

    def test_what_was_to_be_written_is_thrown_away(self, one: Address) -> None:
        with agreed(one) as made:
            made.sendall(request(1, 0, 4 * MIB) + b"w" * 4 * MIB)
            answer = protocol.SIMPLE_HEADER.unpack(made.recv(16, socket.MSG_WAITALL))
            assert answer[1] == protocol.Failure.EPERM
        with agreed(one) as made:
            made.sendall(request(1, 0, 0xFFFFFFFF))
            assert made.recv(1) == b""
        self.still_works(one)

    def test_one_that_asks_and_never_takes_keeps_nobody_else_waiting(self, one: Address) -> None:
        with agreed(one) as greedy:
            greedy.settimeout(0.5)
            asked = b"".join(request(0, 0, 8 * MIB, each) for each in range(100_000))
            with pytest.raises(TimeoutError):
                greedy.sendall(asked)
            self.still_works(one)

    def test_one_that_says_nothing_is_left(self, place: Address) -> None:
        with (
            shown({"": MemoryDisk(DISK)}, place, handshake_s=0.2) as address,
            raw_client(address) as made,
        ):
            assert made.recv(18, socket.MSG_WAITALL)
            assert made.recv(1) == b""

    def test_more_than_are_wanted_are_turned_away(self, place: Address) -> None:
        with shown({"": MemoryDisk(DISK)}, place, clients=2) as address:
            first, second = client.connect(address), client.connect(address)
            with raw_client(address) as third:
                assert third.recv(1) == b""
            assert first.read(0, 10) == second.read(0, 10) == DISK[:10]
            first.close()
            until(lambda: self._can_connect(address), "the place that got free")
            second.close()

    def _can_connect(self, address: Address) -> bool:
        try:
            client.connect(address).close()
        except HoldfastError:
            return False
        return True

    def test_one_that_goes_while_it_is_answered_is_no_trouble(self, place: Address) -> None:
        disk = MemoryDisk(DISK)
        disk.may_go.clear()
        with shown({"": disk}, place) as address:
            with agreed(address) as made:
                made.sendall(b"".join(request(0, 0, 4 * MIB, each) for each in range(8)))
                until(lambda: len(disk.reads) >= 4, "reads")
            disk.may_go.set()
            self.still_works(address)

    @settings(max_examples=60, deadline=None)
    @given(st.binary(max_size=200), st.booleans())
    def test_rubbish_of_any_kind_leaves_the_server_well(self, said: bytes, late: bool) -> None:
        with shown({"": MemoryDisk(DISK)}, Address(host="127.0.0.1", port=0)) as address:
            with socket.create_connection((address.host, address.port), timeout=30) as made:
                made.recv(18, socket.MSG_WAITALL)
                made.sendall(struct.pack(">I", 3) if late else b"")
                made.sendall(said)
                made.shutdown(socket.SHUT_WR)
                try:
                    while made.recv(65536):
                        pass
                except ConnectionResetError:
                    assert said
            self.still_works(address)
