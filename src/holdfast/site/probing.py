"""Who looks for a policy's live checks: this machine, its pool and its catalog.

Must not judge what is seen. One machine is all there is: others can't be reached yet.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from holdfast.base.errors import Unreachable, WrongKey, storage_error
from holdfast.base.ids import ClientName, pool_id
from holdfast.control.policies import PastBackup, Room
from holdfast.movers.probe import look
from holdfast.site import places
from holdfast.vault import try_writing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.base.ids import SourceName
    from holdfast.site.site import Site
    from holdfast.wire.looking import LookOrder, LookReport


PATIENCE_S = 20.0
"""How long to look in all, for as many policies as there are."""

_LEAST_S = 0.2


def this_client() -> ClientName:
    """The name of this machine as a client."""
    return ClientName(os.uname().nodename)


class SiteProbe:
    """Looks at this machine and the site's pool. Remembers what it saw: make one for each check."""

    def __init__(self, site: Site, now_s: Callable[[], float] = time.monotonic) -> None:
        """Prepare.

        Args:
            site: Whose pool and catalog.
            now_s: A clock that only goes forward, in seconds.
        """
        self._site = site
        self._now_s = now_s
        self._ends_s = now_s() + PATIENCE_S
        self._reports: dict[LookOrder, LookReport] = {}
        self._room: Room | None = None
        self._history: dict[SourceName, Sequence[PastBackup]] = {}

    @property
    def is_over(self) -> bool:
        """Whether it has looked for as long as somebody may wait."""
        return self._now_s() >= self._ends_s

    def look(self, client: ClientName, order: LookOrder) -> LookReport:
        """Look at files of this machine, as this process.

        Raises:
            Unreachable: It is another machine.
        """
        if client != this_client():
            raise Unreachable(
                f"'{client}' is not this machine, which is '{this_client()}', and has no agent",
                "back it up by a site of its own, or make the policy inactive until it has one",
            )
        if order not in self._reports:
            left_s = max(self._ends_s - self._now_s(), _LEAST_S)
            bounded = replace(order, within_s=min(order.within_s, left_s))
            self._reports[order] = look(bounded)
        return self._reports[order]

    def room(self, storage_unit: str) -> Room:  # noqa: ARG002 - there is one
        """Try to write to the pool.

        Raises:
            NotAPool: It is gone.
            WrongKey: Another pool is in its place.
            StorageError: It can't be written.
        """
        if self._room is None:
            config = self._site.config
            found = pool_id(try_writing(config.pool_url))
            if found != config.pool_id:
                raise WrongKey(
                    f"the pool at {config.pool_url} is {found}, not {config.pool_id}",
                    "another pool was put in its place, or another disk is mounted there",
                )
            self._room = Room(_free_bytes(config.pool_url))
        return self._room

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


def _free_bytes(place: str) -> int | None:
    if not places.is_directory_place(place):
        return None
    try:
        return shutil.disk_usage(place).free
    except OSError as error:
        raise storage_error(error)(f"can't look at {place}: {error.strerror}") from error
