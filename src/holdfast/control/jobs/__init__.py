"""Jobs: what there is to do, who does it, and what came of it.

The front door. Must not look inside the work of a job, nor move data, nor decide who may begin
(broker) or what is due (schedule).
"""

from holdfast.control.jobs.book import LEASE, Granted, JobBook
from holdfast.control.jobs.causes import remark
from holdfast.control.jobs.enqueue import Enqueued, NewJob
from holdfast.control.jobs.events import WantedEvents
from holdfast.control.jobs.job import (
    BY_SITE,
    COUNTER_NAMES,
    OF_CLIENTS,
    Asked,
    Event,
    Held,
    Job,
    JobError,
    JobKind,
    JobState,
    Outcome,
    Remark,
    Severity,
)
from holdfast.control.jobs.life import Result, Retrying
from holdfast.control.jobs.lists import Wanted
from holdfast.control.jobs.numbers import Depth, Numbers
from holdfast.control.jobs.paging import Sort
from holdfast.control.jobs.queue import Ready

__all__ = [
    "BY_SITE",
    "COUNTER_NAMES",
    "LEASE",
    "OF_CLIENTS",
    "Asked",
    "Depth",
    "Enqueued",
    "Event",
    "Granted",
    "Held",
    "Job",
    "JobBook",
    "JobError",
    "JobKind",
    "JobState",
    "NewJob",
    "Numbers",
    "Outcome",
    "Ready",
    "Remark",
    "Result",
    "Retrying",
    "Severity",
    "Sort",
    "Wanted",
    "WantedEvents",
    "remark",
]
