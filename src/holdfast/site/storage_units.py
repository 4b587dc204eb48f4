"""Storage units of a site: made, told about, and let go.

Must not move data. Invariants: a pool is there before the site knows it as a unit, with the key
that the site has for it; a unit that holds an image, or that a policy names, is not let go.
"""

from __future__ import annotations

import logging
from base64 import b64encode
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from holdfast.base.errors import (
    AlreadyExists,
    HoldfastError,
    Invalid,
    StorageError,
    Unreachable,
    WrongState,
)
from holdfast.base.ids import ClientName, PoolId, pool_id
from holdfast.control.jobs import JobState, Wanted
from holdfast.control.policies import DEFAULT_STORAGE_UNIT
from holdfast.control.storage import StorageUnit, unit_name
from holdfast.site import places
from holdfast.vault import PoolKey, create_pool, new_pool_key
from holdfast.wire.fields import Reader
from holdfast.wire.identity import MachineRole

if TYPE_CHECKING:
    from holdfast.site.master import Master

MAKE_S: Final = 60.0
"""So long a media server may take to make a pool."""

FORGET_S: Final = 15.0
"""So long it may take to let go of one; the site has forgotten it before."""

_LOG = logging.getLogger("holdfast.site")

_UNENDED = (JobState.QUEUED, JobState.ACTIVE, JobState.ENDING)


@dataclass(frozen=True, slots=True)
class UnitFacts:
    """A storage unit, as people want to see it.

    Attributes:
        unit: It.
        images: How many images have a copy there, as far as the catalog knows.
        reachable: Whether its media server serves it now; None if it needs none.
        problem: What its media server says is wrong with it; None for nothing, or if it is away.
    """

    unit: StorageUnit
    images: int
    reachable: bool | None
    problem: str | None = None


def own_unit(master: Master) -> StorageUnit:
    """The site's own pool as a unit."""
    config = master.site.config
    return StorageUnit(
        DEFAULT_STORAGE_UNIT,
        master.site.pool_id,
        places.without_secrets(config.pool_url),
        None,
        master.unit_slots()[DEFAULT_STORAGE_UNIT],
        None,
    )


def overview(master: Master) -> list[UnitFacts]:
    """All units, the site's own pool first."""
    served = frozenset() if master.spoken_to is None else master.spoken_to.served_pools()
    problems = {} if master.spoken_to is None else master.spoken_to.pool_problems()
    found = [own_unit(master), *master.units.units()]
    return [
        UnitFacts(
            replace(one, place=places.without_secrets(one.place)),
            master.catalog.count_copies(one.pool),
            None if one.server is None else one.pool in served,
            problems.get(one.pool),
        )
        for one in found
    ]


def create_shared(master: Master, name: str, place: str, slots: int) -> StorageUnit:
    """Make a pool that master and media servers reach, and the unit that it is.

    Args:
        master: Whose.
        name: Of the unit.
        place: A directory or URL.
        slots: How many jobs it takes at once.

    Raises:
        AlreadyExists: There is a unit of this name.
        PoolExists: There is a pool.
        Invalid: The place can't be understood, or holds other files.
        StorageError: It can't be written.
    """
    _require_new(master, name)
    where = places.pool_place(place)
    places.require_room_for_pool(where)
    key, site = new_pool_key(), master.site
    pool = create_pool(where, secret=PoolKey(key), clock=site.clock, naming=site.pool.naming)
    return _take_in(master, name, pool_id(pool.id), where, None, slots, key)


def create_owned(
    master: Master, name: str, server: ClientName, path: str, slots: int
) -> StorageUnit:
    """Have a media server make a pool on a disk of its own.

    Args:
        master: Whose; served, as machines are spoken to by that process alone.
        name: Of the unit.
        server: The media server.
        path: An absolute directory there, empty or missing.
        slots: How many jobs it takes at once.

    Raises:
        AlreadyExists: There is a unit of this name.
        NotFound: There is no such media server.
        Unreachable: It is not connected, or the site is not served, or its answer was lost: the
            same again completes it.
        HoldfastError: It can't make the pool.
    """
    _require_new(master, name)
    machine = master.machines.machine(server)
    if machine.role is not MachineRole.MEDIA:
        raise Invalid(
            f"machine '{server}' is no media server",
            "have it join as one: holdfast enroll … --role media",
        )
    if master.spoken_to is None:
        raise Unreachable("this site speaks to no machines now", "serve it: holdfast serve")
    # Kept before anybody has it: a pool whose making was not heard of opens with it all the same.
    key = master.units.begin(machine.name, path, new_pool_key(), master.site.pool_key())
    order = {
        "ask": "make-pool",
        "path": path,
        "key": b64encode(key).decode(),
        "naming": b64encode(master.site.pool.naming).decode(),
    }
    try:
        said = master.spoken_to.sessions.ask(machine.name, order, MAKE_S)
    except Unreachable as error:
        raise Unreachable(
            error.message,
            f"{error.hint}; then say the same again: a pool that was made at '{path}' all the "
            "same is taken as it is",
        ) from error
    pool = PoolId(Reader(said, f"what '{server}' says").text("pool"))
    made = _take_in(master, name, pool, path, machine.name, slots, key)
    master.spoken_to.pool_made(machine.name, pool)
    return made


