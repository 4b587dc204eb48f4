"""Clients and sources: what a site has images of."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import Query
from pydantic import Field

from holdfast.control.access import Principal, Verb
from holdfast.control.catalog import ListedSource
from holdfast.faces.api.door import TheMaster, make_router, may
from holdfast.faces.api.image_models import Text
from holdfast.faces.api.models import Model, Page
from holdfast.faces.api.paging import Pages

router = make_router("Sources")

Viewer = Annotated[Principal, may(Verb.SEE)]


class Client(Model):
    """A client that has, or had, images."""

    name: str = Field(examples=["web1"])


class Source(Model):
    """What images are of."""

    name: str = Field(examples=["web1:/etc,/srv"])
    client: str = Field(examples=["web1"])
    newest_image: str | None = Field(description="Null where all are gone.")
    newest_at: datetime | None = Field(description="When that began.")

    @classmethod
    def of(cls, listed: ListedSource) -> Source:
        """As lists have it."""
        return cls(
            name=listed.name,
            client=listed.client,
            newest_image=listed.newest,
            newest_at=listed.newest_at,
        )


@router.get("/clients")
def list_clients(who: Viewer, master: TheMaster, pages: Pages) -> Page[Client]:
    """The clients that you see and that have, or had, images; by name."""
    after = pages.after(str)
    rows = master.images.clients(
        None if who.sees_all_clients else who.condition,
        limit=pages.fetch,
        after=None if after is None else str(after[0]),
    )
    return pages.page(rows, key=lambda row: (row,), show=lambda row: Client(name=row))


@router.get("/sources")
def list_sources(
    who: Viewer,
    master: TheMaster,
    pages: Pages,
    client: Annotated[Text, Query(description="Of this client.")] = None,
) -> Page[Source]:
    """The sources that you see and that have, or had, images; by name."""
    after = pages.after(str)
    rows = master.images.sources(
        client,
        None if who.sees_all_clients else who.condition,
        limit=pages.fetch,
        after=None if after is None else str(after[0]),
    )
    return pages.page(rows, key=lambda row: (row.name,), show=Source.of)
