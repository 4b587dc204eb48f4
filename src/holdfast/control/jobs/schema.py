"""Tables of jobs, of what they are told to do, and of what happened to their files.

Must not hold what grows with the files of a backup, but for a bounded number of events.
Invariants: what is not there is 0 or an empty text, never NULL, so that any column can be sorted
and paged by; rows of ``jobs`` stay narrow, so that all of them can be looked through.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    text,
)

from holdfast.control.database.metadata import metadata

# by their bytes on PostgreSQL too, whatever language its database is in
TEXT = Text().with_variant(Text(collation="C"), "postgresql")
NUMBER = BigInteger().with_variant(Integer, "sqlite")


def _text(name: str) -> Column[str]:
    return Column(name, TEXT, nullable=False, server_default="")


def _number(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default="0")


jobs = Table(
    "jobs",
    metadata,
    Column("id", NUMBER, Identity(), primary_key=True),
    Column("parent_id", NUMBER, ForeignKey("jobs.id")),
    Column("restart_of", NUMBER, ForeignKey("jobs.id")),
    _number("children"),
    _text("kind"),
    _text("policy"),
    _text("schedule"),
    _text("client"),
    _text("source"),
    _text("backup_kind"),
    _text("storage_unit"),
    _number("priority"),
    _text("state"),
    Column("suspended", Boolean, nullable=False, server_default=text("false")),
    _text("asked"),
    _text("outcome"),
    _number("due_ns"),
    _number("queued_ns"),
    # when it began, or, as long as it has not, when it was queued: where it stands in time
    _number("at_ns"),
    _number("not_before_ns"),
    _number("started_ns"),
    _number("ended_ns"),
    _number("duration_ns"),
    _number("attempt"),
    _number("fence"),
    _number("lease_until_ns"),
    _text("image_id"),
    _number("files"),
    _number("size_bytes"),
    _number("online_bytes"),
    _number("new_bytes"),
    _number("transmitted_bytes"),
    _number("findings"),
    # other counters of a worker, as JSON
    _text("more_counters"),
    _text("waits_on"),
    _text("waits_for"),
    _text("error_code"),
    _text("error_message"),
    _text("error_hint"),
    _number("events"),
    _number("events_left_out"),
    # who does the work, where that is not the client; see `job.BY_SITE`
    _text("worker"),
    # what of its family it has to wait for; see `job.Held`
    _text("held"),
    sqlite_autoincrement=True,
)
Index("ix_jobs_parent_id", jobs.c.parent_id)
Index("ix_jobs_restart_of", jobs.c.restart_of)
Index("ix_jobs_state", jobs.c.state, jobs.c.id)
Index("ix_jobs_outcome", jobs.c.outcome, jobs.c.id)
Index("ix_jobs_policy", jobs.c.policy, jobs.c.id)
Index("ix_jobs_client", jobs.c.client, jobs.c.id)
Index("ix_jobs_source", jobs.c.source, jobs.c.id)
# what is counted over a time is counted from this alone
Index("ix_jobs_at_ns", jobs.c.at_ns, jobs.c.id, jobs.c.state, jobs.c.outcome, jobs.c.children)
# one occurrence of a schedule, one job
Index(
    "uq_jobs_occurrence",
    jobs.c.policy,
    jobs.c.schedule,
    jobs.c.client,
    jobs.c.source,
    jobs.c.due_ns,
    unique=True,
    sqlite_where=jobs.c.due_ns > 0,
    postgresql_where=jobs.c.due_ns > 0,
)

# the wire message of each job, as JSON; apart, as it is long and lists do not show it
job_work = Table(
    "job_work",
    metadata,
    Column("job_id", NUMBER, ForeignKey("jobs.id"), primary_key=True, autoincrement=False),
    Column("work", Text, nullable=False),
)

job_events = Table(
    "job_events",
    metadata,
    Column("job_id", NUMBER, ForeignKey("jobs.id"), primary_key=True, autoincrement=False),
    Column("seq", NUMBER, primary_key=True, autoincrement=False),
    _number("at_ns"),
    _text("severity"),
    _text("cause"),
    _text("message"),
    Column("matters", Boolean, nullable=False, server_default=text("false")),
    # empty for what is about the job itself: no file has an empty path
    Column("path", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
