"""Restore paths of any image: of a machine's, also what is inside of its disks.

Must not mix the two in one restore: a disk comes back as a file, what is in it as files.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from holdfast.base.errors import Invalid
from holdfast.base.labels import is_machine
from holdfast.movers.restore_run import run_restore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.engine import ClientKey, Pool, RestoreResult
    from holdfast.movers.drive import Reporter
    from holdfast.movers.machines.file_restore import FileRestore
    from holdfast.movers.machines.inside import Inside
    from holdfast.movers.restore_run import RestoreOrder

_REPORT_S = 0.5


def restore_paths(
    pool: Pool,
    order: RestoreOrder,
    report: Reporter | None = None,
    key: ClientKey | None = None,
) -> RestoreResult | FileRestore:
    """Restore, and wait for it; as `run_restore`.

    Raises:
        InputOutput: A file system inside of a disk can't be read.
        Invalid: Some paths are of the image, and some are inside of its disks.
    """
    if not order.paths or not is_machine(pool.image(order.image).labels):
        return run_restore(pool, order, report, key)
    # What reads file systems is loaded for images of machines alone.
    from holdfast.movers.machines.inside import Inside

    with Inside.of_image(pool, order.image) as inside:
        if not leads_inside(inside, order.paths):
            return run_restore(pool, order, report, key)
        return restore_inside(inside, order, report)


def leads_inside(inside: Inside, paths: Sequence[bytes]) -> bool:
    """Whether paths of a machine's image are of files on its disks.

    Raises:
        Invalid: Some are, and some are of the image.
    """
    within = [path for path in paths if inside.knows(path)]
    if within and len(within) != len(paths):
        raise Invalid(
            "some of these paths are files of the image, and some are inside of its disks",
            "restore them by two commands",
        )
    return bool(within)


def restore_inside(
    inside: Inside, order: RestoreOrder, report: Reporter | None = None
) -> FileRestore:
    """Restore files on the disks of a machine, and wait for it.

    Raises:
        TargetNotEmpty, PathMissing, Invalid, InputOutput: As `restore_files`.
        HoldfastError: The pool can't be read.
    """
    from holdfast.movers.machines.file_restore import restore_files

    done = restore_files(
        inside,
        order.paths,
        order.target,
        overwrite=order.overwrite,
        strip_components=order.strip_components,
        verify=order.verify,
        alive=_now_and_then(report),
    )
    if done.lost_access.files:
        done.note(order.paths[0], "access-list", done.lost_access.in_words())
    for one in inside.remarks_of(order.paths):
        done.note(f"/{one.about}".encode(), one.code, one.message, one.severity)
    return done


def _now_and_then(report: Reporter | None) -> Callable[[FileRestore], None]:
    next_s = 0.0

    def alive(_: FileRestore) -> None:
        nonlocal next_s
        now_s = time.monotonic()
        if report is not None and now_s >= next_s:
            next_s = now_s + _REPORT_S
            report(None)

    return alive
