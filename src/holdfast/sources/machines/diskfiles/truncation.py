"""Whether the files of a disk are as long as their own tables say.

Must not read a disk's content. Where a file ends too early, qemu reads zeroes without a word: such
a backup would look whole, and be worthless.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from holdfast.base.errors import DiskUnreadable
from holdfast.sources.machines.diskfiles.formats import QCOW2, RAW, VMDK, file_size
from holdfast.sources.nbd.qemu_nbd import run_img

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast.sources.machines.diskfiles.chain import DiskFile, Layer

_TIMEOUT_S = 3600.0


def refuse_truncated(disk: DiskFile) -> None:
    """Look where the disk's ranges lie in its files.

    Raises:
        DiskUnreadable: One lies beyond the end of its file.
    """
    if disk.place.length is not None:
        return
    if all(one.format == RAW for one in disk.layers):
        return
    command = ["map", "-U", "--output=json", f"json:{json.dumps(disk.node)}"]
    said = run_img(command, f"disk file '{disk.place}'", timeout_s=_TIMEOUT_S)
    sizes = {part: file_size(part) for one in disk.layers for part, _ in one.parts if part}
    for line in said.decode().splitlines():
        one = json.loads(line.strip().strip("[],") or "null")
        if not one or "offset" not in one or not one["data"] or one["depth"] >= len(disk.layers):
            continue
        layer = disk.layers[one["depth"]]
        # The last cluster of a file may be cut where nothing was written to its end.
        slack = layer.cluster - 1 if layer.format in (QCOW2, VMDK) else 0
        for path, end in _ends(layer, one["start"], one["length"], one["offset"]):
            if layer.format != RAW and end > sizes[path] + slack:
                raise DiskUnreadable(
                    f"'{path}' is truncated: it has {sizes[path]} bytes, and content up to byte "
                    f"{end}",
                    "copy it again from where it is whole",
                )


def _ends(layer: Layer, start: int, length: int, offset: int) -> Iterator[tuple[Path, int]]:
    """How far a range of the disk goes in each file that it is in."""
    begin = 0
    for path, covers in layer.parts:
        inside = min(start + length, begin + covers) - max(start, begin)
        if inside > 0:
            offset += inside
            if path is not None:
                yield path, offset
        begin += covers
