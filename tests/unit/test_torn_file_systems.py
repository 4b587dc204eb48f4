"""A file system that can't be read is told as an error of the tree, whatever was asked of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from holdfast.base.errors import EXIT_FAILED, InputOutput
from holdfast.movers.machines.inside import Inside
from tests.kit.disks import MIB, BytesDisk

pytest.importorskip("pytsk3", reason="pytsk3 is not installed: see the extra 'vm'")


def torn_ntfs() -> BytesDisk:
    """A boot sector of an NTFS, and nothing behind it."""
    data = bytearray(MIB)
    data[3:11] = b"NTFS    "
    data[510:512] = b"\x55\xaa"
    return BytesDisk(bytes(data))


@pytest.mark.parametrize(
    "ask",
    [
        lambda inside: inside.entry(b"/vda/fs/file"),
        lambda inside: list(inside.children(b"/vda/fs")),
        lambda inside: list(inside.below(b"/vda/fs")),
    ],
    ids=["entry", "children", "below"],
)
def test_a_file_system_that_is_torn_is_told_with_what_still_can_be_done(
    ask: Callable[[Inside], object],
) -> None:
    with Inside({"vda": torn_ntfs()}) as inside, pytest.raises(InputOutput) as caught:
        ask(inside)
    assert "vda/fs" in caught.value.message
    assert caught.value.hint == "its whole disk can be restored"
    assert caught.value.exit_status == EXIT_FAILED