def set_slots(master: Master, name: str, slots: int) -> StorageUnit:
    """Have a unit take another number of jobs at once.

    Raises:
        NotFound: There is none of this name.
        Invalid: There can't be so many.
        WrongState: It is the site's own pool.
    """
    if name == DEFAULT_STORAGE_UNIT:
        raise WrongState(
            "how many jobs the site's own pool takes is a setting", "set jobs.slots of the site"
        )
    changed = master.units.set_slots(name, slots)
    master.news()
    return changed


def remove(master: Master, name: str) -> None:
    """Let the site forget a unit that is not needed. Its pool stays where it is.

    A media server whose disk it is on lets go of it too, and has nothing open there any more.

    Raises:
        NotFound: There is none of this name.
        WrongState: Images are there, or somebody names it.
    """
    if name == DEFAULT_STORAGE_UNIT:
        raise WrongState(
            "the site's own pool can't be removed", "policies may name other storage units instead"
        )
    unit = master.units.unit(name)
    images = master.catalog.count_copies(unit.pool)
    if images:
        raise WrongState(
            f"storage unit '{name}' holds copies of {images} images",
            "let them go first: 'holdfast expire'",
        )
    policies = [
        stored.policy.name
        for stored in master.policies.snapshot().policies.values()
        if stored.policy.storage_unit == name
    ]
    if policies:
        raise WrongState(
            f"storage unit '{name}' is where {len(policies)} policies back up to, such as "
            f"'{min(policies)}'",
            "have them name another one first",
        )
    for job in master.jobs.each(Wanted(states=_UNENDED)):
        if job.storage_unit == name:
            raise WrongState(
                f"job {job.id} is to use storage unit '{name}'", "wait for it, or cancel it"
            )
    master.units.remove(name)
    note_directories(master)
    master.news()
    _have_forgotten(master, unit)


def _have_forgotten(master: Master, unit: StorageUnit) -> None:
    """Have a media server let go of a pool of its own, as far as it can be reached."""
    if unit.server is None or master.spoken_to is None:
        return
    order = {"ask": "forget-pool", "pool": unit.pool}
    try:
        master.spoken_to.sessions.ask(unit.server, order, FORGET_S)
    except HoldfastError as error:
        # It has no key of it after its next start.
        _LOG.warning(
            "media server '%s' was not told that storage unit '%s' is removed: %s",
            unit.server,
            unit.name,
            error.message,
        )


def _require_new(master: Master, name: str) -> None:
    if name in master.unit_slots():
        raise AlreadyExists(
            f"there is a storage unit '{name}' already", "'holdfast storage list' shows them"
        )
    unit_name(name)


def _take_in(
    master: Master,
    name: str,
    pool: PoolId,
    place: str,
    server: ClientName | None,
    slots: int,
    key: bytes,
) -> StorageUnit:
    unit = StorageUnit(name, pool, place, server, slots, master.clock.now())
    master.units.add(unit, key, master.site.pool_key())
    note_directories(master)
    master.news()
    return unit


def note_directories(master: Master) -> None:
    """Have backups by hand leave out the pools on this machine; what goes wrong is logged."""
    near = [one.place for one in master.units.units() if one.server is None]
    try:
        places.note_directories(master.site.home, near)
    except StorageError as error:
        _LOG.warning("backups by hand may take pools with them: %s", error.message)


def named(master: Master, name: str | None) -> StorageUnit:
    """A unit by its name; None is the site's own.

    Raises:
        NotFound: There is none of this name.
    """
    if name is None or name == DEFAULT_STORAGE_UNIT:
        return own_unit(master)
    return master.units.unit(name)
