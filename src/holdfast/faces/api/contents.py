"""The content of one file of an image, as a download: whole, or a range of it.

Must not keep a file in memory, nor write it anywhere: it goes from the pool to whoever asks, in
blocks. Invariants: what was read from the pool was authenticated by the engine; a download that
can't be completed is cut short of its stated length, never filled up; each is in the audit log
before its first byte goes out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import format_datetime
from hashlib import blake2b
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

from fastapi import Header, Request
from starlette.responses import Response, StreamingResponse

from holdfast.base.clock import from_ns
from holdfast.base.errors import IntegrityError, Invalid
from holdfast.base.ids import clean_path
from holdfast.control.access import Entry, Outcome, Principal, Verb
from holdfast.faces.api import acting
from holdfast.faces.api.document import response
from holdfast.faces.api.door import TheMaster, make_router, may
from holdfast.faces.api.image_models import NamedImage
from holdfast.faces.api.images import seen
from holdfast.faces.api.paths import PathBytes, PathText, path_of, text_of
from holdfast.faces.api.problems import problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.engine import FileReader

router = make_router("Files")

BLOCK_BYTES = 4 << 20
"""How much is read at a time: few enough crossings from Rust to Python, little enough memory."""

MEDIA_TYPE = "application/octet-stream"
"""Of every file: what a backup holds is nothing for a browser to show."""

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_UNPRINTABLE = re.compile(r'[^ -~]|["\\%/]')
_BINARY = {"content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}

RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file.", **_BINARY},
    206: {"description": "The range that was asked for.", **_BINARY},
    416: response(416),
}


@dataclass(frozen=True, slots=True)
class _Span:
    """Which bytes: from the first up to, and without, the end."""

    begin: int
    end: int


@router.get("/images/{id}/content", response_class=StreamingResponse, responses=RESPONSES)
def read_content(
    request: Request,
    who: Annotated[Principal, may(Verb.RESTORE)],
    master: TheMaster,
    image: NamedImage,
    path: PathText = "/",
    path_base64: PathBytes = None,
    wanted: Annotated[
        str | None,
        Header(
            alias="Range",
            max_length=1000,
            description="One range of bytes, such as `bytes=0-1023` or `bytes=-500`; whatever "
            "else it says is answered with the whole file.",
        ),
    ] = None,
    unchanged: Annotated[
        str | None,
        Header(
            alias="If-Range",
            max_length=1000,
            description="The `ETag` of an earlier answer: the range is for that file alone.",
        ),
    ] = None,
) -> Response:
    """The content of one regular file of an image.

    `Range` goes on where a download broke off. Each download is in the audit log.
    """
    found = seen(who, master, image)
    place = clean_path(path_of(path, path_base64))
    pool = master.site.pools.holding(found)
    entry = pool.entry(found, place)
    if entry.kind != "file":
        raise Invalid(
            f"'{text_of(place)}' in image {found} has no content: it is of the kind '{entry.kind}'",
            f"/api/v1/images/{found}/files lists directories; a restore brings back all kinds",
        )
    reader = pool.open_file(found, place)
    size = reader.size
    tag = f'"{found}-{blake2b(place, digest_size=8).hexdigest()}"'
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": tag,
        "Last-Modified": format_datetime(from_ns(entry.mtime_ns), usegmt=True),
        "Cache-Control": "no-store",
        "Content-Disposition": _disposition(place.rpartition(b"/")[2]),
        "X-Content-Type-Options": "nosniff",
    }
    span = _span(wanted if unchanged in (None, tag) else None, size)
    if span is not None and span.begin >= span.end:
        error = Invalid(f"'{text_of(place)}' has {size} bytes, and nothing in the range '{wanted}'")
        return problem(error, status=416, headers={"Content-Range": f"bytes */{size}"})
    chosen = span or _Span(0, size)
    blocks = _blocks(reader, chosen)
    # What goes wrong at its beginning is still told as a problem.
    first = next(blocks, b"")
    said = acting.circumstances(request, who) | {"first_byte": chosen.begin, "end": chosen.end}
    about = acting.about(request)
    master.audit.append(Entry.of(who.name, "read_content", about, Outcome.DONE, said))
    headers["Content-Length"] = str(chosen.end - chosen.begin)
    status = 200
    if span is not None:
        status = 206
        headers["Content-Range"] = f"bytes {span.begin}-{span.end - 1}/{size}"
    return StreamingResponse(chain([first], blocks), status, headers, MEDIA_TYPE)


def _blocks(reader: FileReader, span: _Span) -> Iterator[bytes]:
    at = span.begin
    while at < span.end:
        block = reader.read_at(at, min(BLOCK_BYTES, span.end - at))
        if not block:
            raise IntegrityError(f"a stored file ends at byte {at}, and should have {span.end}")
        yield block
        at += len(block)


def _span(wanted: str | None, size: int) -> _Span | None:
    """The one range of bytes that is asked for; empty if the file has nothing there.

    None where the whole file is to be sent: several ranges, other units, and what can't be read
    may be ignored (RFC 9110, section 14.2).
    """
    found = None if wanted is None else _RANGE.fullmatch(wanted.strip())
    if found is None or found[0] == "bytes=-":
        return None
    if not found[1]:
        return _Span(max(size - int(found[2]), 0), size)
    begin = int(found[1])
    if not found[2]:
        return _Span(begin, size)
    last = int(found[2])
    return None if last < begin else _Span(begin, min(last + 1, size))


def _disposition(name: bytes) -> str:
    """How a browser is to name the file (RFC 6266)."""
    text = name.decode("utf-8", "replace")
    plain = _UNPRINTABLE.sub("_", text)
    told = f'attachment; filename="{plain}"'
    return told if plain == text else f"{told}; filename*=UTF-8''{quote(text, safe='')}"
