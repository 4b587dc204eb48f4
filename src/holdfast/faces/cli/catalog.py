"""``holdfast catalog``: the catalog itself."""

from __future__ import annotations

import click

from holdfast.base.errors import EXIT_FAILED, EXIT_OK
from holdfast.base.units import format_count
from holdfast.faces.cli import opening, options
from holdfast.faces.cli.progress import counting
from holdfast.faces.cli.screen import Screen
from holdfast.faces.cli.words import Group


@click.group(cls=Group, no_args_is_help=False)
def catalog() -> None:
    """The catalog itself."""


@catalog.command(examples=["holdfast catalog update"])
@options.json_flag
def update(as_json: bool) -> int:
    """Feed the catalog the files of all images that wait for it.

    Commands that search do so by themselves; after a backup by night, the first search of the
    day is quicker for it. What a kill left behind in the catalog is put right first.
    """
    screen = Screen(as_json=as_json)
    with opening.open_site() as site:
        unreadable = site.catalog.clean_up().unreadable
        site.catalog.retry_indexing()
        with counting(screen, "catalog: rows") as rows:
            fed = site.catch_up(rows)
    for source, reason in unreadable.items():
        screen.warn(f"the catalog's files of {source}: {reason}")
    if as_json:
        screen.json({"images": fed})
    else:
        screen.say(f"images fed: {format_count(fed)}" if fed else "the catalog has everything")
    return EXIT_OK


@catalog.command(examples=["holdfast catalog protect"])
@options.json_flag
def protect(as_json: bool) -> int:
    """Put the control database into the pool: policies, jobs, users, holds and locks.

    The newest few stay there. 'holdfast recover' brings a site back from the last.
    """
    from holdfast.site.protection import protect as act

    screen = Screen(as_json=as_json)
    with opening.open_site() as site:
        done = act(site)
    if as_json:
        screen.json({"image": done.image, "site": done.site})
    else:
        screen.say(f"the catalog is in the pool, as image {done.image}")
    return EXIT_OK


@catalog.command(examples=["holdfast catalog rebuild"])
@options.json_flag
def rebuild(as_json: bool) -> int:
    """Make the catalog anew from the pool alone; it gives the same answers then."""
    screen = Screen(as_json=as_json)
    with opening.open_site() as site:
        _ = site.pool
        with counting(screen, "catalog: rows") as rows:
            result, aside = site.rebuild_catalog(rows)
    if as_json:
        screen.json(
            {
                "sources": result.sources,
                "images": result.images,
                "rows": result.rows,
                "dropped": result.dropped,
                "failed": dict(result.failed),
                "unreached": dict(result.unreached),
                "set_aside": str(aside) if aside else None,
            }
        )
    else:
        screen.facts(
            [
                ("sources", format_count(result.sources)),
                ("images", format_count(result.images)),
                ("rows", format_count(result.rows)),
                ("gone from the pool", format_count(result.dropped)),
            ]
        )
        for image, reason in result.failed.items():
            screen.warn(f"image {image} could not be read: {reason}")
        for unit, reason in result.unreached.items():
            screen.warn(f"storage unit '{unit}' was not looked at: {reason}")
    if aside is not None:
        screen.warn(
            f"the damaged catalog is kept in {aside}; policies, users, holds and locks were in it "
            "as well: see 'holdfast recover --help'"
        )
    return EXIT_FAILED if result.failed or result.unreached else EXIT_OK
