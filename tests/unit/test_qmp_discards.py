"""Of which disks a QEMU gives nothing back is read from its command line."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from holdfast.sources.machines.machine import Disk
from holdfast.sources.machines.qmp.devices import Device
from holdfast.sources.machines.qmp.discards import keeping

FILE_OF = Disk("vda", 1, "/d/a.qcow2", "qcow2")
DISK = Device(FILE_OF, "/machine/x", "#block1", "qcow2", True, (), False)
DRIVE = replace(DISK, drive="d0")
NODE = replace(DISK, node="top")
FILE = json.dumps({"driver": "file", "node-name": "low", "filename": "/d/a.qcow2"})
FILE_ON = json.dumps({"driver": "file", "node-name": "low", "discard": "unmap"})


@pytest.mark.parametrize(
    ("disk", "words", "keeps"),
    [
        (DRIVE, ["-drive", "if=none,id=d0,file=/d/a.qcow2"], True),
        (DRIVE, ["-drive", "if=none,id=d0,file=/d/a.qcow2,discard=unmap"], False),
        (DRIVE, ["-drive", "if=none,id=d0,discard=on"], False),
        (DRIVE, ["-drive", "if=none,id=d0,discard=ignore"], True),
        (DRIVE, ["-drive", "if=none,id=other", "-m", "32"], False),
        (replace(DISK, drive="virtio0"), ["-drive", "file=/d/a.qcow2,if=virtio"], True),
        (DISK, ["-drive", "if=none,id=d0"], False),
        (NODE, ["-blockdev", "qcow2,node-name=top,file.driver=file"], True),
        (NODE, ["-blockdev", "driver=qcow2,node-name=top,discard=unmap,file.driver=file"], False),
        (
            NODE,
            ["-blockdev", FILE, "-blockdev", '{"node-name":"top","discard":"unmap","file":"low"}'],
            True,
        ),
        (
            NODE,
            [
                "-blockdev",
                FILE_ON,
                "-blockdev",
                '{"node-name":"top","discard":"unmap","file":"low"}',
            ],
            False,
        ),
        (NODE, ["-blockdev", '{"node-name":"top","discard":"unmap","file":"top"}'], False),
        (NODE, ["-blockdev", "{broken", "-blockdev", "[]"], False),
        (replace(DRIVE, writable=False), ["-drive", "if=none,id=d0"], False),
    ],
)
def test_what_is_known_of_a_disk_is_told(disk: Device, words: list[str], keeps: bool) -> None:
    assert keeping([disk], ["qemu", *words]) == ["vda"] * keeps


def test_a_disk_that_is_not_backed_up_is_none() -> None:
    left_out = replace(DRIVE, disk=replace(FILE_OF, left_out="no size"))
    assert keeping([left_out], ["-drive", "if=none,id=d0"]) == []
