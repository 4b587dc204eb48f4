"""Virtual machines that run from their images: begun, looked at, moved, thrown away.

Must not serve nor reach a hypervisor: that is what jobs do. Invariants: an image is held as long as
a machine may read from it; what was up is served again until it is its own or thrown away, whatever
ended in between; it is thrown away only when nobody serves it any more.
"""

from __future__ import annotations

import enum
import logging
import secrets
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from holdfast.base.errors import HoldfastError, Invalid, JobMissing, Retry, Unsupported, WrongState
from holdfast.base.ids import ADHOC, ClientName, machine_of
from holdfast.control.database import facts
from holdfast.control.hypervisors import client_of_name
from holdfast.control.instant import Ending, NewInstant
from holdfast.control.jobs import JobKind, JobState, NewJob, Outcome
from holdfast.movers.machines.standing_by import APART, AWAY, NEEDS, RUNNING, STUCK, UP
from holdfast.site.machine_restores import MachineRestore, to_hypervisor
from holdfast.site.machine_work import worker_of
from holdfast.site.running import enqueue
from holdfast.sources.machines.overlays import FORMATS
from holdfast.sources.machines.providers import KINDS
from holdfast.wire.machine_work import InstantWork

if TYPE_CHECKING:
    from holdfast.base.ids import JobId
    from holdfast.control.access import Principal
    from holdfast.control.catalog import ImageRow
    from holdfast.control.instant import InstantRecovery
    from holdfast.control.jobs import Job
    from holdfast.site.master import Master
    from holdfast.wire.machine_work import InstantStep

_AGAIN: Final = timedelta(seconds=10)
_UNBEGUN: Final = timedelta(minutes=1)
_KINDS: Final = {
    "serve": JobKind.INSTANT,
    "migrate": JobKind.INSTANT_MIGRATE,
    "discard": JobKind.INSTANT_DISCARD,
}
_DONE = (
    Outcome.COMPLETED,
    Outcome.COMPLETED_WITH_WARNINGS,
    Outcome.COMPLETED_WITH_ERRORS,
)

_LOG = logging.getLogger("holdfast.instant")


class InstantState(enum.StrEnum):
    """How it is with one."""

    STARTING = "starting"
    RUNNING = "running"
    OFF = "off"
    """Its guest was switched off, or paused by somebody."""
    STUCK = "standing still"
    """It waits for a part of its image that can't be read now."""
    AWAY = "image away"
    """What has its image does not answer now."""
    APART = "hypervisor away"
    """Its hypervisor can't be reached now."""
    UNSERVED = "not served"
    """Nobody serves its image now."""
    MIGRATING = "migrating"
    DISCARDING = "discarding"
    OWN = "own"
    DISCARDED = "discarded"
    FAILED = "failed"


_ENDED = {
    Ending.OWN: InstantState.OWN,
    Ending.DISCARDED: InstantState.DISCARDED,
    Ending.FAILED: InstantState.FAILED,
}

_WORDS = {
    InstantState.STARTING: "its disks are being made and served",
    InstantState.RUNNING: "it runs; what it writes is on the hypervisor's storage, what it did not "
    "write yet is read from the image",
    InstantState.OFF: "it does not run; what it wrote is safe, and its image is served",
    InstantState.STUCK: "it stands still, as a part of its image could not be read; what it wrote "
    "is safe, and it goes on by itself when the image can be read again",
    InstantState.AWAY: "its image can't be read now: what it wrote is safe, and it stands still as "
    "soon as it reads what it did not write; it goes on by itself when the image can be read again",
    InstantState.APART: "its hypervisor can't be reached now, nor can that reach the image: what "
    "it wrote is safe, and it stands still as soon as it reads what it did not write; it goes on "
    "by itself when the hypervisor is reached again",
    InstantState.UNSERVED: "nobody serves its image now: what it wrote is safe, and it stands "
    "still as soon as it reads what it did not write; it goes on when the image is served again",
    InstantState.MIGRATING: "what it reads from the image is brought onto disks of its own, while "
    "it runs",
    InstantState.DISCARDING: "it is being stopped and taken away",
    InstantState.OWN: "it needs its image no more: it is a machine like others",
    InstantState.DISCARDED: "it was stopped and taken away",
    InstantState.FAILED: "it could not be begun, and nothing of it is left",
}


@dataclass(frozen=True, slots=True)
class InstantFacts:
    """One, as people want to see it.

    Attributes:
        recovery: It.
        state: How it is with it.
        words: What that means, for its writes and reads too.
        error: What went wrong last; None for nothing.
        disks_needed: How many disks still read from the image; None where that is not known.
        moved_bytes: How much of what is to be moved has been, while it is.
        moved_of_bytes: How much that is.
    """

    recovery: InstantRecovery
    state: InstantState
    words: str
    error: str | None = None
    disks_needed: int | None = None
    moved_bytes: int | None = None
    moved_of_bytes: int | None = None


