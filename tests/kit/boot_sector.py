"""The smallest machine that boots: a disk whose first sector says a text and stops."""

from __future__ import annotations

SECTOR = 512

_CODE = bytes.fromhex(
    "31c0 8ed8"  # data are where the code is
    "be1c7c"  # the text, behind the code
    "ac 84c0 740d"  # each letter, until the zero
    "b40e bb0700 cd10"  # to the screen
    "baf803 ee"  # to the first serial port
    "ebee"
    "f4 ebfd"  # then sleep
)


def boot_disk(text: str, size: int = 1 << 20) -> bytes:
    """A disk that says a text on its screen and its serial port when it is booted."""
    sector = _CODE + text.encode("ascii") + b"\0"
    assert len(sector) <= SECTOR - 2
    return (sector.ljust(SECTOR - 2, b"\0") + b"\x55\xaa").ljust(size, b"\0")
