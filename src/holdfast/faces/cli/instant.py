"""``holdfast instant``: virtual machines that run straight from their images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from holdfast.base.errors import EXIT_OK, UsageError
from holdfast.base.ids import parse_image_path
from holdfast.base.units import format_size
from holdfast.faces.cli import made_again, options
from holdfast.faces.cli.restore import whole_id
from holdfast.faces.cli.screen import Column, Screen
from holdfast.faces.cli.user import local_time
from holdfast.faces.cli.words import Command, Group

if TYPE_CHECKING:
    Plain = dict[str, Any]

NUMBER = ("ID", "Of the instant recovery, as 'instant list' shows it.")
_DEFAULT = "begin"


class _Instant(Group):
    """A group in which what is no subcommand is an image to begin with."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand; an image is one to begin with."""
        if args and args[0] not in self.commands:
            args = [_DEFAULT, *args]
        return super().resolve_command(ctx, args)


@click.group(cls=_Instant, no_args_is_help=False, default="list")
def instant() -> None:
    """Run a machine straight from its image: in seconds, and moved while it runs, or discarded.

    'holdfast instant IMAGE --to HYPERVISOR' begins; it is short for 'instant begin'.
    """


@instant.command(
    cls=Command,
    arguments=[made_again.IMAGE],
    examples=[
        "holdfast instant 3f2a --to kvm1",
        "holdfast instant 3f2a --to kvm1 --new-identity --name web1-test --no-network",
    ],
)
@click.argument("image", metavar="IMAGE")
@click.option("--to", "hypervisor", metavar="HYPERVISOR", required=True, help="Run it there.")
@made_again.identity_options
@click.option("--storage", metavar="PLACE", help="Where the hypervisor is to put what it writes.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["qcow2", "raw"]),
    default="qcow2",
    show_default=True,
    help="Of its disks, when it is moved.",
)
@made_again.beside_original_option
@options.url_option
@options.json_flag
def begin(
    image: str,
    hypervisor: str,
    networks: tuple[str, ...],
    no_network: bool,
    new_identity: bool,
    format_: str,
    url: str | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Start a machine from its image.

    Its disks are read from the image, and what it writes goes to the hypervisor's storage. The
    image is held until 'instant migrate' has moved the machine, or 'instant discard' has taken it
    away. 'holdfast serve' gives the work out, and has to run as long as that.
    """
    from holdfast.faces.cli.api_client import at, open_api

    screen = Screen(as_json=as_json)
    same = made_again.identity(networks, no_network=no_network, new_identity=new_identity)
    wanted = parse_image_path(image)
    if wanted.path != b"/":
        raise UsageError("a machine runs from all of its image")
    body: Plain = {
        "hypervisor": hypervisor,
        **same,
        "format": format_,
        **given,
    }
    chosen = whole_id(wanted.image, url)
    with open_api(url) as api:
        made = api.post(at("images", chosen, "instant-recoveries"), body)
        begins = api.is_served
    if screen.as_json:
        screen.json(made)
        return EXIT_OK
    screen.line(str(made["id"]))
    then = f"'holdfast instant show {made['id']}'" if begins else "'holdfast serve' begins it"
    screen.say(f"'{made['name']}' is being started from its image: {then}")
    return EXIT_OK


@instant.command(name="list", examples=["holdfast instant list", "holdfast instant list --all"])
@click.option("--all", "everything", is_flag=True, help="Those that have ended, too.")
@options.url_option
@options.json_flag
def list_(everything: bool, url: str | None, as_json: bool) -> int:
    """List machines that run from their images, the newest first."""
    from holdfast.faces.cli.api_client import open_api

    screen = Screen(as_json=as_json)
    with open_api(url) as api:
        rows = api.get("/instant-recoveries", ended="true" if everything else "false")["items"]
    if as_json:
        for row in rows:
            screen.json(row)
        return EXIT_OK
    if not rows:
        screen.say("no machine runs from its image: 'holdfast instant IMAGE --to HYPERVISOR'")
        return EXIT_OK
    columns: list[Column] = [
        ("id", "right"),
        ("machine", "left"),
        ("hypervisor", "left"),
        ("image", "left"),
        ("state", "left"),
        ("begun", "left"),
    ]
    cells = [
        [
            str(row["id"]),
            row["name"],
            row["hypervisor"],
            row["image"][:8],
            _state(row),
            local_time(row["begun_at"]),
        ]
        for row in rows
    ]
    screen.table(columns, cells, gives_way=(1,))
    return EXIT_OK


@instant.command(arguments=[NUMBER], examples=["holdfast instant show 3"])
@click.argument("number", metavar="ID", type=click.IntRange(min=1))
@options.url_option
@options.json_flag
def show(number: int, url: str | None, as_json: bool) -> int:
    """Show how it is with a machine that runs from its image."""
    from holdfast.faces.cli.api_client import at, open_api

    screen = Screen(as_json=as_json)
    with open_api(url) as api:
        row = api.get(at("instant-recoveries", str(number)))
    if as_json:
        screen.json(row)
        return EXIT_OK
    jobs = [f"{row[key]} ({key[:-4]})" for key in _JOBS if row[key] is not None]
    facts = [
        ("instant recovery", str(row["id"])),
        ("machine", f"{row['name']} ({row['machine']})"),
        ("hypervisor", row["hypervisor"]),
        ("image", row["image"]),
        ("state", _state(row)),
        ("begun", f"{local_time(row['begun_at'])}, by {row['begun_by']}"),
        ("jobs", ", ".join(jobs) or "none"),
    ]
    if row["disks_needed"] is not None:
        facts.append(("disks that need the image", str(row["disks_needed"])))
    screen.facts(facts)
    screen.say(row["words"])
    if row["error"]:
        screen.say(f"last error: {row['error']}")
    return EXIT_OK


_JOBS = ("serve_job", "migrate_job", "discard_job")


@instant.command(
    arguments=[NUMBER], examples=["holdfast instant migrate 3", "holdfast jobs watch 17"]
)
@click.argument("number", metavar="ID", type=click.IntRange(min=1))
@options.url_option
@options.json_flag
def migrate(number: int, url: str | None, as_json: bool) -> int:
    """Move a machine onto disks of its own, while it runs."""
    return _ask(number, "migrate", url, as_json=as_json)


@instant.command(arguments=[NUMBER], examples=["holdfast instant resume 3"])
@click.argument("number", metavar="ID", type=click.IntRange(min=1))
@options.url_option
@options.json_flag
def resume(number: int, url: str | None, as_json: bool) -> int:
    """Have the image be served again, after the job that did was cancelled."""
    return _ask(number, "resume", url, as_json=as_json)


@instant.command(arguments=[NUMBER], examples=["holdfast instant discard 3"])
@click.argument("number", metavar="ID", type=click.IntRange(min=1))
@options.url_option
@options.json_flag
def discard(number: int, url: str | None, as_json: bool) -> int:
    """Stop a machine that runs from its image, and take it away with all that it wrote."""
    return _ask(number, "discard", url, as_json=as_json)


def _ask(number: int, what: str, url: str | None, *, as_json: bool) -> int:
    from holdfast.faces.cli.api_client import at, open_api

    screen = Screen(as_json=as_json)
    with open_api(url) as api:
        row = api.post(at("instant-recoveries", str(number), what), {})
        begins = api.is_served
    if as_json:
        screen.json(row)
        return EXIT_OK
    job = row["serve_job" if what == "resume" else f"{what}_job"]
    screen.line(str(job))
    then = f"'holdfast jobs watch {job}' follows it" if begins else "'holdfast serve' begins it"
    screen.say(f"job {job} is queued; {then}")
    return EXIT_OK


def _state(row: Plain) -> str:
    state = str(row["state"])
    if row["moved_of_bytes"]:
        part = 100 * (row["moved_bytes"] or 0) // row["moved_of_bytes"]
        return f"{state}, {part} % of {format_size(row['moved_of_bytes'])}"
    return state
