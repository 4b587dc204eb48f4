"""Virtual machines that the site itself backs up and makes again, without an agent between.

Must not know what kind of hypervisor one is of: see `movers.machines`. Invariant: an image goes
into the pool of the storage unit that its job is for, and follows only an image that is there.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from holdfast.base.ids import ImageId, JobId, SourceName
from holdfast.movers.machines.ends import NearDestination, NearImage
from holdfast.movers.machines.instant import Image as InstantImage
from holdfast.movers.machines.serving import KEPT_BYTES
from holdfast.movers.machines.work import back_up_machine, instant, restore_machine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holdfast.engine import FileReader, Image
    from holdfast.movers.drive import Reporter
    from holdfast.site.master import Master
    from holdfast.wire.machine_work import InstantWork, MachineRestoreWork, MachineWork
    from holdfast.wire.messages import WorkEvent

    Alive = Callable[[], None]
    Note = Callable[[WorkEvent], None]

SCRATCH = "scratch"
"""Where, in the home, goes what guests overwrite while their disks are read."""


def commit_machine(
    master: Master, job: int, work: MachineWork, report: Reporter, alive: Alive, note: Note, /
) -> Image:
    """Back a virtual machine up, into the storage unit that its job is for.

    Raises:
        HoldfastError: It failed, or the catalog could not be told.
    """
    site = master.site
    pool = site.pools.of_unit(master.jobs.job(JobId(job)).storage_unit)
    if master.units.units():
        site.pools.prepare(pool, SourceName(work.source))
    alive()
    parent = None if work.parent is None else ImageId(work.parent)
    end = NearDestination(site.pools.of(pool), parent)
    scratch = site.home / SCRATCH
    image = back_up_machine(work, end, scratch, site.clock, report, note)
    site.inbox.leave(image, pool, image.findings)
    return image


def make_machine(
    master: Master, work: MachineRestoreWork, report: Reporter, alive: Alive, note: Note, /
) -> None:
    """Make a virtual machine of an image.

    Raises:
        HoldfastError: It failed, and nothing of the machine stays.
    """
    alive()
    image = ImageId(work.image)
    end = NearImage(master.site.pools.holding(image), image)
    restore_machine(work, end, report, note)


def run_instant(
    master: Master,
    work: InstantWork,
    tell: Callable[[Mapping[str, int]], None],
    alive: Alive,
    note: Note,
    /,
) -> None:
    """Do something about a virtual machine that runs from its image.

    Raises:
        HoldfastError: It failed.
    """
    alive()
    image = ImageId(work.image)

    def open_file(path: bytes, /) -> FileReader:
        pool = master.site.pools.holding(image)
        pool.keep_blocks(KEPT_BYTES)
        return pool.open_file(image, path)

    # Whether the pool that has it can be read is asked with all of its manifest.
    ask = partial(master.site.pools.holding, image)
    instant(work, InstantImage(open_file, ask), tell, alive, note)
