"""What the API says of images.

Must not ask anybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import Path, Query
from pydantic import Field

from holdfast.control.catalog import CatalogState, CopyRow, ImageRow, ListedImage, Protection
from holdfast.faces.api.models import Model, Moment

ID = "[0-9a-f]{32}"
MAX_REASON = 500

NamedImage = Annotated[
    str, Path(alias="id", pattern=f"^{ID}$", description="Whole id of an image.",
              examples=["3f2a" * 8])
]  # fmt: skip
Text = Annotated[str | None, Query(pattern=r"^[^\x00]+$", max_length=4096)]
Reason = Annotated[
    str,
    Field(
        pattern=r"^[^\x00]+$",
        max_length=MAX_REASON,
        description="Why; shown with the image.",
        examples=["case 17, until the court says so"],
    ),
]


class Image(Model):
    """One backup's result."""

    id: str = Field(examples=["3f2a" * 8])
    number: int = Field(description="Later images of a pool have higher ones.", examples=[17])
    source: str = Field(description="What it is of.", examples=["web1:/etc,/srv"])
    client: str = Field(examples=["web1"])
    policy: str | None = Field(description="Null for what no policy ordered.", examples=["servers"])
    schedule: str | None = Field(examples=["nightly"])
    backup_kind: str | None = Field(description="What was ordered.", examples=["full"])
    started_at: datetime
    finished_at: datetime
    status: str = Field(description="How the backup ended.", examples=["completed"])
    files: int = Field(description="Regular files in it.")
    size_bytes: int = Field(description="Of everything that was found.")
    online_bytes: int = Field(description="Of the files that had changed.")
    new_bytes: int = Field(description="Of chunks that the pool did not have.")
    transmitted_bytes: int = Field(description="The same after compression.")
    findings: int = Field(description="Problems with single files.")
    parent: str | None = Field(description="The image that it was compared with.")
    client_key: str | None = Field(
        description="Id of the client key that its files are sealed with; null: the site can read "
        "them.",
        examples=["5d1e" * 8],
    )
    sealed_names: bool = Field(description="Whether the names of its files are sealed, too.")
    holds: list[str] = Field(description="Reasons for which it is held.", examples=[["case 17"]])
    locked_until: datetime | None = Field(description="The end of its lock; it may be past.")
    catalog_state: CatalogState = Field(description="Whether its files can be looked at yet.")
    catalog_detail: str | None = Field(description="Why not, if that failed.")

    @classmethod
    def of(cls, listed: ListedImage) -> Image:
        """As lists have it."""
        return cls(**_facts(listed.image, listed.protection))


class Copy(Model):
    """Where an image is stored."""

    pool: str = Field(description="Id of the pool.", examples=["9c01" * 8])
    recorded_at: datetime


class ImageDetail(Image):
    """One backup's result, and where it is."""

    job: str | None = Field(
        description="The job that made it, by the site's id and the job's.", examples=["5d1e/7"]
    )
    copies: list[Copy]
    boots: bool | None = Field(
        description="What the last boot check said; null: it was never booted."
    )

    @classmethod
    def made_of(
        cls, row: ImageRow, kept: Protection, copies: Sequence[CopyRow], boots: bool | None
    ) -> Self:
        """As the catalog has it."""
        where = [Copy(pool=one.pool, recorded_at=one.recorded_at) for one in copies]
        return cls(**_facts(row, kept), job=row.job, copies=where, boots=boots)


class NewHold(Model):
    """Why an image is to be held."""

    reason: Reason


class NewLock(Model):
    """Until when an image is to be locked."""

    until: Moment = Field(description="In the future.", examples=["2036-01-31T18:00:00Z"])


def _facts(row: ImageRow, kept: Protection) -> dict[str, Any]:
    return {
        "id": row.id,
        "number": row.number,
        "source": row.source,
        "client": row.host,
        "policy": row.policy,
        "schedule": row.schedule,
        "backup_kind": row.backup_kind,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "status": row.status,
        "files": row.files,
        "size_bytes": row.size_bytes,
        "online_bytes": row.online_bytes,
        "new_bytes": row.new_bytes,
        "transmitted_bytes": row.transmitted_bytes,
        "findings": row.findings,
        "parent": row.parent,
        "client_key": row.client_key,
        "sealed_names": row.sealed_names,
        "holds": list(kept.holds),
        "locked_until": kept.locked_until,
        "catalog_state": row.catalog_state,
        "catalog_detail": row.catalog_detail,
    }
