"""What an image of a machine says of it, and which of its ranges a backup may take over."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import IntegrityError, NewerFormat, PathMissing
from holdfast.movers.machines.record import (
    MAX_RECORD_BYTES,
    Record,
    disk_path,
    read_definitions,
    read_record,
)
from holdfast.sources.machines.machine import Disk, Machine, State

MACHINE = Machine(
    uuid="6d1f2f9e-92a4-4f7c-9a4c-0e52c9f8a001",
    name="web1",
    host="kvm1",
    state=State.RUNNING,
    disks=(Disk("vda", 1 << 30, "/var/lib/libvirt/images/web1.qcow2", "qcow2"),),
)


@dataclass(frozen=True)
class Stored:
    """A file in memory."""

    data: bytes
    claimed: int | None = None

    @property
    def size(self) -> int:
        return len(self.data) if self.claimed is None else self.claimed

    def read_at(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


@given(
    checkpoint=st.none() | st.text(),
    quiesced=st.booleans(),
    names=st.lists(st.from_regex(r"[a-z]{1,8}\.xml", fullmatch=True), max_size=3),
)
def test_a_record_is_read_as_it_was_written(
    checkpoint: str | None, quiesced: bool, names: list[str]
) -> None:
    record = Record(MACHINE, checkpoint, quiesced, tuple(names))
    assert Record.from_bytes(record.to_bytes()) == record


@given(data=st.binary(max_size=200))
def test_what_is_no_record_is_damaged(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        Record.from_bytes(data)


@given(
    plain=st.recursive(
        st.none() | st.booleans() | st.integers(max_value=1) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["version", "machine", "checkpoint", "quiesced", "definitions"]),
                inner,
            )
        ),
        max_leaves=12,
    )
)
def test_json_that_is_no_record_is_damaged(plain: object) -> None:
    with pytest.raises(IntegrityError):
        Record.from_bytes(json.dumps(plain).encode())


def test_a_record_of_a_later_version_asks_for_an_update() -> None:
    plain = json.loads(Record(MACHINE, None, False).to_bytes())
    plain["version"] = 2
    with pytest.raises(NewerFormat, match="version 2"):
        Record.from_bytes(json.dumps(plain).encode())


@pytest.mark.parametrize("name", ["../etc/passwd", "..", ".", "", "a/b", 3])
def test_a_definition_is_named_by_a_plain_name(name: object) -> None:
    plain = json.loads(Record(MACHINE, None, False).to_bytes())
    plain["definitions"] = [name]
    with pytest.raises(IntegrityError):
        Record.from_bytes(json.dumps(plain).encode())


def test_a_record_that_is_too_large_is_not_read() -> None:
    with pytest.raises(IntegrityError, match=str(MAX_RECORD_BYTES + 1)):
        read_record(lambda _: Stored(b"", claimed=MAX_RECORD_BYTES + 1))


def test_an_image_without_a_record_is_none_of_a_machine() -> None:
    def nothing(path: bytes) -> Stored:
        raise PathMissing(f"there is no {path!r}")

    with pytest.raises(PathMissing):
        read_record(nothing)


def test_definitions_are_read_by_name() -> None:
    files = {b"/definitions/domain.xml": b"<domain/>", b"/definitions/nvram": b"\0" * 10}
    record = Record(MACHINE, None, False, ("domain.xml", "nvram"))
    found = read_definitions(lambda path: Stored(files[path]), record)
    assert found == {"domain.xml": b"<domain/>", "nvram": b"\0" * 10}
    assert disk_path("vda") == b"/disks/vda"
