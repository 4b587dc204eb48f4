"""Dispatch: what is due becomes jobs, jobs get what they need, and workers are heard.

The front door. Must not move data, and must not know who the workers are: offers go out and
messages come in, as `wire.messages`.
"""

from holdfast.control.dispatch.agenda import Agenda
from holdfast.control.dispatch.by_hand import by_hand
from holdfast.control.dispatch.dispatcher import Dispatcher
from holdfast.control.dispatch.histories import HistoryBook
from holdfast.control.dispatch.presence import Presence
from holdfast.control.dispatch.queue import Queue
from holdfast.control.dispatch.roster import Roster
from holdfast.control.dispatch.splits import SplitBook

__all__ = [
    "Agenda",
    "Dispatcher",
    "HistoryBook",
    "Presence",
    "Queue",
    "Roster",
    "SplitBook",
    "by_hand",
]
