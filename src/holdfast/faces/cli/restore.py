"""``holdfast restore``: an image, or parts of it, back onto a disk."""

from __future__ import annotations

import os
import time
from base64 import b64encode
from typing import TYPE_CHECKING, get_args

import click

from holdfast.base.errors import EXIT_FINDINGS, EXIT_OK, UsageError
from holdfast.base.ids import clean_path, parse_image_path
from holdfast.base.units import format_count, format_duration, format_rate, format_size
from holdfast.faces.cli import acting, describe, opening, options
from holdfast.faces.cli.progress import reporting
from holdfast.faces.cli.screen import Screen, path_json, path_text, tell_findings
from holdfast.faces.cli.whole import together
from holdfast.faces.cli.words import Command
from holdfast.movers.machines.image_restore import restore_paths
from holdfast.movers.restore_run import Overwrite, RestoreOrder
from holdfast.movers.whole_restore import restore_whole

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.engine import ClientKey, Counters, RestoreResult
    from holdfast.movers.machines.file_restore import FileRestore
    from holdfast.movers.whole_restore import WholeRestore


@click.command(
    cls=Command,
    arguments=[
        ("IMAGE", "An id, a unique prefix of one, or 'latest'; may have :PATH."),
        ("PATH", "Only these paths of the image."),
    ],
    examples=[
        "holdfast restore latest --to /tmp/back",
        "holdfast restore latest /home/ann/thesis --to /tmp/back --strip-components 2",
        "holdfast restore 3f2a:/etc/hosts --to /tmp/back --verify",
        "holdfast restore latest --to /restore --client web2",
        "holdfast restore latest --to /tmp/back --client-key-file office.txt",
        "holdfast restore 3f2a:/vda/p1/etc/hosts --to /tmp/back",
    ],
)
@click.argument("image", metavar="IMAGE")
@click.argument("paths", metavar="[PATH]...", nargs=-1)
@click.option(
    "--to", metavar="DIR", required=True, type=options.PLACE, help="Restore into this directory."
)
@click.option(
    "--overwrite",
    type=click.Choice(get_args(Overwrite)),
    help="What becomes of files that are in DIR; without it DIR must be empty.",
)
@click.option(
    "--strip-components",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Leave out N leading parts of each path.",
)
@click.option("--verify", is_flag=True, help="Read back what was written and compare.")
@click.option(
    "--client",
    metavar="NAME",
    help="On this machine, which has joined the site; DIR is a directory there.",
)
@options.client_key_file_option
@options.only_this_option
@options.url_option
@options.json_flag
def restore(
    image: str,
    paths: tuple[str, ...],
    to: str,
    overwrite: Overwrite | None,
    strip_components: int,
    verify: bool,
    client: str | None,
    client_key_file: Path | None,
    only_this: bool,
    url: str | None,
    as_json: bool,
) -> int:
    """Restore an image, or the paths of it that are named, below DIR.

    An image that is sealed with a client key is restored where that key is: with --client on that
    machine, else here. Names that are sealed may be given plain.

    Of a virtual machine's image, /DISK/VOLUME leads to the files on a disk: /vda/p1/etc,
    /lvm/GROUP/VOLUME/home. What DIR can't hold of them is told as findings.

    Where a path is backed up in several streams, the images of all of them that are one backup with
    IMAGE come back together; --only-this leaves the others out.

    With --client the site has another of its machines do it, as a job that 'holdfast serve' gives
    out. For a site that is named by its URL, IMAGE is a whole id.
    """
    screen = Screen(as_json=as_json)
    wanted = parse_image_path(image)
    chosen = [clean_path(os.fsencode(path)) for path in paths]
    if wanted.path != b"/":
        chosen.append(wanted.path)
    if client is not None:
        if client_key_file is not None:
            raise UsageError(
                "a client key is not sent to another machine",
                f"import it on '{client}' with 'holdfast client-key import'",
            )
        body: dict[str, object] = {
            "client": client,
            "target": to,
            "paths_base64": [b64encode(path).decode() for path in chosen],
            "overwrite": overwrite,
            "strip_components": strip_components,
            "verify": verify,
            "only_this": only_this,
        }
        return queue_restore(screen, whole_id(wanted.image, url), "restores", body, url)
    if url is not None:
        raise UsageError("--url is for --client", "name the machine that is to restore")
    target = os.path.abspath(os.fsencode(to))
    with opening.open_site() as site:
        order = RestoreOrder(
            image=site.resolve(wanted.image),
            paths=tuple(chosen),
            target=target,
            overwrite=overwrite,
            strip_components=strip_components,
            verify=verify,
        )
        acting.about([order.image])
        images = [order.image] if only_this else together(screen, site, order.image)
        started = time.monotonic()
        with reporting(screen, "restore") as (meter, report):

            def one_of(each: RestoreOrder) -> RestoreResult | FileRestore:
                pool = site.pools.holding(each.image)
                key = _client_key(pool.image(each.image).client_key, client_key_file)
                return restore_paths(pool, each, report, key)

            result = restore_whole(images, order, one_of, overwrite or "always")
        elapsed = time.monotonic() - started
        findings = result.findings_total
        acting.counted(files=result.files, size_bytes=result.bytes, findings=findings)
    _tell(screen, order, result, meter.last, elapsed)
    return EXIT_FINDINGS if result.findings_total else EXIT_OK


