"""Jobs that a test puts into the book of jobs, and what happens to them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from holdfast.base.ids import ClientName, ImageId, JobId, PolicyName, SourceName
from holdfast.control.jobs import (
    Job,
    JobBook,
    JobError,
    JobKind,
    NewJob,
    Outcome,
    Remark,
    Result,
    Severity,
    Sort,
    Wanted,
)

DUE = datetime(2026, 1, 2, 3, 0, tzinfo=UTC)
IO = JobError("io", "can't read /dev/sda", "look at the cable")
COMPLETED = Result(Outcome.COMPLETED, ImageId("ab" * 16), {"files": 3, "online_bytes": 10})


def backup(client: str = "web1", paths: str = "/etc", **more: Any) -> NewJob:
    given: dict[str, Any] = {
        "kind": JobKind.BACKUP,
        "work": {"paths": [paths], "client": client},
        "policy": PolicyName("nightly"),
        "schedule": "daily",
        "client": ClientName(client),
        "source": SourceName(f"{client}:{paths}"),
        "backup_kind": "differential",
        "storage_unit": "default",
    }
    return NewJob(**given | more)


def family(client: str = "web1", *paths: str, **more: Any) -> NewJob:
    parts = tuple(backup(client, one, **more) for one in paths or ("/etc", "/home", "/srv"))
    return backup(client, source=None, work={}, parts=parts, **more)


def add(book: JobBook, *new: NewJob) -> list[JobId]:
    return [one.id for one in book.enqueue(new)]


def parts_of(book: JobBook, parent: JobId) -> list[Job]:
    return list(book.page(Wanted(parent=parent), Sort("id")))


def begin(book: JobBook, job: JobId) -> int:
    (granted,) = book.grant([job])
    return granted.job.fence


def remark(number: int, **more: Any) -> Remark:
    given: dict[str, Any] = {
        "severity": Severity.WARNING,
        "cause": "vanished",
        "message": f"it went, {number}",
        "path": b"/srv/\xff\x00%d" % number,
    }
    return Remark(**given | more)
