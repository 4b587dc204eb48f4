"""Headers and definitions of disk files, as anybody may write them: read, or refused in words."""

from __future__ import annotations

import functools
import struct
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.base.errors import HoldfastError
from holdfast.sources.machines.diskfiles import definitions, formats, headers
from holdfast.sources.machines.diskfiles.chain import Place, open_disk
from tests.kit.disk_images import needs_qemu

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.sources.machines.diskfiles.definitions import Definition

pytest.importorskip("lxml", reason="lxml is not installed (the extra [vm])")

WORD = st.sampled_from(
    ["RW", "FLAT", "SPARSE", "ZERO", "63", '"a-flat.vmdk"', '"/etc/passwd"', "0", "=", "parentCID"]
)
QUICK = settings(max_examples=200, deadline=None)
SLOW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def refusal(work: Callable[[], object]) -> HoldfastError | None:
    """What a piece of work is refused with; anything but words fails the test."""
    try:
        work()
    except HoldfastError as error:
        return error
    return None


def judged(path: Path) -> None:
    """Whatever is said of a file is said in words."""
    looks: tuple[Callable[[Path], object], ...] = (
        headers.named_by_qcow2,
        headers.named_by_vmdk,
        headers.refuse_differencing_vpc,
    )
    for look in looks:
        error = refusal(functools.partial(look, path))
        assert error is None or str(path) in error.message
    formats.shown_by_bytes(path)


@st.composite
def qcow2_header(draw: st.DrawFn) -> bytes:
    number = st.integers(0, 0xFFFFFFFF) | st.sampled_from([0, 1, 72, 104, 112, 512, 1023])
    values = [draw(number) for _ in range(13)]
    values[0], values[3] = draw(st.sampled_from([2, 3, 4])), draw(st.integers(0, 24))
    head = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", *values[:12])
    rest = struct.pack(">QQQII", *(draw(number) for _ in range(5)))
    return head + rest + draw(st.binary(max_size=600))


@QUICK
@given(qcow2_header())
def test_any_header_of_qcow2_is_judged_in_words(data: bytes) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory, "disk.qcow2")
        path.write_bytes(data)
        judged(path)


@QUICK
@given(st.lists(st.lists(WORD, max_size=6).map(" ".join), max_size=8), st.binary(max_size=100))
def test_any_descriptor_of_vmdk_is_judged_in_words(lines: list[str], tail: bytes) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory, "disk.vmdk")
        path.write_bytes(b"# Disk DescriptorFile\n" + "\n".join(lines).encode() + tail)
        judged(path)


@QUICK
@given(st.binary(max_size=700), st.sampled_from([b"", b"KDMV", b"conectix", b"COWD"]))
def test_any_first_bytes_are_judged_in_words(data: bytes, magic: bytes) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory, "disk")
        path.write_bytes(magic + data)
        judged(path)


@needs_qemu
@SLOW
@given(qcow2_header())
def test_a_header_that_qemu_gets_to_see_names_no_file_outside(data: bytes) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory, "disk.qcow2")
        path.write_bytes(data)
        try:
            found = open_disk(Place(path), None, [Path(directory).resolve()])
        except HoldfastError:
            return
        assert set(found.files) == {path.resolve()}


XML = st.recursive(
    st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="<&>]"), max_size=9),
    lambda inner: st.tuples(
        st.sampled_from(["name", "uuid", "memory", "vcpu", "devices", "disk", "source", "target"]),
        st.sampled_from(["", " type='file'", " file='x'", " dev='vda'", " unit='?'", " id='1'"]),
        st.lists(inner, max_size=3),
    ).map(lambda one: f"<{one[0]}{one[1]}>{''.join(one[2])}</{one[0]}>"),
    max_leaves=12,
)


@QUICK
@given(st.lists(XML, max_size=5), st.sampled_from([".xml", ".ovf", ".vmx", ".ova"]))
def test_any_definition_is_read_or_refused_in_words(parts: list[str], suffix: str) -> None:
    root = "domain" if suffix == ".xml" else "Envelope"
    with TemporaryDirectory() as directory:
        path = Path(directory, f"web{suffix}")
        path.write_text(f"<{root}>{''.join(parts)}</{root}>")
        _read(path)


@QUICK
@given(st.binary(max_size=1500), st.sampled_from([".xml", ".ovf", ".vmx", ".ova"]))
def test_any_bytes_are_read_or_refused_in_words(data: bytes, suffix: str) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory, f"web{suffix}")
        path.write_bytes(data)
        _read(path)


def _read(path: Path) -> None:
    found: list[Definition] = []
    error = refusal(lambda: found.extend(definitions.read(path)))
    assert error is None or str(path) in error.message
    assert all(one.name for one in found)
