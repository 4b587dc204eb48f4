"""Schedules: when the backups of a policy are due.

The front door. Pure functions of schedules, history and a moment; must not ask a clock or a
database.
"""

from holdfast.control.schedule.due import Due, Entry, History, Satisfied
from holdfast.control.schedule.forecast import Demand, Expected, forecast
from holdfast.control.schedule.occurrences import Occurrence, occurrences
from holdfast.control.schedule.schedule import BackupKind, Calendar, Schedule, Window
from holdfast.control.schedule.timetable import Timetable

__all__ = [
    "BackupKind",
    "Calendar",
    "Demand",
    "Due",
    "Entry",
    "Expected",
    "History",
    "Occurrence",
    "Satisfied",
    "Schedule",
    "Timetable",
    "Window",
    "forecast",
    "occurrences",
]
