"""Schedules: when the backups of a policy are due.

The front door. Pure functions of schedules, history and a moment; must not ask a clock or a
database.
"""

from holdfast.control.schedule.occurrences import Occurrence, occurrences
from holdfast.control.schedule.schedule import BackupKind, Calendar, Schedule, Window

__all__ = ["BackupKind", "Calendar", "Occurrence", "Schedule", "Window", "occurrences"]
