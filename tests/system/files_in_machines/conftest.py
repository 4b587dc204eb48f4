"""An image of a machine with an ext4 on all of its disk, in a site's pool."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.base.clock import SystemClock
from holdfast.base.ids import ImageId, pool_id
from holdfast.site.secrets import SecretSource
from holdfast.site.site import Site
from tests.kit.command import Command
from tests.kit.disks import MIB, blank, mounted, need, run
from tests.kit.guest_files import fill
from tests.kit.machine_images import back_up


@pytest.fixture
def machine(site: Command, tmp_path: Path) -> ImageId:
    """An image of a machine with an ext4 on all of its disk."""
    need("mkfs.ext4")
    disk = blank(tmp_path / "vda", 40 * MIB)
    run("mkfs.ext4", "-q", "-F", disk)
    with mounted(disk, tmp_path / "mnt") as at:
        fill(at)
    with Site.open(site.home, SecretSource(), SystemClock()) as opened:
        image = back_up(opened.pool, {"vda": disk})
        opened.catalog.record_image(opened.pool.image(image), pool_id(opened.pool.id))
    return image
