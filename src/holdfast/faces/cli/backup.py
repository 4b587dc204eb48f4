"""``holdfast backup``: paths of this machine become an image in the pool."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.base.errors import EXIT_FINDINGS, EXIT_OK
from holdfast.base.ids import client_name
from holdfast.base.units import (
    format_count,
    format_duration,
    format_rate,
    format_ratio,
    format_size,
)
from holdfast.faces.cli import describe, options
from holdfast.faces.cli.progress import reporting
from holdfast.faces.cli.screen import Screen, tell_findings
from holdfast.faces.cli.words import add_command
from holdfast.movers.backup_run import DEFAULT_COMPRESSION, BackupOrder, absolute_paths

if TYPE_CHECKING:
    from holdfast.engine import Counters, Image

EXAMPLES = (
    "holdfast backup /home /etc",
    "holdfast backup / --one-file-system --exclude /var/cache --exclude '*.tmp'",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(app, "backup", backup, EXAMPLES)


def backup(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH", help="Files and directories to back up.")
    ],
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="RULE", help="Leave out, in gitignore syntax; may be repeated."),
    ] = None,
    one_file_system: Annotated[
        bool, typer.Option("--one-file-system", help="Do not cross into other file systems.")
    ] = False,
    compression: Annotated[
        int,
        typer.Option(min=1, max=19, metavar="LEVEL", help="zstd level: 1 is quick, 19 is small."),
    ] = DEFAULT_COMPRESSION,
    as_json: options.JsonFlag = False,
) -> int:
    """Back up paths. Only what changed since the last image of the same paths is stored.

    Directories with a CACHEDIR.TAG or a .nobackup in them are left out. A file that can't be
    read is named, the job goes on, and the exit status is 1. The catalog takes the names of the
    files when it is next asked for one: 'holdfast catalog update' has it do so now.
    """
    screen = Screen(as_json=as_json)
    order = BackupOrder(
        client=client_name(socket.gethostname()),
        paths=absolute_paths([os.fsencode(path) for path in paths], os.getcwdb()),
        exclude=tuple(exclude or ()),
        one_file_system=one_file_system,
        compression=compression,
    )
    with options.open_site() as site:
        # Whatever asks for a passphrase does so before the bar is drawn.
        _ = site.pool
        started = time.monotonic()
        with reporting(screen, "backup") as (meter, report):
            image = site.commit(order, report)
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
