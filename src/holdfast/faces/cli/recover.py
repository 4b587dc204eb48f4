"""``holdfast recover``: a lost site comes back from its pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from holdfast.base.clock import SystemClock
from holdfast.base.errors import EXIT_FAILED, EXIT_OK, SiteExists, TargetNotEmpty
from holdfast.base.units import format_count
from holdfast.faces.cli import describe, opening, options
from holdfast.faces.cli.init import read_kit, source_of
from holdfast.faces.cli.progress import counting
from holdfast.faces.cli.screen import Screen
from holdfast.faces.cli.words import Command

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.control.catalog import RebuildResult
    from holdfast.site.protection import Recovered
    from holdfast.site.site import Site


@click.command(
    cls=Command,
    examples=[
        "holdfast recover --pool /mnt/backup --kit kit.txt",
        "HOLDFAST_HOME=/srv/site holdfast recover --pool s3://bucket/x --passphrase-file F",
    ],
)
@click.option("--pool", metavar="URL", type=options.PLACE, required=True, help="Where the pool is.")
@click.option("--kit", metavar="F", type=options.FILE, help="Open it with the text of its kit.")
@click.option(
    "--passphrase-file",
    metavar="F",
    type=options.FILE,
    help="Open it with the passphrase in this file; with --kit, protect it with that as well.",
)
@click.option("--site", "of", metavar="ID", help="Which site, where the pool has several.")
@options.json_flag
def recover(
    pool: str, kit: Path | None, passphrase_file: Path | None, of: str | None, as_json: bool
) -> int:
    """Bring a lost site back on a bare machine, from its pool and a recovery kit.

    Policies, users, jobs, images, holds and locks are as they were when the catalog was last put
    into the pool; images made since, and the files of all images, are read from the images
    themselves. The site is made in HOLDFAST_HOME.
    """
    from holdfast.site import protection

    screen = Screen(as_json=as_json)
    with _joined(pool, kit, passphrase_file) as site:
        opening.remember(site)
        _ = site.pool
        try:
            back = protection.recover(site, of)
        except TargetNotEmpty as error:
            raise TargetNotEmpty(
                f"the site at {site.home} has a catalog already",
                "if it came back from the pool, go on with: holdfast catalog rebuild",
            ) from error
        with counting(screen, "catalog: rows") as rows:
            result, _ = site.rebuild_catalog(rows)
        _tell(screen, site, back, result)
    return EXIT_FAILED if result.failed else EXIT_OK


def _joined(pool: str, kit: Path | None, passphrase_file: Path | None) -> Site:
    from holdfast.site.places import pool_place
    from holdfast.site.secrets import KEY_FILE_NAME
    from holdfast.site.site import Site

    home, clock = opening.home(), SystemClock()
    has_key = (home / KEY_FILE_NAME).exists()
    source = source_of(passphrase_file, ask=kit is None and not has_key)
    kit_text = None if kit is None else read_kit(kit)
    try:
        return Site.join(home, pool, source, clock, kit_text)
    except SiteExists:
        # An earlier try may have ended between the two.
        site = Site.open(home, source, clock)
        if site.config.pool_url != pool_place(pool):
            raise
        return site


def _tell(screen: Screen, site: Site, back: Recovered, result: RebuildResult) -> None:
    made = back.protected
    if screen.as_json:
        screen.json(
            {
                "home": str(site.home),
                "catalog_of": None if made is None else describe.iso_time(made.made_at),
                "site": None if made is None else made.site,
                "catalog_rows": back.rows,
                "images": result.images,
                "file_rows": result.rows,
                "failed": dict(result.failed),
                "settings": str(back.settings) if back.settings else None,
            }
        )
        return
    if made is None:
        screen.warn("the pool holds no catalog of a site: its images are back, and nothing else")
    screen.facts(
        [
            ("site", str(site.home)),
            ("catalog", "none" if made is None else f"of {describe.local_time(made.made_at)}"),
            ("images", format_count(result.images)),
            ("files", f"{format_count(result.rows)} rows"),
        ]
    )
    for image, reason in result.failed.items():
        screen.warn(f"image {image} could not be read: {reason}")
    if back.settings is not None:
        screen.say(f"what the site had set is in {back.settings}: see 'holdfast config show'")
