"""A process that makes a machine of an image, and stands still at some place until it is killed.

Its disks are written slowly, so that the place is where it is said to be.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

from holdfast.base.ids import ImageId
from holdfast.movers.machines import work as machine_work
from holdfast.movers.machines.ends import NearImage
from holdfast.sources.machines import unfinished
from holdfast.sources.nbd import qemu_nbd
from holdfast.vault import PoolKey, open_pool
from holdfast.wire.machine_work import MachineRestoreWork

SECRET = bytes(range(32))
KEPT = 1 << 20
_BYTES_PER_S = 12 << 20


def write_slowly() -> None:
    """Have qemu-nbd write so many bytes a second."""
    words = qemu_nbd.words

    def slow_words(node: qemu_nbd.Node, **others: Any) -> list[str]:
        slow = {"driver": "throttle", "throttle-group": "slow", "file": node["file"]}
        group = f"--object=throttle-group,id=slow,x-bps-write={_BYTES_PER_S}"
        return [group, *words({**node, "file": slow}, **others)]

    qemu_nbd.words = slow_words


def main(pool: str, cache: str, order: str, place: str) -> None:
    """Restore; when the journal says that the disk is written up to there say so, and wait."""
    machine_work.KEEP_BYTES = KEPT
    write_slowly()
    append = unfinished.NearShelf.append

    def watched(shelf: unfinished.NearShelf, data: bytes) -> None:
        append(shelf, data)
        until = max((int(one) for one in re.findall(rb'"until": (\d+)', data)), default=0)
        if until >= int(place):
            print("now", flush=True)
            time.sleep(600)

    unfinished.NearShelf.append = watched  # type: ignore[assignment, method-assign]
    given = json.loads(order)
    del given["version"], given["work"]
    given["disks"] = tuple(given["disks"])
    work = MachineRestoreWork(**given)
    opened = open_pool(pool, secret=PoolKey(SECRET), cache_dir=Path(cache))
    end = NearImage(opened, ImageId(work.image))
    machine_work.restore_machine(work, end, lambda _: None, lambda _: None)
    print("whole", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
