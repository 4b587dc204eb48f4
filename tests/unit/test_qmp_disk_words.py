"""A command line of QEMU is told of new disks, in each way in which it may name them."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.base.errors import Unsupported
from holdfast.sources.machines.machine import Disk
from holdfast.sources.machines.new_disks import NewDisk
from holdfast.sources.machines.qmp.disk_words import with_disk

OLD = "/srv/web.qcow2"


def changed(image_format: str, *words: str, old_format: str = "qcow2") -> list[str]:
    disk = Disk("vda", 1 << 20, OLD, old_format)
    made = NewDisk(disk, Path(f"/new/vda.{image_format}"), image_format)
    return with_disk(["qemu-system-x86_64", *words, "-S"], made, OLD, old_format)[1:-1]


@pytest.mark.parametrize("image_format", ["raw", "vmdk", "vhdx", "vdi"])
@pytest.mark.parametrize(
    ("option", "word", "expected"),
    [
        ("-drive", "if=none,file={},format=qcow2,id=d0", "if=none,file={},format={f},id=d0"),
        ("--drive", "file={},driver=qcow2,cache=none", "file={},driver={f},cache=none"),
        ("-drive", "file.filename={},format=qcow2", "file.filename={},format={f}"),
        ("-drive", "file={},if=virtio", "file={},if=virtio,format={f}"),
        (
            "-drive",
            "file={},format=qcow2,id=a,,b,cache-size=1M,overlap-check.template=all,discard=unmap",
            "file={},format={f},id=a,,b,discard=unmap",
        ),
        (
            "-blockdev",
            "driver=qcow2,node-name=n0,file.driver=file,file.filename={},file.aio=native",
            "driver={f},node-name=n0,file.driver=file,file.filename={},file.aio=native",
        ),
        (
            "-blockdev",
            "qcow2,node-name=n0,file.driver=file,file.filename={}",
            "driver={f},node-name=n0,file.driver=file,file.filename={}",
        ),
        (
            "-blockdev",
            (
                '{"driver": "qcow2", "node-name": "n0", "cache": {"direct": true}, '
                '"backing": null, "file": {"driver": "file", "filename": "{}"}, '
                '"lazy-refcounts": true}'
            ),
            (
                '{"driver": "{f}", "node-name": "n0", "cache": {"direct": true}, '
                '"file": {"driver": "file", "filename": "{}"}}'
            ),
        ),
        (
            "-blockdev",
            (
                '{"driver": "copy-on-read", "node-name": "c0", "file": {"driver": "qcow2", '
                '"file": {"driver": "file", "filename": "{}"}}}'
            ),
            (
                '{"driver": "copy-on-read", "node-name": "c0", "file": {"driver": "{f}", '
                '"file": {"driver": "file", "filename": "{}"}}}'
            ),
        ),
    ],
)
def test_the_format_is_changed_where_it_is_said(
    image_format: str, option: str, word: str, expected: str
) -> None:
    given = word.replace("{}", OLD)
    wanted = expected.replace("{}", f"/new/vda.{image_format}").replace("{f}", image_format)
    assert changed(image_format, option, given) == [option, wanted]


def test_a_node_of_the_file_alone_is_found_by_what_names_it() -> None:
    words = [
        *("-blockdev", '{"driver":"qcow2","node-name":"other","file":"f1"}'),
        *("-blockdev", f"driver=file,node-name=f0,filename={OLD}"),
        *("-blockdev", "driver=qcow2,node-name=n0,file=f0,cache-size=4M"),
        *("-device", "virtio-blk-pci,drive=n0"),
    ]
    assert changed("vmdk", *words) == [
        *words[:2],
        *("-blockdev", "driver=file,node-name=f0,filename=/new/vda.vmdk"),
        *("-blockdev", "driver=vmdk,node-name=n0,file=f0"),
        *words[6:],
    ]


def test_the_words_stay_where_the_format_does() -> None:
    word = "if=none,file={},format=qcow2,id=d0,l2-cache-size=1M"
    assert changed("qcow2", "-drive", word.format(OLD)) == ["-drive", word.format("/new/vda.qcow2")]
    word = '{"driver":"qcow2","file":{"driver":"file","filename":"%s"},"node-name":"n"}'
    assert changed("qcow2", "-blockdev", word % OLD) == ["-blockdev", word % "/new/vda.qcow2"]


def test_nothing_of_the_old_disk_is_read_through_the_new_one() -> None:
    word = f"driver=qcow2,file.driver=file,file.filename={OLD},node-name=n,backing.driver=qcow2"
    word += ",backing.file.driver=file,backing.file.filename=/srv/base.qcow2,data-file=other"
    told = "driver=qcow2,file.driver=file,file.filename=/new/vda.qcow2,node-name=n"
    assert changed("qcow2", "-blockdev", word) == ["-blockdev", told]
    part = f"file={OLD},format=raw,offset=1048576,size=1048576,if=none"
    told = "file=/new/vda.raw,format=raw,if=none"
    assert changed("raw", "-drive", part, old_format="raw") == ["-drive", told]


def test_what_is_not_understood_is_refused() -> None:
    with pytest.raises(Unsupported, match="does not name the file of disk 'vda'"):
        changed("vmdk", "-drive", "file=/srv/other.qcow2,format=qcow2")
    nested = 'file=json:{"driver":"qcow2",,"file":{"driver":"file",,"filename":"%s"}}'
    for option, word in (
        ("-drive", nested % OLD),
        ("-blockdev", f"driver=quorum,children.0.filename={OLD}"),
        ("-blockdev", f'{{"driver":"qcow2","file":{{"filename":"{OLD}"}}'),
    ):
        with pytest.raises(Unsupported, match="from qcow2 to vmdk") as caught:
            changed("vmdk", option, word)
        assert "restore with the format qcow2" in str(caught.value.hint)
    with pytest.raises(Unsupported) as caught:
        changed("vmdk", "-blockdev", f"driver=file,node-name=n0,filename={OLD}", old_format="file")
    assert caught.value.hint == "restore its disks to a directory"
