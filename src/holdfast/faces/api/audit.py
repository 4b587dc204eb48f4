"""The audit log: read, verified, its end handed out."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import Field

from holdfast.base.clock import from_ns
from holdfast.control import access
from holdfast.control.access import Outcome, Principal, Verb
from holdfast.faces.api.door import TheMaster, make_router, may
from holdfast.faces.api.models import Model, Moment, Page
from holdfast.faces.api.paging import Pages

router = make_router("Audit")

MAX_HEADS = 100

Auditor = Annotated[Principal, may(Verb.READ_AUDIT)]
Text = Annotated[str | None, Query(pattern=r"^[^\x00]+$", max_length=500)]
HeadText = Annotated[
    str, Field(pattern=r"^(0|[1-9][0-9]{0,17}):[0-9a-f]{64}$", examples=["1:" + "ab" * 32])
]


class Row(Model):
    """One row of the audit log."""

    seq: int = Field(description="Counts from 1 without a gap.")
    at: datetime
    at_ns: int = Field(description="The same in ns since 1970, exactly.")
    who: str = Field(examples=["alice"])
    what: str = Field(description="The operation of this document.", examples=["create_user"])
    object: str = Field(description="What it was about.", examples=["users/bob"])
    outcome: str = Field(description="done, refused, failed or unknown.", examples=["done"])
    details: Any = Field(examples=[{"from": "192.0.2.7", "token": "0c5bd1f5a2e9"}])
    previous: str = Field(description="Hash of the row before.", examples=["ab" * 32])
    hash: str = Field(description="Hash of this row.", examples=["cd" * 32])

    @classmethod
    def of(cls, row: access.Row) -> Row:
        """As the log has it."""
        entry = row.entry
        try:
            details = json.loads(entry.details)
        except ValueError:
            # Somebody wrote into the table; verification will say so.
            details = entry.details
        return cls(
            seq=row.seq,
            at=from_ns(row.at_ns),
            at_ns=row.at_ns,
            who=entry.who,
            what=entry.what,
            object=entry.about,
            outcome=entry.outcome,
            details=details,
            previous=row.previous,
            hash=row.hash,
        )


class Head(Model):
    """The end of the log. Kept elsewhere, it shows later whether anything before it was touched."""

    head: HeadText


class Break(Model):
    """Where the log is not what was written."""

    seq: int = Field(description="The first such row.", examples=[17])
    why: str = Field(examples=["it was changed after it was written"])


class Verification(Model):
    """What came of following the whole log."""

    intact: bool
    rows: int = Field(description="How many rows are whole, from the first on.")
    head: HeadText
    broken: Break | None


@router.get("/audit")
def list_audit(
    _: Auditor,
    master: TheMaster,
    pages: Pages,
    who: Text = None,
    what: Text = None,
    object: Text = None,  # noqa: A002 - the log's own word
    outcome: Outcome | None = None,
    since: Annotated[Moment | None, Query(description="Not before.")] = None,
    until: Annotated[Moment | None, Query(description="Before.")] = None,
    order: Annotated[Literal["newest", "oldest"], Query(description="Which first.")] = "newest",
) -> Page[Row]:
    """Rows of the audit log. An `object` that ends with a slash stands for all below it."""
    master.site.hear_notes()
    wanted = access.Filter(who, what, object, outcome, since, until)
    after = pages.after(int)
    rows = master.audit.rows(
        wanted,
        limit=pages.fetch,
        after=int(after[0] or 0) if after else None,
        newest_first=order == "newest",
    )
    return pages.page(rows, key=lambda row: (row.seq,), show=Row.of)


@router.get("/audit/head")
def read_audit_head(_: Auditor, master: TheMaster) -> Head:
    """The end of the log, to be kept elsewhere."""
    master.site.hear_notes()
    return Head(head=str(master.audit.head()))


@router.get("/audit/verification")
def verify_audit(
    _: Auditor,
    master: TheMaster,
    head: Annotated[
        list[HeadText] | None,
        Query(max_length=MAX_HEADS, description="Heads that were kept; the log has to pass each."),
    ] = None,
) -> Verification:
    """Follow the whole log from its first row; this takes some seconds a million rows."""
    master.site.hear_notes()
    found = master.audit.verify([access.Head.parse(text) for text in head or ()])
    broken = found.broken
    return Verification(
        intact=broken is None,
        rows=found.rows,
        head=str(found.head),
        broken=None if broken is None else Break(seq=broken.seq, why=broken.why),
    )
