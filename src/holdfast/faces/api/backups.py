"""Backups by hand: paths of the machine that serves the site, under no policy."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from holdfast.control.access import Principal, Verb
from holdfast.faces.api import document
from holdfast.faces.api.door import TheMaster, TheNote, make_router, may
from holdfast.faces.api.models import Model
from holdfast.faces.api.paths import EncodedPath, decoded
from holdfast.faces.api.pool import Queued
from holdfast.movers.backup_run import COMPRESSION_LEVELS, DEFAULT_COMPRESSION
from holdfast.site import running
from holdfast.site.probing import this_client

router = make_router("Images")

PathText = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^/[^\x00]*$")]


class NewBackup(Model):
    """What is to be backed up: one path at least."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": [name], "properties": {name: {"minItems": 1}}}
                for name in ("paths", "paths_base64")
            ]
        }
    )

    paths: list[PathText] = Field(
        default=[],
        max_length=1000,
        description="Absolute paths of the machine that serves the site.",
        examples=[["/etc", "/srv"]],
    )
    paths_base64: list[EncodedPath] = Field(
        default=[],
        max_length=1000,
        description="More paths, as base64 of their bytes: for those that are not UTF-8.",
    )
    exclude: list[Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]+$")]] = (
        Field(
            default=[],
            max_length=1000,
            description="What to leave out, in gitignore syntax.",
            examples=[["*.tmp", "/srv/cache"]],
        )
    )
    full: bool = Field(default=False, description="Read every file again, changed or not.")
    one_file_system: bool = Field(
        default=False, description="Do not cross into other file systems."
    )
    compression: int = Field(
        default=DEFAULT_COMPRESSION,
        ge=COMPRESSION_LEVELS[0],
        le=COMPRESSION_LEVELS[-1],
        description="zstd level: 1 is quick, 19 is small.",
    )


@router.post("/backups", status_code=202, responses={404: document.response(404)})
def back_up(
    who: Annotated[Principal, may(Verb.RUN_POLICIES)],
    master: TheMaster,
    body: NewBackup,
    note: TheNote,
) -> Queued:
    """Queue a backup of paths, as `holdfast backup` does it; a master that is served begins it.

    Only what changed since the last image of the same paths is stored. They are read by the process
    that serves the site, with its rights.
    """
    who.require_clients({this_client()})
    job = running.adhoc_job(
        [*(path.encode() for path in body.paths), *map(decoded, body.paths_base64)],
        exclude=body.exclude,
        full=body.full,
        one_file_system=body.one_file_system,
        compression=body.compression,
    )
    queued = running.enqueue(master, job)
    note.details["job"] = queued
    return Queued(job=queued)
