"""Who looks for a policy's live checks: this machine, others that have joined, pool and catalog.

Must not judge what is seen.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from holdfast.base.errors import Unreachable, WrongKey, storage_error
from holdfast.base.ids import ClientName, pool_id
from holdfast.control.dispatch import SplitBook
from holdfast.control.policies import DEFAULT_STORAGE_UNIT, PastBackup, Room
from holdfast.movers.probe import look
from holdfast.site import places
from holdfast.vault import try_writing
from holdfast.wire.looking import LookReport, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.base.ids import SourceName
    from holdfast.control.policies import Split, SplitKey
    from holdfast.site.site import Site
    from holdfast.wire.looking import LookOrder


PATIENCE_S = 20.0
"""How long to look in all, for as many policies as there are."""

_LEAST_S = 0.2


def this_client() -> ClientName:
    """The name of this machine as a client."""
    return ClientName(os.uname().nodename)


@dataclass(frozen=True, slots=True)
class Remote:
    """Machines that have joined.

    Attributes:
        agents: Their names, as those of clients.
        look: Has one look at its files; None where nobody here speaks to them.
    """

    agents: frozenset[ClientName]
    look: Callable[[ClientName, LookOrder], LookReport] | None


NOBODY = Remote(frozenset(), None)


class SiteProbe:
    """Looks at this machine and the site's pool. Remembers what it saw: make one for each check."""

    def __init__(
        self,
        site: Site,
        now_s: Callable[[], float] = time.monotonic,
        remote: Remote = NOBODY,
    ) -> None:
        """Prepare.

        Args:
            site: Whose pool and catalog.
            now_s: A clock that only goes forward, in seconds.
            remote: Machines that have joined.
        """
        self._remote = remote
        self._site = site
        self._now_s = now_s
        self._ends_s = now_s() + PATIENCE_S
        self._reports: dict[LookOrder, LookReport] = {}
        self._rooms: dict[str, Room] = {}
        self._history: dict[SourceName, Sequence[PastBackup]] = {}

    @property
    def is_over(self) -> bool:
        """Whether it has looked for as long as somebody may wait."""
        return self._now_s() >= self._ends_s

    def look(self, client: ClientName, order: LookOrder) -> LookReport:
        """Look at files of this machine, as this process; have another that has joined look.

        Raises:
            Unreachable: It is another machine, and has not joined.
        """
        if client in self._remote.agents:
            return self._ask(client, order)
        if client != this_client():
            raise Unreachable(
                f"'{client}' is not this machine, which is '{this_client()}', and has no agent",
                "have it join (holdfast machine token), or make the policy inactive until it has",
            )
        if order not in self._reports:
            self._reports[order] = look(self._bounded(order))
        return self._reports[order]

    def _ask(self, client: ClientName, order: LookOrder) -> LookReport:
        if self._remote.look is None:
            return _not_seen(client, "this command speaks to no machines: the site is not served")
        try:
            return self._remote.look(client, self._bounded(order))
        except Unreachable as error:
            # It comes back, and its backups wait for that.
            return _not_seen(client, error.message)

    def _bounded(self, order: LookOrder) -> LookOrder:
        left_s = max(self._ends_s - self._now_s(), _LEAST_S)
        return replace(order, within_s=min(order.within_s, left_s))

    def room(self, storage_unit: str) -> Room:
        """Try to write to the pool of a storage unit; of one that a media server owns, to read.

        Raises:
            NotAPool: It is gone.
            WrongKey: Another pool is in its place.
            StorageError: It can't be written, or not be reached.
        """
        if storage_unit not in self._rooms:
            self._rooms[storage_unit] = self._look_for_room(storage_unit)
        return self._rooms[storage_unit]

    def _look_for_room(self, storage_unit: str) -> Room:
        site = self._site
        wanted, place = site.config.pool_id, site.config.pool_url
        if storage_unit != DEFAULT_STORAGE_UNIT:
            unit = site.units.unit(storage_unit)
            if unit.server is not None:
                site.pools.of(unit.pool).image_ids()
                return Room(None)
            wanted, place = unit.pool, unit.place
        found = pool_id(try_writing(place))
        if found != wanted:
            raise WrongKey(
                f"the pool at {place} is {found}, not {wanted}",
                "another pool was put in its place, or another disk is mounted there",
            )
        return Room(_free_bytes(place))

    def history(self, source: SourceName) -> Sequence[PastBackup]:
        """What images of a source took, oldest first."""
        if source not in self._history:
            self._history[source] = [
                PastBackup(
                    (one.finished_at - one.started_at).total_seconds(), one.transmitted_bytes
                )
                for one in self._site.catalog.images(source)
            ]
        return self._history[source]

    def divided(self, key: SplitKey) -> Split | None:
        """How a path is divided into streams; None if it never was."""
        return SplitBook(self._site.database).get(key)


def _not_seen(client: ClientName, why: str) -> LookReport:
    trouble = Trouble(
        "warning",
        "not-connected",
        f"nothing of it was looked at: {why}",
        f"its backups wait until machine '{client}' is connected",
    )
    return LookReport("nobody", (trouble,))


def _free_bytes(place: str) -> int | None:
    if not places.is_directory_place(place):
        return None
    try:
        return shutil.disk_usage(place).free
    except OSError as error:
        raise storage_error(error)(f"can't look at {place}: {error.strerror}") from error
