"""Jobs: what there is to do, who does it, and what came of it.

The front door. Must not look inside the work of a job, nor move data, nor decide who may begin
(broker) or what is due (schedule).
"""

from holdfast.control.jobs.job import (
    COUNTER_NAMES,
    Asked,
    Event,
    Job,
    JobError,
    JobKind,
    JobState,
    Outcome,
    Remark,
    Severity,
)
from holdfast.control.jobs.life import Result, Retrying

__all__ = [
    "COUNTER_NAMES",
    "Asked",
    "Event",
    "Job",
    "JobError",
    "JobKind",
    "JobState",
    "Outcome",
    "Remark",
    "Result",
    "Retrying",
    "Severity",
]
