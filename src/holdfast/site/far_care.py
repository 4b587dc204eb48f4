"""Have a media server care for a pool on its own disk, and wait for what comes of it.

Must not do it in its place: over the network it takes many times as long. Invariants: one call has
it done once, whatever breaks meanwhile, as long as the media server is not started anew, which
begins it again; whoever is told to stop meanwhile has the media server stop, too.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from typing import TYPE_CHECKING, Any, Final

from holdfast.base.errors import HoldfastError, Unreachable
from holdfast.wire.fields import Reader
from holdfast.wire.sessions import MAX_EVENTS, event_from_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.movers.drive import Reporter
    from holdfast.wire.messages import WorkEvent

    Ask = Callable[[dict[str, Any], float], dict[str, Any]]
    """Asks a media server something, and waits for so many seconds."""

WAIT_S: Final = 5.0
"""How often is asked whether it is done."""

ANSWER_S: Final = 30.0
PATIENCE_S: Final = 120.0
"""For so long a media server that went away is waited for: its session may be back soon."""

_PAUSE_S: Final = 1.0


def far_care(
    ask: Ask,
    verb: str,
    pool: str,
    report: Reporter,
    options: dict[str, Any],
    now_s: Callable[[], float] = time.monotonic,
    there: Callable[[], bool] = lambda: False,
) -> list[WorkEvent]:
    """Have it done.

    Args:
        ask: Asks the media server.
        verb: ``collect-garbage``, ``check``, ``verify`` or ``rebuild-index``.
        pool: Its id.
        report: Called now and then while it goes on; what it raises stops it.
        options: Of the verb: ``dry_run``, ``read_data``, ``images``.
        now_s: A clock that only goes forward.
        there: Whether the media server is connected now: what it was asked then it may have begun,
            though it is gone before it says so.

    Raises:
        Unreachable: The media server is not there, or went away for long.
        HoldfastError: What it says it failed of.
    """
    work = secrets.token_hex(16)
    order = {"ask": verb, "pool": pool, "work": work, "wait_s": WAIT_S, **options}
    away_since_s: float | None = None
    begun = False
    try:
        while True:
            report(None)
            begun = begun or there()
            try:
                said = Reader(ask(order, WAIT_S + ANSWER_S), "what a media server says")
            except Unreachable:
                away_since_s = now_s() if away_since_s is None else away_since_s
                if not begun or now_s() - away_since_s > PATIENCE_S:
                    raise
                time.sleep(_PAUSE_S)
                continue
            begun, away_since_s = True, None
            if not said.flag("running"):
                return [event_from_json(one) for one in said.records("events", MAX_EVENTS)]
    except HoldfastError:
        if begun:
            with contextlib.suppress(HoldfastError):
                ask({"ask": "stop-work", "work": work}, ANSWER_S)
        raise
