"""Content of disk files is read where it lies, and is what `qemu-img convert` reads.

Every byte is compared; and it is made sure of that content which lies there as it is does not go
through `qemu-nbd`, and that content in any other form does.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from holdfast.base.errors import (
    DiskUnreadable,
    HoldfastError,
    InputOutput,
    TooSlow,
    Unsupported,
)
from holdfast.engine import DiskSource
from holdfast.sources.machines.diskfiles.mapped import MappedDisk
from holdfast.sources.machines.providers import open_provider
from holdfast.sources.nbd import qemu_map
from holdfast.sources.nbd.qemu_map import LayerFiles, read_map
from holdfast.sources.nbd.qemu_nbd import file_node, image_node
from tests.kit.disk_images import MIB, content, create, fill, needs_qemu, overlay, run, write
from tests.kit.machine_providers import order, read

pytestmark = needs_qemu

SIZE = 8 * MIB


@pytest.fixture
def store(tmp_path: Path) -> Path:
    made = tmp_path / "store"
    made.mkdir()
    return made


def both(store: Path, scratch: Path, name: str = "web") -> tuple[bytes, int, int]:
    """What is read of a machine's only disk; how much of that in files, and how much is content."""
    provider = open_provider("diskfiles", str(store))
    (machine,) = (one for one in provider.machines() if one.name == name)
    with provider.snapshot(order(machine.uuid, scratch)) as frozen:
        (disk,) = frozen.disks
        assert isinstance(disk, MappedDisk)
        wanted = sum(length for _, length, kind in disk.map.ranges(1000) if kind == 1)
        found = read(disk)
        frozen.check()
        return found, disk.map.direct_bytes(), wanted


IN_PLACE = [
    ("qcow2", "qcow2", ()),
    ("qcow2", "qcow2", ("compat=0.10", "cluster_size=4k")),
    ("qcow2", "qcow2", ("extended_l2=on", "cluster_size=128k")),
    ("qcow2", "qcow2", ("preallocation=metadata",)),
    ("qcow2", "qcow2", ("preallocation=full",)),
    ("qcow2", "qcow2", ("lazy_refcounts=on",)),
    ("raw", "raw", ()),
    ("vmdk", "vmdk", ("subformat=monolithicSparse",)),
    ("vmdk", "vmdk", ("subformat=monolithicFlat",)),
    ("vhd", "vpc", ("subformat=dynamic", "force_size=on")),
    ("vhd", "vpc", ("subformat=fixed", "force_size=on")),
    ("vdi", "vdi", ()),
]


@pytest.mark.parametrize(("suffix", "image_format", "options"), IN_PLACE)
def test_content_that_lies_in_a_file_as_it_is_is_read_there(
    store: Path, tmp_path: Path, suffix: str, image_format: str, options: tuple[str, ...]
) -> None:
    path = fill(create(store / f"web.{suffix}", image_format, SIZE, *options), image_format)
    found, direct, wanted = both(store, tmp_path)
    assert found == content(path, image_format, tmp_path / "raw")
    assert direct == wanted > MIB // 2


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("qcow2", ("-c",)),
        ("qcow2", ("-c", "-o", "compression_type=zstd")),
        ("vmdk", ("-o", "subformat=streamOptimized")),
        ("vhdx", ("-o", "subformat=dynamic")),
    ],
)
def test_content_in_another_form_is_read_by_qemu(
    store: Path, tmp_path: Path, suffix: str, options: tuple[str, ...]
) -> None:
    raw = fill(create(tmp_path / "disk.raw", "raw", SIZE), "raw")
    run("qemu-img", "convert", "-f", "raw", "-O", suffix, *options, raw, store / f"web.{suffix}")
    found, direct, wanted = both(store, tmp_path)
    assert found == raw.read_bytes()
    assert direct == 0 < wanted


