"""Tables as files to download, row by row.

Must not query.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import Query
from starlette.responses import StreamingResponse

from holdfast.base.zones import zone_named
from holdfast.control.jobs import export
from holdfast.control.jobs.activity import ACTIVITY, EVENTS
from holdfast.control.jobs.export import Format
from holdfast.faces.api.document import response

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from holdfast.control.jobs import Event, Job
    from holdfast.control.jobs.activity import Column

Row = TypeVar("Row")

Wanted = Annotated[Format, Query(description="What kind of file.")]
Zone = Annotated[
    str,
    Query(
        description="Whose time is in text and workbooks; in CSV it is always UTC.",
        examples=["Europe/Berlin"],
        max_length=100,
    ),
]

RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file.",
        "content": {
            one.media_type.partition(";")[0]: {"schema": {"type": "string", "format": "binary"}}
            for one in Format
        },
    },
    404: response(404),
}


def activity(form: Format, jobs: Iterable[Job], zone: str, name: str) -> StreamingResponse:
    """The activity log as a file."""
    return _download(form, ACTIVITY, jobs, zone, name)


def events(form: Format, found: Iterable[Event], zone: str, name: str) -> StreamingResponse:
    """The event log of a job as a file."""
    return _download(form, EVENTS, found, zone, name)


def _download(
    form: Format, columns: Sequence[Column[Row]], rows: Iterable[Row], zone: str, name: str
) -> StreamingResponse:
    pieces = iter(export.chunks(form, columns, rows, zone_named(zone)))
    # What goes wrong at its beginning is still told as a problem.
    first = next(pieces, b"")
    headers = {"Content-Disposition": f'attachment; filename="{name}{form.suffix}"'}
    return StreamingResponse(chain([first], pieces), media_type=form.media_type, headers=headers)
