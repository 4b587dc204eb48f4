"""``holdfast verify``: prove that images can be restored."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from holdfast.base.errors import EXIT_FAILED, EXIT_OK
from holdfast.base.units import format_count, format_duration, format_size
from holdfast.faces.cli import acting, at_owner, describe, opening, options
from holdfast.faces.cli.progress import reporting
from holdfast.faces.cli.screen import Screen, tell_findings
from holdfast.faces.cli.whole import all_together
from holdfast.faces.cli.words import Command
from holdfast.movers.pool_runs import run_verify

if TYPE_CHECKING:
    from holdfast.base.ids import ImageId
    from holdfast.engine import VerifyResult
    from holdfast.site.site import Site


@click.command(
    cls=Command,
    arguments=[("IMAGE", "Ids, unique prefixes, 'latest'; none: all.")],
    examples=["holdfast verify", "holdfast verify latest --read-data"],
)
@click.argument("images", metavar="[IMAGE]...", nargs=-1)
@click.option("--read-data", is_flag=True, help="Also read every chunk and compare its name.")
@options.only_this_option
@options.unit_option
@options.json_flag
def verify(
    images: tuple[str, ...], read_data: bool, only_this: bool, unit: str | None, as_json: bool
) -> int:
    """Follow images down to their last chunk. Exit status 2 if anything is wrong.

    Of a path that is backed up in several streams, an image stands for all streams of its backup.
    """
    screen = Screen(as_json=as_json)
    with opening.open_site() as site:
        chosen = [site.resolve(text) for text in images] if images else None
        if chosen and not only_this:
            chosen = _with_other_streams(screen, site, chosen, unit)
        acting.about(chosen or ())
        owned = at_owner.owned(site, unit)
        if unit is None and chosen:
            owned = at_owner.owned_with(site, chosen)
        if owned is not None:
            images = tuple(chosen or ())
            asked = {"read_data": read_data, "images": list(images)}
            return at_owner.work(screen, owned, "verifications", asked)
        pool = options.pool_of(site, unit)
        if unit is None and chosen:
            pool = site.pools.holding(*chosen)
        started = time.monotonic()
        with reporting(screen, "verify") as (_, report):
            result = run_verify(pool, chosen, read_data=read_data, report=report)
        elapsed = time.monotonic() - started
    tell_verified(screen, result, elapsed, read_data=read_data)
    return EXIT_FAILED if result.problems_total else EXIT_OK


def _with_other_streams(
    screen: Screen, site: Site, images: list[ImageId], unit: str | None
) -> list[ImageId]:
    """Images and those that are one backup with them, as far as one pool has all of them."""
    whole = all_together(screen, site, images, only_these=False)
    if len(whole) == len(images):
        return images
    pools = site.pools
    having = [set(pools.with_copy(one)) for one in whole]
    common = set.intersection(*having)
    if common if unit is None else pools.of_unit(unit) in common:
        return whole
    where = "one storage unit" if unit is None else f"storage unit '{unit}'"
    screen.say(f"warning: not all streams are in {where}: only the images that are named")
    return images


def tell_verified(
    screen: Screen, result: VerifyResult, elapsed_s: float, *, read_data: bool
) -> None:
    """Tell what a verification or a check found."""
    if screen.as_json:
        screen.json(
            {
                "images": result.images,
                "packs": result.packs,
                "chunks": result.chunks,
                "bytes_read": result.bytes_read,
                "read_data": read_data,
                "problems_total": result.problems_total,
                "problems": describe.findings_json(result.problems),
                "elapsed_s": round(elapsed_s, 3),
            }
        )
        return
    problems = describe.finding_lines(result.problems)
    tell_findings(screen, problems, result.problems_total, "problems")
    verdict = (
        f"{format_count(result.problems_total)} problems" if result.problems_total else "sound"
    )
    screen.facts(
        [
            ("images", format_count(result.images)),
            ("packs", format_count(result.packs)),
            ("chunks", format_count(result.chunks)),
            ("read", format_size(result.bytes_read)),
            ("time", format_duration(elapsed_s)),
            ("verdict", verdict if read_data else f"{verdict} (content not read: --read-data)"),
        ]
    )