def _client_key(wanted: str | None, file: Path | None) -> ClientKey | None:
    """The client key that an image is sealed with; None for one that is not."""
    from holdfast.engine import ClientKey
    from holdfast.faces.cli.client_key import read_key_file
    from holdfast.movers.client_keys import ClientKeys, read_text

    if file is not None:
        return ClientKey(read_text(read_key_file(file)))
    return None if wanted is None else ClientKeys(opening.home()).find(wanted).key


def whole_id(image: str, url: str | None) -> str:
    """The id that a person means by a prefix, or by 'latest'; of another site only whole ones."""
    if url or os.environ.get(opening.URL_VARIABLE):
        return image
    with opening.open_site() as site:
        return site.resolve(image)


def queue_restore(
    screen: Screen, image: str, how: str, body: dict[str, object], url: str | None
) -> int:
    """Have the site restore, as a job.

    Args:
        screen: Where the job's number goes.
        image: A whole id.
        how: The route below that of the image.
        body: What is wanted.
        url: Of another site.
    """
    from holdfast.faces.cli.api_client import at, open_api

    with open_api(url) as api:
        queued = api.post(at("images", image, how), body)
        begins = api.is_served
    job = queued["job"]
    if screen.as_json:
        screen.json(queued)
        return EXIT_OK
    screen.line(str(job))
    then = f"'holdfast jobs watch {job}' follows it" if begins else "'holdfast serve' begins it"
    screen.say(f"job {job} is queued; {then}")
    return EXIT_OK


def _access_lists_json(result: WholeRestore) -> dict[str, object]:
    """Access lists of Windows that could not be restored, of files inside of a machine."""
    inside = [lost for _, one in result.of if (lost := getattr(one, "lost_access", None))]
    if not inside:
        return {}
    return {
        "access_lists": [
            {
                "owner": owner,
                "sddl": sddl,
                "files": one.files,
                "paths": [path_json(path) for path in one.paths],
            }
            for lost in inside
            for owner, sddl, one in lost.told()
        ]
    }


def _tell(
    screen: Screen,
    order: RestoreOrder,
    result: WholeRestore,
    counters: Counters | None,
    elapsed_s: float,
) -> None:
    if screen.as_json:
        screen.json(
            {
                "image": order.image,
                "images": [
                    {
                        "image": image,
                        "files": one.files,
                        "dirs": one.dirs,
                        "bytes": one.bytes,
                        "findings_total": one.findings_total,
                    }
                    for image, one in result.of
                ],
                **path_json(order.target, "to"),
                "files": result.files,
                "dirs": result.dirs,
                "bytes": result.bytes,
                "verified_files": result.verified_files if order.verify else None,
                "findings_total": result.findings_total,
                "findings": describe.findings_json(result.findings),
                **_access_lists_json(result),
                "elapsed_s": round(elapsed_s, 3),
                "counters": describe.counters_json(counters) if counters else None,
            }
        )
        return
    findings = describe.finding_lines(result.findings)
    tell_findings(screen, findings, result.findings_total, "findings on single files")
    rate = format_rate(result.bytes / max(elapsed_s, 1e-3))
    facts = [
        ("image", order.image),
        *(("and", image) for image, _ in result.of if image != order.image),
        ("to", path_text(order.target)),
        ("files", format_count(result.files)),
        ("directories", format_count(result.dirs)),
        ("size", format_size(result.bytes)),
        ("time", f"{format_duration(elapsed_s)} ({rate})"),
    ]
    if order.verify:
        facts.append(("verified", f"{format_count(result.verified_files)} files read back, equal"))
    screen.facts(facts)
