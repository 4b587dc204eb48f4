"""Restores: an image, or parts of it, back into a directory of a machine of the site."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import Field

from holdfast.base.errors import NotFound
from holdfast.base.ids import ClientName
from holdfast.control.access import Principal, Verb
from holdfast.faces.api import document
from holdfast.faces.api.door import TheMaster, TheNote, make_router, may
from holdfast.faces.api.image_models import NamedImage
from holdfast.faces.api.images import seen
from holdfast.faces.api.models import Model
from holdfast.faces.api.paths import EncodedPath, decoded
from holdfast.site import running
from holdfast.site.probing import this_client
from holdfast.wire.messages import RestoreWork

router = make_router("Images")

PathText = Annotated[str, Field(min_length=1, max_length=8192, pattern=r"^/[^\x00]*$")]


class NewRestore(Model):
    """What is to be restored, and where to."""

    target: PathText = Field(
        description="An absolute directory of the machine that this is done on; made if it is "
        "missing.",
        examples=["/restore/web1"],
    )
    client: str | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        description="The machine that this is done on, which has joined the site; the one that "
        "serves the site, if left out.",
        examples=["web2"],
    )
    paths: list[PathText] = Field(
        default=[],
        max_length=1000,
        description="Absolute paths inside the image; all of it, if left out.",
        examples=[["/srv/data"]],
    )
    paths_base64: list[EncodedPath] = Field(
        default=[],
        max_length=1000,
        description="More of them, as base64 of their bytes: for those that are not UTF-8.",
    )
    overwrite: Literal["never", "older", "always"] | None = Field(
        default=None,
        description="What becomes of names that are there; if left out, the directory has to be "
        "empty.",
    )
    strip_components: int = Field(
        default=0, ge=0, le=1000, description="How many leading parts of each path to leave out."
    )
    verify: bool = Field(
        default=False, description="Read everything back and compare it with the image."
    )
    only_this: bool = Field(
        default=False,
        description="Only this image. Else, of one stream of a path, the images of the other "
        "streams of the same backup are restored with it.",
    )


class Restore(Model):
    """What was queued. A master that is served begins it."""

    job: int = Field(description="Id of the job.", examples=[7])


@router.post("/images/{id}/restores", status_code=202, responses={404: document.response(404)})
def restore_image(
    who: Annotated[Principal, may(Verb.RESTORE)],
    master: TheMaster,
    image: NamedImage,
    body: NewRestore,
    note: TheNote,
) -> Restore:
    """Restore an image, or parts of it, as a job; what could not be restored is in its events.

    Files are written by the process of that machine, with its rights, and nothing is written
    outside of the target. You need to be allowed for the client that this is done on, as well as
    for the one that the image is of.
    """
    found = seen(who, master, image)
    here = body.client is None or body.client == this_client()
    who.require_clients({this_client() if here else ClientName(body.client or "")})
    if not here and body.client not in master.machines.standing().agents:
        raise NotFound(
            f"no machine '{body.client}' has joined this site",
            "'holdfast machine list' shows those that have",
        )
    work = RestoreWork(
        client=None if here else body.client,
        image=found,
        paths=(*body.paths, *(os.fsdecode(decoded(one)) for one in body.paths_base64)),
        target=body.target,
        overwrite=body.overwrite,
        strip_components=body.strip_components,
        verify=body.verify,
    )
    if not body.only_this:
        work = running.with_other_streams(master, work)
    job = running.enqueue(master, running.restore_job(master, master.catalog.image(found), work))
    note.details["job"] = job
    return Restore(job=job)
