"""Files in images: a directory at a time, by name over all images, every version of one."""

from __future__ import annotations

from bisect import bisect_right
from datetime import datetime
from typing import Annotated, Self

from fastapi import Query
from pydantic import Field

from holdfast.base.errors import Invalid, NotFound
from holdfast.control.access import Principal, Verb
from holdfast.control.catalog import FileRow, FileVersion
from holdfast.faces.api import document
from holdfast.faces.api.door import TheMaster, make_router, may
from holdfast.faces.api.image_models import NamedImage
from holdfast.faces.api.images import seen
from holdfast.faces.api.models import Model, Page
from holdfast.faces.api.paging import Pages
from holdfast.faces.api.paths import PathBytes, PathText, base64_of, path_of, text_of
from holdfast.site.master import Master

router = make_router("Files")

Browser = Annotated[Principal, may(Verb.BROWSE)]
SourceText = Annotated[
    str, Query(pattern=r"^[^\x00]+$", max_length=4096, examples=["web1:/etc,/srv"])
]


class File(Model):
    """One name in a directory, as an image has it."""

    name: str = Field(description="Bytes that are not UTF-8 are written as \\xNN.")
    name_base64: str | None = Field(description="The bytes, where they are not UTF-8.")
    kind: str = Field(examples=["file"])
    size_bytes: int
    modified_at: datetime
    mode: str = Field(description="Octal.", examples=["0644"])
    uid: int
    gid: int

    @classmethod
    def of(cls, row: FileRow) -> Self:
        """As the catalog has it."""
        return cls(
            name=text_of(row.name),
            name_base64=base64_of(row.name),
            kind=row.kind,
            size_bytes=row.size_bytes,
            modified_at=row.modified_at,
            mode=f"{row.mode:04o}",
            uid=row.uid,
            gid=row.gid,
        )


class Version(Model):
    """One state of a path, and the images that show it."""

    source: str = Field(examples=["web1:/etc,/srv"])
    path: str = Field(description="Bytes that are not UTF-8 are written as \\xNN.")
    path_base64: str | None = Field(description="The bytes, where they are not UTF-8.")
    kind: str = Field(examples=["file"])
    size_bytes: int
    modified_at: datetime
    mode: str = Field(description="Octal.", examples=["0644"])
    uid: int
    gid: int
    first_image: str = Field(description="The oldest image that shows it.")
    first_at: datetime
    last_image: str = Field(description="The newest: the one to restore from.")
    last_at: datetime
    images: int = Field(description="How many images show it.")
    current: bool = Field(description="The newest image of the source shows it.")

    @classmethod
    def of(cls, row: FileVersion) -> Self:
        """As the catalog has it."""
        return cls(
            source=text_of(row.source.encode("utf-8", "surrogateescape")),
            path=text_of(row.path),
            path_base64=base64_of(row.path),
            kind=row.kind,
            size_bytes=row.size_bytes,
            modified_at=row.modified_at,
            mode=f"{row.mode:04o}",
            uid=row.uid,
            gid=row.gid,
            first_image=row.first_image,
            first_at=row.first_at,
            last_image=row.last_image,
            last_at=row.last_at,
            images=row.images,
            current=row.current,
        )


class Found(Model):
    """What a search found."""

    items: list[Version]
    more: bool = Field(description="There is more than the limit.")


class Versions(Model):
    """Every version of a path, oldest first."""

    items: list[Version]


@router.get("/images/{id}/files")
def list_files(
    who: Browser,
    master: TheMaster,
    image: NamedImage,
    pages: Pages,
    path: PathText = "/",
    path_base64: PathBytes = None,
) -> Page[File]:
    """Names in a directory of an image, by their bytes."""
    found = seen(who, master, image)
    rows = master.catalog.list_directory(found, path_of(path, path_base64))
    after = pages.after(str)
    begin = 0
    if after is not None:
        last = _name_of(str(after[0]))
        begin = bisect_right(rows, last, key=lambda row: row.name)
    return pages.page(
        rows[begin : begin + pages.fetch], key=lambda row: (row.name.hex(),), show=File.of
    )


@router.get("/find", responses={404: document.response(404)})
def find_files(
    who: Browser,
    master: TheMaster,
    pattern: Annotated[
        str,
        Query(
            pattern=r"^[^\x00]+$",
            max_length=1000,
            description="A part of a name, or a glob with * ? [ ].",
            examples=["invoice"],
        ),
    ],
    source: Annotated[SourceText | None, Query(description="Only in this source.")] = None,
    versions: Annotated[bool, Query(description="Every version, not only the newest.")] = False,
    limit: Annotated[int, Query(ge=1, le=10_000, description="How many at most.")] = 100,
) -> Found:
    """Files and directories by name, over all images of the clients that you see."""
    rows = master.catalog.find(
        pattern,
        source=source,
        versions=versions,
        limit=limit + 1,
        visible=None if who.sees_all_clients else who.condition,
    )
    found = [Version.of(row) for row in rows]
    return Found(items=found[:limit], more=len(found) > limit)


@router.get("/versions", responses={404: document.response(404)})
def list_versions(
    who: Browser,
    master: TheMaster,
    source: SourceText,
    path: PathText = "/",
    path_base64: PathBytes = None,
) -> Versions:
    """Every version of a path that an image shows; none for a path that never was."""
    _require_source(who, master, source)
    rows = master.catalog.versions(source, path_of(path, path_base64))
    return Versions(items=[Version.of(row) for row in rows])


def _require_source(who: Principal, master: Master, source: str) -> None:
    client = master.images.client_of(source)
    if client is None or not who.sees(client):
        raise NotFound(f"there is no source '{source}'", "list them with: holdfast images")


def _name_of(place: str) -> bytes:
    try:
        return bytes.fromhex(place)
    except ValueError as error:
        raise Invalid("no row of this list has such a place") from error