def begin(
    master: Master, who: Principal, image: ImageRow, wanted: MachineRestore
) -> InstantRecovery:
    """Have a machine run from its image; its job is queued.

    Raises:
        Invalid: It is no image of one.
        Unsupported: That kind of hypervisor can't.
        Forbidden: Somebody may not make a machine of that name.
        NotFound: There is no such hypervisor.
        AlreadyExists: There is a machine of that name or uuid.
        WrongState: The original runs.
    """
    known = machine_of(image.source)
    if known is None or wanted.hypervisor is None:
        raise Invalid(
            f"image {image.id} is of files, and not of a virtual machine",
            "'holdfast restore' brings back files",
        )
    if wanted.format not in (None, *FORMATS):
        raise Invalid(f"'{wanted.format}' is no format here", f"use {' or '.join(FORMATS)}")
    hypervisor = master.hypervisors.hypervisor(wanted.hypervisor)
    if not KINDS[hypervisor.kind].runs_images:
        able = ", ".join(one.name for one in KINDS.values() if one.runs_images)
        raise Unsupported(
            f"hypervisor '{hypervisor.name}' is of the kind '{hypervisor.kind}', which can't run a "
            "machine from its image",
            f"name one of the kind {able}, or use 'holdfast restore-machine'",
        )
    name = to_hypervisor(master, who, image, known, wanted, wanted.hypervisor)
    site = facts.site_id(master.database)
    new = NewInstant(
        image=image.id,
        hypervisor=hypervisor.name,
        machine=known if wanted.keep_identity else str(uuid.uuid4()),
        name=name,
        label=f"{site[:8]}-{secrets.token_hex(6)}",
        begun_by=who.name,
        keep_identity=wanted.keep_identity,
        networks=wanted.networks,
        storage=wanted.storage,
        format=wanted.format or "qcow2",
    )
    made = master.instants.add(new)
    try:
        _serve(master, made)
    except BaseException:
        master.instants.end(made, Ending.FAILED)
        raise
    return master.instants.get(made.id)


def migrate(master: Master, who: Principal, number: int) -> InstantRecovery:
    """Have a machine be moved onto disks of its own.

    Raises:
        NotFound, Forbidden: There is none of that number for them.
        WrongState: It has ended, was never up, or is being moved or thrown away.
    """
    one = _open(master, who, number)
    state = look(master, one).state
    if not one.was_up or state in (InstantState.MIGRATING, InstantState.DISCARDING):
        raise WrongState(
            f"instant recovery {number} is {state}: it can't be moved now",
            "it is moved when it runs: 'holdfast instant show' tells how it is",
        )
    if state is InstantState.UNSERVED:
        resume(master, who, number)
    master.instants.note(number, migrate_job=_order(master, one, "migrate"))
    return master.instants.get(number)


def resume(master: Master, who: Principal, number: int) -> InstantRecovery:
    """Have the image of a machine be served again, after somebody cancelled that.

    Raises:
        NotFound, Forbidden: There is none of that number for them.
        WrongState: It has ended, or is served.
    """
    one = _open(master, who, number)
    job = _job(master, one.serve_job)
    if job is not None and job.suspended:
        master.jobs.resume(job.id, by=who.name)
    elif job is None or job.state is JobState.ENDED:
        _serve(master, one)
    else:
        raise WrongState(f"instant recovery {number} is served by job {job.id}: it is {job.status}")
    return master.instants.get(number)


def discard(master: Master, who: Principal, number: int) -> InstantRecovery:
    """Have a machine be stopped and taken away, with all that it wrote.

    Raises:
        NotFound, Forbidden: There is none of that number for them.
        WrongState: It has ended, or is being thrown away.
    """
    one = _open(master, who, number)
    if look(master, one).state is InstantState.DISCARDING:
        raise WrongState(f"instant recovery {number} is being thrown away")
    for job in (_job(master, one.serve_job), _job(master, one.migrate_job)):
        if job is not None and job.state is not JobState.ENDED:
            master.jobs.cancel(job.id, by=who.name)
    master.instants.note(number, discard_job=_order(master, one, "discard"))
    return master.instants.get(number)


def look(master: Master, one: InstantRecovery) -> InstantFacts:
    """How it is with one now."""
    if one.ending is not None:
        failed = _job(master, one.serve_job) if one.ending is Ending.FAILED else None
        state = _ENDED[one.ending]
        return InstantFacts(one, state, _WORDS[state], _said(failed))
    serve = _job(master, one.serve_job)
    migrate, discard = _job(master, one.migrate_job), _job(master, one.discard_job)
    state = _state(one, serve, migrate, discard)
    error = next((said for job in (discard, migrate, serve) if (said := _said(job))), None)
    counted = {} if serve is None else serve.counters
    words = _WORDS[state]
    if state is InstantState.UNSERVED and (away := _storage_away(master, one)):
        words = f"{away}; {words}"
    moving = state is InstantState.MIGRATING and migrate is not None
    return InstantFacts(
        one,
        state,
        words,
        error,
        counted.get(NEEDS) if counted.get(UP) else None,
        migrate.counters.get("size_bytes") if moving and migrate is not None else None,
        migrate.counters.get("bytes_total") if moving and migrate is not None else None,
    )


