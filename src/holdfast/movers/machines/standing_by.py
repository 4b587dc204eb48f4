"""Stand by a machine that runs from its image, until it needs that no more.

Must not serve the image. Invariants: a machine that stands still for want of its image goes on as
soon as that can be read, and not before; who reads while it can't be read is let go, so that the
hypervisor has the machine stand still before its guest takes a read for lost.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holdfast.base.errors import HoldfastError, MachineMissing
from holdfast.sources.machines.machine import State
from holdfast.wire.messages import WorkEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holdfast.movers.machines.image_watch import ImageWatch
    from holdfast.sources.machines.overlays import Over, Standing
    from holdfast.sources.machines.provider import Provider

UP, RUNNING, STUCK, NEEDS, READS_FAILED, AWAY, APART = (
    "machine_up",
    "machine_running",
    "machine_stuck",
    "disks_needed",
    "reads_failed",
    "image_away",
    "host_away",
)
"""What a worker counts while it serves: whether the machine was started, runs, stands still for
want of its image; how many disks need that; how many reads failed; whether the image can't be read
now; whether its hypervisor can't be reached."""

_LOOK_S = 2.0
_WAIT_S = 0.2
_GONE = 3
"""So often in a row a machine is to be missing before it is taken for gone."""


@dataclass
class StandingBy:
    """One machine and what is to be done about it.

    Attributes:
        provider: Its hypervisor.
        over: It.
        keep: Sees to it that the hypervisor reaches the disks that are served here.
        watch: Whether the image can be read.
        let_go: Leaves those who read.
        tell: Takes what is counted.
        alive: Called all the while; what it raises ends this.
        note: Takes what a person may want to know.
        failed: Names of disks, one for each read that failed.
    """

    provider: Provider
    over: Over
    keep: Callable[[], None]
    watch: ImageWatch
    let_go: Callable[[], None]
    tell: Callable[[Mapping[str, int]], None]
    alive: Callable[[], None]
    note: Callable[[WorkEvent], None]
    failed: list[str]
    _counted: dict[str, int] = field(default_factory=dict)
    _away_s: float = 0.0
    _apart_s: float | None = None
    _missing: int = 0

    def __call__(self) -> None:
        """Wait until the machine needs the image no more; have it go on where it stood still.

        Raises:
            MachineMissing: It is gone.
        """
        look_s = 0.0
        while True:
            self._mind_the_image()
            if time.monotonic() >= look_s:
                look_s = time.monotonic() + _LOOK_S
                if self._look():
                    self.note(
                        WorkEvent("info", "own", f"'{self.over.name}' needs its image no more")
                    )
                    return
            self.alive()
            time.sleep(_WAIT_S)

    def _mind_the_image(self) -> None:
        away_s = self.watch.away_s
        if away_s:
            self._away_s = away_s
            if not self._counted.get(AWAY):
                self._count({AWAY: 1})
                self.let_go()
        elif self._counted.get(AWAY):
            self._count({AWAY: 0})
            said = (
                f"the image of '{self.over.name}' could not be read for {self._away_s:.0f} s: "
                "reads of it waited, nothing is lost"
            )
            self.note(WorkEvent("warning", "image-away", said))

    def _look(self) -> bool:
        """See how it is; whether it needs its image no more."""
        try:
            self.keep()
            found = self.provider.standing(self.over)
        except MachineMissing as error:
            self._missing += 1
            if self._missing >= _GONE:
                raise MachineMissing(
                    f"{error.message}: what it wrote went with it, and it is not begun anew",
                    "'holdfast instant discard' takes away what is left",
                ) from error
            return False
        except HoldfastError as error:
            # Its hypervisor is restarted, perhaps, or cut off: disks are served all the same.
            self._apart(error)
            return False
        self._missing = 0
        self._together()
        self._count(_counts(found, self.failed))
        if found.needs and found.stuck and not self.watch.away_s:
            with contextlib.suppress(HoldfastError):
                self.provider.go_on(self.over)
                said = f"'{self.over.name}' stood still, and goes on"
                self.note(WorkEvent("info", "went-on", said))
        return not found.needs

    def _apart(self, error: HoldfastError) -> None:
        if self._apart_s is None:
            self._apart_s = time.monotonic()
            said = f"the hypervisor of '{self.over.name}' is not reached: {error.message}"
            self.note(WorkEvent("warning", "apart", said))
        if self._counted.get(UP):
            self._count({APART: 1})

    def _together(self) -> None:
        if self._apart_s is not None:
            lasted_s = time.monotonic() - self._apart_s
            self._apart_s = None
            said = f"the hypervisor of '{self.over.name}' is reached again, after {lasted_s:.0f} s"
            self.note(WorkEvent("info", "together", said))
            self._counted[APART] = 0

    def _count(self, counted: Mapping[str, int]) -> None:
        self._counted.update(counted)
        self.tell(self._counted)


def _counts(found: Standing, failed: list[str]) -> dict[str, int]:
    return {
        UP: 1,
        RUNNING: int(found.state is State.RUNNING),
        STUCK: int(found.stuck),
        NEEDS: len(found.needs),
        READS_FAILED: len(failed),
    }
