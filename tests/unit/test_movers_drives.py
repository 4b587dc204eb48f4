"""Which mounted file systems are local drives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from holdfast.base.errors import NotFound
from holdfast.movers.drives import local_drives

if TYPE_CHECKING:
    from pathlib import Path


def test_drives_are_told_from_the_network_the_kernel_and_bind_mounts(tmp_path: Path) -> None:
    odd = tmp_path / "with space"
    bound = tmp_path / "bound"
    nfs = tmp_path / "nfs"
    for one in (odd, bound, nfs):
        one.mkdir()
    listed = tmp_path / "mountinfo"
    listed.write_text(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "23 22 0:21 / /proc rw - proc proc rw\n"
        "24 22 0:22 / /sys rw - sysfs sysfs rw\n"
        f"25 22 8:2 / {str(odd).replace(' ', chr(92) + '040')} rw - xfs /dev/sdb1 rw\n"
        f"26 22 8:1 /srv/part {bound} rw - ext4 /dev/sda1 rw\n"
        f"27 22 0:50 / {nfs} rw - nfs4 server:/x rw\n"
        "28 22 8:3 / /no/such/place rw - ext4 /dev/sdc1 rw\n"
    )
    assert local_drives(listed) == (b"/", str(odd).encode())


def test_what_the_root_lies_on_counts_whatever_it_is(tmp_path: Path) -> None:
    listed = tmp_path / "mountinfo"
    listed.write_text("22 1 0:30 / / rw - overlay overlay rw\n")
    assert local_drives(listed) == (b"/",)


def test_of_two_mounts_at_one_place_the_later_counts(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    listed = tmp_path / "mountinfo"
    listed.write_text(
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"23 22 8:2 / {place} rw - ext4 /dev/sdb1 rw\n"
        f"24 23 8:3 / {place} rw - xfs /dev/sdc1 rw\n"
        f"25 22 8:3 / /proc rw - xfs /dev/sdc1 rw\n"
    )
    assert local_drives(listed) == (b"/", str(place).encode())


def test_no_drive_at_all_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_bytes(b"")
    with pytest.raises(NotFound):
        local_drives(tmp_path / "mountinfo")


def test_this_machine_has_a_root() -> None:
    assert b"/" in local_drives()
