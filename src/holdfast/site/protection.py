"""Keep the control database in the pool, and bring a site back from there.

What is derived is not kept: the files of images come back from the images themselves. Must not
know what the rows mean. Invariants: the newest protection in a pool is whole, as an image is; a
recovery changes nothing in the pool but what opens it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.base import labels
from holdfast.base.clock import from_ns
from holdfast.base.config import CONFIG_NAME
from holdfast.base.errors import CatalogDamaged, ImageMissing, Invalid, storage_error
from holdfast.base.ids import ClientName, ImageId, SourceName
from holdfast.control.database import dump, facts
from holdfast.movers.backup_run import BackupOrder, run_backup
from holdfast.movers.restore_run import RestoreOrder, run_restore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from holdfast.engine import Image, Pool
    from holdfast.movers.drive import Reporter
    from holdfast.site.site import Site

KEPT = 14
"""How many protections of a site stay in its pool."""

DUMP_NAME = "catalog.jsonl"

_DIRECTORY = "protect"


@dataclass(frozen=True, slots=True)
class Protected:
    """One image of a site's control database.

    Attributes:
        site: The id of the site.
        client: The machine that the site was on.
    """

    image: ImageId
    number: int
    site: str
    client: str
    made_at: datetime


@dataclass(frozen=True, slots=True)
class Recovered:
    """What came back.

    Attributes:
        protected: From which image; None if the pool holds none: then images alone are back.
        rows: Rows of the control database.
        settings: The configuration that the site had, for a person to look at.
    """

    protected: Protected | None
    rows: int
    settings: Path | None


def protect(site: Site, report: Reporter | None = None) -> Protected:
    """Put the control database as it is now into the pool; older ones beyond `KEPT` leave it.

    Raises:
        StorageError: The dump can't be written.
        HoldfastError: The pool can't take it.
    """
    own = facts.site_id(site.database)
    directory = site.home / _DIRECTORY
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        dump.write(site.database, directory / DUMP_NAME)
        shutil.copyfile(site.home / CONFIG_NAME, directory / CONFIG_NAME)
    except OSError as error:
        raise storage_error(error)(f"can't write in {directory}: {error.strerror}") from error
    client = ClientName(os.uname().nodename)
    known = _known(site, own)
    order = BackupOrder(
        client=client,
        paths=(os.fsencode(directory.resolve()),),
        name=SourceName(f"{client}:catalog of {own}"),
        labels={labels.KIND: labels.CATALOG, labels.SITE: own},
        parent=known[-1] if known else None,
    )
    image = run_backup(site.pool, order, site.clock, report)
    (directory / DUMP_NAME).unlink(missing_ok=True)
    known.append(ImageId(image.id))
    for old in known[:-KEPT]:
        with contextlib.suppress(ImageMissing):
            site.pool.expire(old)
    with site.database.write() as connection:
        facts.put(connection, facts.PROTECTIONS, json.dumps(known[-KEPT:]))
    return _protected(image)


def _known(site: Site, own: str) -> list[ImageId]:
    """The protections of this site, oldest first; the pool is asked where nobody remembers."""
    with site.database.read() as connection:
        noted = facts.get(connection, facts.PROTECTIONS)
    if noted:
        return [ImageId(one) for one in json.loads(noted)]
    return [one.image for one in protections(site.pool) if one.site == own]


def protections(pool: Pool) -> list[Protected]:
    """Every image of a site's control database in a pool, oldest first."""
    return sorted(_all(pool), key=lambda one: one.number)


def recover(site: Site, of: str | None = None) -> Recovered:
    """Fill the empty control database of a site from the newest protection in its pool.

    Args:
        site: A site that has just joined the pool.
        of: The beginning of the id of the site that is to come back, where the pool has several.

    Raises:
        Invalid: The pool has protections of several sites, or none of this one.
        TargetNotEmpty: The site has a control database already.
        CatalogDamaged: What the image holds is no dump.
    """
    protected = _newest(protections(site.pool), of)
    if protected is None:
        return Recovered(None, 0, None)
    place = Path(tempfile.mkdtemp(prefix=".recover-", dir=site.home))
    try:
        order = RestoreOrder(protected.image, (), os.fsencode(place), verify=True)
        run_restore(site.pool, order)
        found = next(place.rglob(DUMP_NAME), None)
        if found is None:
            raise CatalogDamaged(f"image {protected.image} holds no '{DUMP_NAME}'")
        database = site.unopened_database()
        try:
            rows = dump.load(database, found)
            with database.write() as connection:
                # It knows of those before it, and not of itself.
                facts.put(connection, facts.PROTECTIONS, "")
        finally:
            database.close()
        settings = site.home / f"{CONFIG_NAME}.recovered"
        found.with_name(CONFIG_NAME).replace(settings)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return Recovered(protected, rows, settings)


def _newest(found: list[Protected], of: str | None) -> Protected | None:
    sites = {one.site: one for one in found}
    if of is not None:
        sites = {site: one for site, one in sites.items() if site.startswith(of)}
        if not sites:
            raise Invalid(f"the pool holds no catalog of a site whose id begins with '{of}'")
    if len(sites) > 1:
        listed = ", ".join(
            f"{one.site[:8]} ({one.client}, {one.made_at:%Y-%m-%d %H:%M} UTC)"
            for one in sites.values()
        )
        raise Invalid(
            f"the pool holds the catalogs of {len(sites)} sites: {listed}",
            "say which with --site ID",
        )
    return next(iter(sites.values()), None)


def _all(pool: Pool) -> Iterator[Protected]:
    for image in pool.images():
        if image.labels.get(labels.KIND) == labels.CATALOG:
            yield _protected(image)


def _protected(image: Image) -> Protected:
    return Protected(
        image=ImageId(image.id),
        number=image.number,
        site=image.labels.get(labels.SITE, ""),
        client=image.host,
        made_at=from_ns(image.started_ns),
    )
