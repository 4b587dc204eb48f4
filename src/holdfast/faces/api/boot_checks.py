"""How images of virtual machines booted, and what their screens showed."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import Path, Response
from pydantic import Field

from holdfast.base.errors import NotFound
from holdfast.control.access import Principal, Verb
from holdfast.control.boot_checks import BootCheck as Kept
from holdfast.control.boot_checks import BootCheckBook
from holdfast.faces.api.document import response
from holdfast.faces.api.door import TheMaster, make_router, may
from holdfast.faces.api.image_models import NamedImage
from holdfast.faces.api.images import seen
from holdfast.faces.api.models import Model

router = make_router("Images")

Viewer = Annotated[Principal, may(Verb.SEE)]
Restorer = Annotated[Principal, may(Verb.RESTORE)]
Number = Annotated[int, Path(ge=1, lt=1 << 31, description="Of the boot check.", examples=[7])]

_PNG: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The picture.",
        "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
    },
    404: response(404),
}


class BootCheck(Model):
    """What came of booting an image, cut off from every network."""

    number: int = Field(examples=[7])
    at: datetime = Field(description="When it ended.")
    passed: bool = Field(description="Whether all that was waited for came to pass in time.")
    took_s: float = Field(description="From power on to the end.", examples=[21.5])
    met: dict[str, float] = Field(description="What came to pass, with the seconds that took.")
    missed: list[str] = Field(description="What did not, in words.")
    has_screenshot: bool

    @classmethod
    def of(cls, kept: Kept) -> BootCheck:
        """As the book has it."""
        return cls(
            number=kept.id,
            at=kept.check.at,
            passed=kept.check.passed,
            took_s=kept.check.took_s,
            met=dict(kept.check.met),
            missed=list(kept.check.missed),
            has_screenshot=kept.has_screenshot,
        )


@router.get("/images/{id}/boot-checks")
def list_boot_checks(who: Viewer, master: TheMaster, image: NamedImage) -> list[BootCheck]:
    """How an image booted, the last ten times, newest first."""
    found = seen(who, master, image)
    return [BootCheck.of(one) for one in BootCheckBook(master.database).of(found)]


@router.get("/images/{id}/boot-checks/{number}/screenshot", responses=_PNG, response_class=Response)
def read_screenshot(
    who: Restorer, master: TheMaster, image: NamedImage, number: Number
) -> Response:
    """What the screen showed at the end. It may show what is in the machine."""
    found = seen(who, master, image)
    of, picture = BootCheckBook(master.database).screenshot(number)
    if of != found:
        raise NotFound(f"boot check {number} is not one of image {found}")
    return Response(picture, media_type="image/png")