def test_a_disk_of_every_kind_of_cluster_is_read_each_where_it_lies(
    store: Path, tmp_path: Path
) -> None:
    # Compressed beneath; plain, zeroed, discarded and overwritten above; a snapshot inside.
    random_bytes = tmp_path / "random.raw"
    random_bytes.write_bytes(random.Random(4).randbytes(SIZE - 512))
    base = store / "base.qcow2"
    run(*("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c"), random_bytes, base)
    write(base, "qcow2", "write -P 9 1M 300k", "write -z 2M 128k")
    middle = overlay(store / "middle.qcow2", base, "qcow2", "extended_l2=on")
    write(middle, "qcow2", "write -P 10 1100k 6k", "write -P 11 3M 1M", "write -z 3500k 4k")
    run("qemu-img", "snapshot", "-c", "monday", middle)
    write(middle, "qcow2", "write -P 12 3200k 64k", "discard 3M 64k")
    top = overlay(store / "web.qcow2", middle, "qcow2", "cluster_size=512")
    run("qemu-img", "resize", "-q", "-f", "qcow2", top, str(SIZE + 3 * MIB + 512))
    write(top, "qcow2", "write -P 13 511 1026", "write -P 14 8300k 200k", "write -z 5M 1000")
    found, direct, wanted = both(store, tmp_path)
    assert found == content(top, "qcow2", tmp_path / "raw")
    assert MIB < direct < wanted


def test_content_in_a_file_of_its_own_is_read_there(store: Path, tmp_path: Path) -> None:
    for raw in ("on", "off"):
        path = store / "web.qcow2"
        data = f"data_file={store / f'{raw}.data'},data_file_raw={raw}"
        run("qemu-img", "create", "-q", "-f", "qcow2", "-o", data, path, SIZE)
        fill(path, "qcow2")
        found, direct, wanted = both(store, tmp_path)
        assert found == content(path, "qcow2", tmp_path / "raw")
        assert direct == wanted > MIB // 2


