"""What changed between two images, or everything that an image has: in pages, or as one stream.

Must not hold more than a batch of the engine's at a time. Invariant: two images never change, so
their differences have a fixed order, and a page is found by counting.
"""

from __future__ import annotations

from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Self

from fastapi import Query
from pydantic import Field
from starlette.responses import StreamingResponse

from holdfast.base.clock import from_ns
from holdfast.control.access import Principal, Verb
from holdfast.control.catalog.rows import ADDED, CHANGED, KINDS, REMOVED
from holdfast.faces.api import document
from holdfast.faces.api.door import TheMaster, make_router, may
from holdfast.faces.api.image_models import ID, NamedImage
from holdfast.faces.api.images import seen
from holdfast.faces.api.models import Model, Page
from holdfast.faces.api.paging import Pages
from holdfast.faces.api.paths import base64_of, text_of
from holdfast.site.master import Master

if TYPE_CHECKING:
    from collections.abc import Iterator

router = make_router("Files")

MEDIA_TYPE = "application/x-ndjson"
WORDS = {ADDED: "added", REMOVED: "removed", CHANGED: "changed"}

_LINES = 10_000
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Each difference as JSON, on a line of its own.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Difference"}}},
    },
}

Browser = Annotated[Principal, may(Verb.BROWSE)]
Older = Annotated[
    str | None,
    Query(
        pattern=f"^{ID}$",
        description="Id of the image to compare with, as a rule an older one of the same source; "
        "without it everything in the image counts as added.",
        examples=["9c01" * 8],
    ),
]


class Row(NamedTuple):
    """One difference, as the engine has it."""

    path: bytes
    change: int
    kind: int
    size_bytes: int
    mtime_ns: int
    mode: int
    uid: int
    gid: int


class Difference(Model):
    """A name that one of two images has, or that is another thing in each."""

    path: str = Field(
        description="Bytes that are not UTF-8 are written as \\xNN.", examples=["/srv/a"]
    )
    path_base64: str | None = Field(description="The bytes, where they are not UTF-8.")
    change: str = Field(
        description="`added`, `removed`, or `changed`: other content or attributes.",
        examples=["changed"],
    )
    kind: str = Field(examples=["file"])
    size_bytes: int
    modified_at: datetime
    mode: str = Field(description="Octal.", examples=["0644"])
    uid: int
    gid: int

    @classmethod
    def of(cls, row: Row) -> Self:
        """As the engine has it; of what was removed, as it was."""
        return cls(
            path=text_of(row.path),
            path_base64=base64_of(row.path),
            change=WORDS[row.change],
            kind=KINDS[row.kind],
            size_bytes=row.size_bytes,
            modified_at=from_ns(row.mtime_ns),
            mode=f"{row.mode:04o}",
            uid=row.uid,
            gid=row.gid,
        )


@router.get("/images/{id}/changes")
def list_changes(
    who: Browser, master: TheMaster, image: NamedImage, pages: Pages, since: Older = None
) -> Page[Difference]:
    """What is different in an image since another one.

    Only directories that differ are read. A later page walks past those before it: for very many
    differences the export is quicker.
    """
    after = pages.after(int)
    passed = 0 if after is None else max(int(after[0] or 0), 0)
    rows: list[tuple[int, Row]] = []
    for row in enumerate(_rows(who, master, image, since, passed), start=passed + 1):
        rows.append(row)
        if len(rows) == pages.fetch:
            break
    return pages.page(rows, key=lambda one: (one[0],), show=lambda one: Difference.of(one[1]))


@router.get(
    "/images/{id}/changes/export",
    response_class=StreamingResponse,
    responses=_STREAM | {404: document.response(404)},
)
def export_changes(
    who: Browser, master: TheMaster, image: NamedImage, since: Older = None
) -> StreamingResponse:
    """All of what is different in an image since another one, a line of JSON for each name."""
    pieces = _pieces(_rows(who, master, image, since))
    # What goes wrong at its beginning is still told as a problem.
    first = next(pieces, b"")
    return StreamingResponse(chain([first], pieces), media_type=MEDIA_TYPE)


def _rows(
    who: Principal, master: Master, image: str, since: str | None, passed: int = 0
) -> Iterator[Row]:
    """The differences, without so many at the beginning."""
    new = seen(who, master, image)
    old = None if since is None else seen(who, master, since)
    both = [one for one in (old, new) if one is not None]
    for batch in master.site.pools.holding(*both).changes(old, new):
        if passed >= len(batch.rows):
            passed -= len(batch.rows)
            continue
        for at, name, change, kind, size, mtime_ns, mode, uid, gid, _ in batch.rows[passed:]:
            path = batch.dirs[at].rstrip(b"/") + b"/" + name
            yield Row(path, change, kind, size, mtime_ns, mode, uid, gid)
        passed = 0


def _pieces(rows: Iterator[Row]) -> Iterator[bytes]:
    lines: list[str] = []
    for row in rows:
        lines.append(Difference.of(row).model_dump_json())
        if len(lines) == _LINES:
            yield ("\n".join(lines) + "\n").encode()
            lines = []
    if lines:
        yield ("\n".join(lines) + "\n").encode()