def settle(master: Master) -> None:
    """Note what became of those that have not ended; have what was up be served again.

    To be called often, by the one master that gives out work.
    """
    for one in master.instants.all(ended=False):
        try:
            _settle(master, one, again=True)
        except HoldfastError as error:
            _LOG.error("instant recovery %s: %s", one.id, error.message)


def _settle(master: Master, one: InstantRecovery, *, again: bool) -> None:
    serve, discard = _job(master, one.serve_job), _job(master, one.discard_job)
    now = master.clock.now()
    if discard is not None and discard.outcome in _DONE:
        master.instants.end(one, Ending.DISCARDED)
        return
    if discard is not None and discard.state is not JobState.ENDED:
        return
    if serve is None:
        if now - one.begun_at > _UNBEGUN:
            master.instants.end(one, Ending.FAILED)
        return
    if serve.counters.get(UP) and not one.was_up:
        master.instants.note(one.id, was_up=True)
    if serve.state is not JobState.ENDED:
        return
    if serve.outcome in _DONE:
        master.instants.end(one, Ending.OWN)
    elif serve.outcome is Outcome.FAILED and not one.was_up:
        master.instants.end(one, Ending.FAILED)
    elif again and _may_pass(serve) and now - (serve.ended_at or now) > _AGAIN:
        _serve(master, one)


def _may_pass(job: Job) -> bool:
    """Whether a job failed of what may be better next time."""
    error = job.error if job.outcome is Outcome.FAILED else None
    return error is not None and error.retry is not Retry.NEVER


def _state(
    one: InstantRecovery, serve: Job | None, migrate: Job | None, discard: Job | None
) -> InstantState:
    if discard is not None and (discard.state is not JobState.ENDED or discard.outcome in _DONE):
        return InstantState.DISCARDING
    active = serve is not None and serve.is_at_work
    counted = {} if serve is None else serve.counters
    up = bool(counted.get(UP))
    if not (one.was_up or up):
        ended = serve is not None and serve.state is JobState.ENDED
        return InstantState.UNSERVED if ended else InstantState.STARTING
    if serve is not None and serve.outcome in _DONE:
        return InstantState.OWN
    if not active:
        return InstantState.UNSERVED
    if up and counted.get(APART):
        return InstantState.APART
    if up and counted.get(AWAY):
        return InstantState.AWAY
    if up and counted.get(STUCK):
        return InstantState.STUCK
    if migrate is not None and migrate.state is not JobState.ENDED:
        return InstantState.MIGRATING
    if up and not counted.get(RUNNING):
        return InstantState.OFF
    return InstantState.RUNNING if up else InstantState.UNSERVED


def _open(master: Master, who: Principal, number: int) -> InstantRecovery:
    """One that has not ended, for somebody who may say what becomes of it."""
    one = master.instants.get(number)
    who.require_clients({client_of_name(one.new.name)})
    _settle(master, one, again=False)
    one = master.instants.get(number)
    if one.ending is not None:
        raise WrongState(
            f"instant recovery {number} has ended: {_WORDS[_ENDED[one.ending]]}",
            "a machine like others is looked after at its hypervisor",
        )
    return one


def _serve(master: Master, one: InstantRecovery) -> None:
    master.instants.note(one.id, serve_job=_order(master, one, "serve"))


def _order(master: Master, one: InstantRecovery, step: InstantStep) -> JobId:
    """Queue a job that does something about one."""
    new = one.new
    hypervisor = master.hypervisors.hypervisor(new.hypervisor)
    row = master.catalog.image(new.image)
    work = InstantWork(
        image=new.image,
        step=step,
        label=new.label,
        machine=new.machine,
        name=new.name,
        hypervisor=new.hypervisor,
        proxy=hypervisor.proxy,
        keep_identity=new.keep_identity,
        networks=new.networks,
        storage=new.storage,
        format=new.format,
    )
    job = NewJob(
        kind=_KINDS[step],
        work=work.to_json(),
        policy=ADHOC,
        client=ClientName(row.host),
        source=row.source,
        # A slot of the storage would be taken for as long as the machine runs.
        storage_unit=None,
        worker=worker_of(hypervisor.proxy),
    )
    return enqueue(master, job)


def _storage_away(master: Master, one: InstantRecovery) -> str | None:
    """Why the image can't be served, where that is since a media server is not there."""
    pools = master.site.pools
    units = [
        master.units.of_pool(pool)
        for pool in pools.with_copy(one.new.image)
        if not pools.is_near(pool)
    ]
    if not units or len(units) < len(pools.with_copy(one.new.image)):
        return None
    if not all(pools.is_away(unit) for unit in units):
        return None
    return f"media server '{units[0].server}', which has its image, is not connected"


def _job(master: Master, number: JobId | None) -> Job | None:
    if number is None:
        return None
    try:
        return master.jobs.job(number)
    except JobMissing:
        return None


def _said(job: Job | None) -> str | None:
    """What went wrong in a job, if anything did and it does not work again."""
    if job is None or job.error is None or job.is_at_work:
        return None
    return job.error.message