def test_a_file_of_content_that_is_truncated_is_named(store: Path, tmp_path: Path) -> None:
    path = store / "web.qcow2"
    data = store / "web.data"
    options = f"data_file={data},data_file_raw=off"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, SIZE)
    fill(path, "qcow2")
    os.truncate(data, MIB // 2)
    with pytest.raises(DiskUnreadable, match=f"'{data}' is truncated: it has 524288 bytes"):
        both(store, tmp_path)


def test_parts_of_a_flat_disk_begin_where_their_descriptor_says(
    store: Path, tmp_path: Path
) -> None:
    noise = random.Random(5).randbytes(6 * MIB)
    (store / "one.flat").write_bytes(noise[: 3 * MIB])
    (store / "two.flat").write_bytes(noise[3 * MIB :])
    half = 2 * MIB // 512
    (store / "web.vmdk").write_text(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
        'createType="twoGbMaxExtentFlat"\n'
        f'RW {half} FLAT "one.flat" 8\nRW {half} FLAT "two.flat" 2048\n'
        'ddb.adapterType = "ide"\n'
    )
    found, direct, _ = both(store, tmp_path)
    assert found == content(store / "web.vmdk", "vmdk", tmp_path / "raw")
    assert found == noise[4096 : 4096 + 2 * MIB] + noise[4 * MIB : 6 * MIB]
    assert direct == 4 * MIB


def test_the_end_of_a_raw_file_of_odd_length_is_read(store: Path, tmp_path: Path) -> None:
    noise = random.Random(6).randbytes(MIB + 1234)
    (store / "web.raw").write_bytes(noise)
    found, direct, _ = both(store, tmp_path)
    assert found == noise + bytes(-len(noise) % 512)
    assert MIB <= direct <= len(noise)


def test_the_last_cluster_may_be_cut_where_nothing_was_written(store: Path, tmp_path: Path) -> None:
    path = write(create(store / "web.qcow2", "qcow2", SIZE), "qcow2", "write -P 7 0 128k")
    os.truncate(path, path.stat().st_size - 1000)
    found, direct, _ = both(store, tmp_path)
    assert found == content(path, "qcow2", tmp_path / "raw")
    assert 64 * 1024 < direct < 128 * 1024


def test_many_small_ranges_are_read_right(store: Path, tmp_path: Path) -> None:
    path = create(store / "web.qcow2", "qcow2", SIZE, "cluster_size=4k")
    made = random.Random(7)
    places = made.sample(range(SIZE // 4096), 500)
    write(path, "qcow2", *(f"write -P {1 + at % 200} {at * 4096} 4k" for at in places))
    found, direct, wanted = both(store, tmp_path)
    assert found == content(path, "qcow2", tmp_path / "raw")
    assert direct == wanted == 500 * 4096


class TestQemuImg:
    def test_damaged_tables_end_in_words(self, store: Path) -> None:
        path = fill(create(store / "web.qcow2", "qcow2", SIZE), "qcow2")
        with path.open("r+b") as file:
            # The first table's entry of level 1 leads to an odd place.
            file.seek(40)
            file.seek(int.from_bytes(file.read(8), "big"))
            file.write((0x8000_0000_0000_0000 | 0x3_0200).to_bytes(8, "big"))
        with pytest.raises(HoldfastError, match="disk") as caught:
            read_map(image_node(path, "qcow2"), "disk", SIZE, [LayerFiles(((path, SIZE),), 0)])
        assert "not understood" not in caught.value.message

    def test_a_map_of_another_size_is_not_believed(self, store: Path) -> None:
        path = fill(create(store / "web.qcow2", "qcow2", SIZE), "qcow2")
        layers = [LayerFiles(((path, SIZE),), 0)]
        for size in (SIZE - 512, SIZE + 512):
            with pytest.raises(Unsupported, match="not understood"):
                read_map(image_node(path, "qcow2"), "disk", size, layers)

    @pytest.mark.parametrize(
        ("script", "kind", "said"),
        [
            ("echo '[{'; exit 0", Unsupported, "not understood"),
            ("while echo '[nonsense'; do :; done", Unsupported, "not understood"),
            ("echo '['; exit 3", InputOutput, "status 3"),
            ("kill -KILL $$", InputOutput, "status 137"),
            ("echo 'qemu-img: Could not read L2 table' >&2; exit 1", DiskUnreadable, "L2 table"),
        ],
    )
    def test_a_program_that_fails_is_told_of(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        script: str,
        kind: type[HoldfastError],
        said: str,
    ) -> None:
        stand_in(tmp_path, monkeypatch, script)
        with pytest.raises(kind, match=said):
            read_map(file_node(tmp_path / "disk"), "disk", SIZE, [])

    def test_one_that_hangs_is_ended_when_nobody_waits_any_more(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stand_in(tmp_path, monkeypatch, f"echo $$ > {tmp_path}/pid; exec sleep 600")

        def alive() -> None:
            raise KeyboardInterrupt

        node = file_node(tmp_path / "disk")
        with pytest.raises(KeyboardInterrupt):
            read_map(node, "disk", SIZE, [], alive)
        with pytest.raises(TooSlow, match=r"within 0\.1 seconds"):
            read_map(node, "disk", SIZE, [], timeout_s=0.1)
        until = time.monotonic() + 10
        while Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists():
            assert time.monotonic() < until
            time.sleep(0.01)


def stand_in(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A program in the place of qemu-img, which does what the real one can't be made to do."""
    program = directory / "qemu-img"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(qemu_map, "program", lambda _: str(program))


def test_what_is_smaller_than_its_map_is_refused(tmp_path: Path) -> None:
    path = fill(create(tmp_path / "web.raw", "raw", SIZE), "raw")
    (small := tmp_path / "small.raw").write_bytes(bytes(512))
    found = read_map(image_node(path, "raw"), "disk", SIZE, [LayerFiles(((path, SIZE),), None)])
    source = DiskSource.mapped(found, DiskSource.file(str(path)))
    assert source.read_at(MIB, 10) == path.read_bytes()[MIB : MIB + 10]
    with pytest.raises(HoldfastError, match="8388608 bytes, and there are 512"):
        DiskSource.mapped(found, DiskSource.file(str(small)))
