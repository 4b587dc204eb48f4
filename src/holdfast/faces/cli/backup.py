"""``holdfast backup``: paths of this machine become an image in the pool."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import click

from holdfast.base import labels
from holdfast.base.errors import EXIT_FINDINGS, EXIT_OK
from holdfast.base.ids import ADHOC, client_name
from holdfast.base.units import (
    format_count,
    format_duration,
    format_rate,
    format_ratio,
    format_size,
)
from holdfast.faces.cli import acting, describe, opening, options
from holdfast.faces.cli.progress import reporting
from holdfast.faces.cli.screen import Screen, tell_findings
from holdfast.faces.cli.words import Command
from holdfast.movers.backup_run import (
    COMPRESSION_LEVELS,
    DEFAULT_COMPRESSION,
    BackupOrder,
    absolute_paths,
)

if TYPE_CHECKING:
    from holdfast.engine import Counters, Image


@click.command(
    cls=Command,
    arguments=[("PATH", "Files and directories to back up.")],
    examples=[
        "holdfast backup /home /etc",
        "holdfast backup / --one-file-system --exclude /var/cache --exclude '*.tmp'",
    ],
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=options.PLACE)
@click.option(
    "--exclude",
    metavar="RULE",
    multiple=True,
    help="Leave out, in gitignore syntax; may be repeated.",
)
@click.option("--full", is_flag=True, help="Read every file again, changed or not.")
@click.option("--one-file-system", is_flag=True, help="Do not cross into other file systems.")
@click.option(
    "--compression",
    metavar="LEVEL",
    type=click.IntRange(COMPRESSION_LEVELS[0], COMPRESSION_LEVELS[-1]),
    default=DEFAULT_COMPRESSION,
    show_default=True,
    help="zstd level: 1 is quick, 19 is small.",
)
@options.json_flag
def backup(
    paths: tuple[str, ...],
    exclude: tuple[str, ...],
    full: bool,
    one_file_system: bool,
    compression: int,
    as_json: bool,
) -> int:
    """Back up paths. Only what changed since the last image of the same paths is stored.

    Directories with a CACHEDIR.TAG or a .nobackup in them are left out. A file that can't be
    read is named, the job goes on, and the exit status is 1. The catalog takes the names of the
    files when it is next asked for one: 'holdfast catalog update' has it do so now.
    """
    screen = Screen(as_json=as_json)
    order = BackupOrder(
        client=client_name(os.uname().nodename),
        paths=absolute_paths(
            [os.fsencode(path) for path in paths], os.getcwdb(), nested=one_file_system
        ),
        exclude=exclude,
        one_file_system=one_file_system,
        compression=compression,
        read_all=full,
        labels={labels.POLICY: ADHOC, labels.KIND: "full" if full else "differential"},
    )
    with opening.open_site() as site:
        # Whatever asks for a passphrase does so before the bar is drawn.
        _ = site.pool
        started = time.monotonic()
        with reporting(screen, "backup") as (meter, report):
            image = site.commit(order, report, act=acting.done_with_image)
        elapsed = time.monotonic() - started
    _tell(screen, image, meter.last, elapsed)
    return EXIT_FINDINGS if image.findings_total else EXIT_OK


def _tell(screen: Screen, image: Image, counters: Counters | None, elapsed_s: float) -> None:
    findings = describe.finding_lines(image.findings)
    if screen.as_json:
        value = describe.image_json(image)
        value["elapsed_s"] = round(elapsed_s, 3)
        value["counters"] = describe.counters_json(counters) if counters else None
        screen.json(value)
        return
    tell_findings(screen, findings, image.findings_total, "findings on single files")
    stats = image.stats
    found, new = stats.get("bytes_found", 0), stats.get("bytes_new", 0)
    files = format_count(stats.get("files", 0))
    changed = format_count(stats.get("files_changed", 0))
    screen.facts(
        [
            ("image", image.id),
            ("source", image.source),
            ("status", image.status),
            ("files", f"{files} ({changed} new or changed)"),
            ("size", format_size(found)),
            ("new", f"{format_size(new)} ({format_ratio(found, new)})"),
            ("stored", format_size(stats.get("bytes_stored", 0))),
            ("time", f"{format_duration(elapsed_s)} ({format_rate(found / max(elapsed_s, 1e-3))})"),
        ]
    )
