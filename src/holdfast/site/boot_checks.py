"""Boot images of virtual machines after their backups, as jobs, and keep what comes of it.

Must not judge: see `movers.machines.boot_check`. Invariants: there is one job of each image that a
policy wants booted, however often its end is told; of a machine whose images come faster than they
are booted, the newest is; a verdict is kept before its job ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast.base.errors import DoesNotBoot, ImageMissing, WrongState
from holdfast.base.ids import ImageId, machine_of
from holdfast.control.boot_checks import BootCheckBook, NewBootCheck
from holdfast.control.jobs import BY_SITE, JobKind, JobState, NewJob, Wanted
from holdfast.movers.machines.boot_check import BootChecks, run_boot_check
from holdfast.movers.machines.serving import KEPT_BYTES, served
from holdfast.movers.machines.work import scratch_directory
from holdfast.site.near_machines import SCRATCH
from holdfast.wire.machine_work import BootCheckWork
from holdfast.wire.messages import WorkEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.control.catalog import ImageRow
    from holdfast.control.jobs import Job
    from holdfast.control.policies import VerifyBoot
    from holdfast.movers.drive import Reporter
    from holdfast.movers.machines.boot_check import BootVerdict
    from holdfast.site.master import Master
    from holdfast.site.site import Site

    Alive = Callable[[], None]
    Note = Callable[[WorkEvent], None]

OCCASION: Final = "boot check"
"""What stands in the place of a schedule's name, which has no white space."""

PRIORITY: Final = 0
"""Below every backup that anybody gave a priority."""


def queue_boot_check(master: Master, backup: Job, image: ImageId) -> None:
    """Queue the boot check of an image that a backup made, if its policy wants one.

    Told again, it does nothing.

    Raises:
        HoldfastError: It could not be queued.
    """
    if backup.kind is not JobKind.BACKUP or backup.policy is None or backup.source is None:
        return
    stored = master.policies.snapshot().policies.get(backup.policy)
    wanted = None if stored is None else stored.policy.verify_boot
    if wanted is None or machine_of(backup.source) is None or not wanted.wants(backup.backup_kind):
        return
    row = master.catalog.image(image)
    (queued,) = master.jobs.enqueue([_job(backup, row, wanted)])
    if queued.is_new:
        _supersede(master, backup, queued.id)


def _job(backup: Job, image: ImageRow, wanted: VerifyBoot) -> NewJob:
    work = BootCheckWork(
        image=image.id,
        serial=wanted.serial,
        port=wanted.port,
        agent=wanted.agent,
        command=wanted.command,
        within_s=wanted.within_s,
    )
    return NewJob(
        kind=JobKind.BOOT_CHECK,
        work=work.to_json(),
        policy=backup.policy,
        schedule=OCCASION,
        client=backup.client,
        source=backup.source,
        backup_kind=backup.backup_kind,
        storage_unit=backup.storage_unit,
        priority=PRIORITY,
        # An occurrence is there once: two images of a source do not begin at the same moment.
        due_at=image.started_at,
        worker=BY_SITE,
    )


def _supersede(master: Master, backup: Job, newest: int) -> None:
    """Have older images of the source wait no longer."""
    assert backup.source is not None  # noqa: S101
    waiting = Wanted(
        states=(JobState.QUEUED,),
        kinds=(JobKind.BOOT_CHECK,),
        sources=(backup.source,),
    )
    for one in list(master.jobs.each(waiting)):
        if one.id >= newest or one.due_at is None or one.policy != backup.policy:
            continue
        try:
            master.jobs.miss(one.id, "a newer image of the machine came before it was booted")
        except WrongState:
            continue  # it began, or somebody cancelled it


def check_boot(
    master: Master, work: BootCheckWork, _report: Reporter, alive: Alive, note: Note, /
) -> None:
    """Boot an image, and keep the verdict with it.

    Raises:
        DoesNotBoot: It did not do in time what was waited for.
        HoldfastError: It can't be judged here, or was stopped.
    """
    alive()
    image = ImageId(work.image)
    try:
        pool = master.site.pools.holding(image)
        master.catalog.image(image)
    except ImageMissing:
        note(WorkEvent("info", "missing", f"image {image} has gone: there is nothing to boot"))
        return
    checks = BootChecks(
        serial=work.serial,
        port=work.port,
        agent=work.agent,
        command=work.command,
        within_s=work.within_s,
    )
    pool.keep_blocks(KEPT_BYTES)
    with scratch_directory(master.site.home / SCRATCH) as directory:
        verdict = run_boot_check(
            lambda path: pool.open_file(image, path), checks, served, directory, alive
        )
    keep(master.site, image, verdict)
    for name, after_s in verdict.met.items():
        note(WorkEvent("info", "came", f"after {after_s:.1f} s: {name}"))
    for missed in verdict.missed:
        note(WorkEvent("error", "did not come", missed))
    if not verdict.passed:
        raise DoesNotBoot(
            f"image {image} does not boot as it should: {'; '.join(verdict.missed)}",
            f"its screen is in 'holdfast verify-boot {image[:12]} --last --screenshot FILE'",
        )


def keep(site: Site, image: ImageId, verdict: BootVerdict) -> int:
    """Keep a verdict with its image; its number.

    Raises:
        ImageMissing: The image went meanwhile.
    """
    check = NewBootCheck(
        image=image,
        at=site.clock.now(),
        passed=verdict.passed,
        took_s=verdict.took_s,
        met=verdict.met,
        missed=verdict.missed,
        said=verdict.said,
        screenshot=verdict.screenshot,
    )
    site.catalog.image(image)
    return BootCheckBook(site.database).add(check).id
