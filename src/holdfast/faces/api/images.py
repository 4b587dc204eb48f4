"""Images: what there is to restore, what keeps it, and letting go of it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from holdfast.base import errors
from holdfast.base.ids import ImageId
from holdfast.control.access import Principal, Verb
from holdfast.control.boot_checks import BootCheckBook
from holdfast.control.catalog import WantedImages
from holdfast.faces.api.door import TheMaster, make_router, may
from holdfast.faces.api.image_models import (
    Image,
    ImageDetail,
    NamedImage,
    NewHold,
    NewLock,
    Reason,
    Text,
)
from holdfast.faces.api.models import Moment, Page
from holdfast.faces.api.paging import Pages
from holdfast.site import keeping
from holdfast.site.master import Master

router = make_router("Images")

Viewer = Annotated[Principal, may(Verb.SEE)]
Protector = Annotated[Principal, may(Verb.PROTECT)]
Releaser = Annotated[Principal, may(Verb.LET_GO)]


@router.get("/images")
def list_images(
    who: Viewer,
    master: TheMaster,
    pages: Pages,
    source: Annotated[Text, Query(description="Of this source.")] = None,
    client: Annotated[Text, Query(description="Of this client.")] = None,
    policy: Annotated[Text, Query(description="Made under this policy.")] = None,
    since: Annotated[Moment | None, Query(description="Begun then or later.")] = None,
    until: Annotated[Moment | None, Query(description="Begun before.")] = None,
) -> Page[Image]:
    """The images that you see, newest first."""
    master.site.hear_notes()
    visible = None if who.sees_all_clients else who.condition
    wanted = WantedImages(source, client, policy, since, until, visible)
    after = pages.after(int, str)
    rows = master.images.images(
        wanted,
        limit=pages.fetch,
        after=None if after is None else (int(after[0] or 0), str(after[1])),
    )
    return pages.page(rows, key=lambda row: row.place, show=Image.of)


@router.get("/images/{id}")
def read_image(who: Viewer, master: TheMaster, image: NamedImage) -> ImageDetail:
    """One image, with where it is and what keeps it."""
    return detail(master, seen(who, master, image))


@router.post("/images/{id}/holds", status_code=201)
def hold_image(who: Protector, master: TheMaster, image: NamedImage, body: NewHold) -> ImageDetail:
    """Keep an image until the hold is lifted, whatever rules say.

    An image may be held for several reasons; it stays until the last is lifted. A second time for
    the same reason changes nothing.
    """
    found = seen(who, master, image)
    master.catalog.hold(found, keeping.reason(body.reason))
    return detail(master, found)


@router.delete("/images/{id}/holds")
def lift_holds(
    who: Releaser,
    master: TheMaster,
    image: NamedImage,
    reason: Annotated[Reason | None, Query(description="Only the hold of this reason.")] = None,
) -> ImageDetail:
    """Lift one hold of an image, or all. Rules decide about it again when none is left."""
    found = seen(who, master, image)
    stated = None if reason is None else keeping.reason(reason)
    keeping.require_held(found, master.images.protection(found).holds, stated)
    master.catalog.unhold(found, stated)
    return detail(master, found)


@router.put("/images/{id}/lock")
def lock_image(who: Protector, master: TheMaster, image: NamedImage, body: NewLock) -> ImageDetail:
    """Keep an image until a moment. Nobody can shorten that; it can be made longer."""
    found = seen(who, master, image)
    keeping.require_future(body.until, master.clock.now())
    master.catalog.lock(found, body.until)
    return detail(master, found)


@router.delete("/images/{id}", status_code=204)
def expire_image(who: Releaser, master: TheMaster, image: NamedImage) -> None:
    """Let go of an image for good; refused while a hold or a lock keeps it.

    Its space returns with the next collection of garbage.
    """
    master.site.expire(seen(who, master, image))


def seen(who: Principal, master: Master, image: str) -> ImageId:
    """An image that somebody may know of.

    Raises:
        ImageMissing: There is none, or none that this one sees.
    """
    wanted = ImageId(image)
    try:
        row = master.catalog.image(wanted)
    except errors.ImageMissing:
        # It may have been made a moment ago, by a command.
        master.site.hear_notes()
        row = master.catalog.image(wanted)
    if not who.sees(row.host):
        # That it is there is nobody's business who may not see it.
        raise errors.ImageMissing(
            f"the catalog has no image '{image}'",
            "list them with: holdfast images; if the pool has it: holdfast catalog rebuild",
        )
    return row.id


def detail(master: Master, image: ImageId) -> ImageDetail:
    """An image, as it is now."""
    checked = BootCheckBook(master.database).newest_of([image]).get(image)
    return ImageDetail.made_of(
        master.catalog.image(image),
        master.images.protection(image),
        master.catalog.copies(image),
        None if checked is None else checked.check.passed,
    )
