"""``holdfast machines``: the virtual machines of a site, and what protects each."""

from __future__ import annotations

from typing import Any

import click

from holdfast.base.errors import EXIT_OK
from holdfast.base.units import format_size
from holdfast.faces.cli import options
from holdfast.faces.cli.hypervisor import tell_problem
from holdfast.faces.cli.screen import Column, Screen, printable
from holdfast.faces.cli.user import local_time
from holdfast.faces.cli.words import Group

Plain = dict[str, Any]


@click.group(cls=Group, no_args_is_help=False, default="list")
def machines() -> None:
    """Virtual machines that hypervisors have (hosts that joined: 'holdfast machine')."""


@machines.command(
    name="list",
    examples=[
        "holdfast machines",
        "holdfast machines --unprotected",
        "holdfast machines --where 'tag=prod and not name=*-test' --refresh",
    ],
)
@click.option(
    "--where",
    metavar="QUERY",
    help="Only those that it holds for, as in a policy: name, host, hypervisor, folder, tag, "
    "guest, state, datastore, network, uuid, size, memory.",
)
@click.option("--hypervisor", metavar="NAME", help="Only those of this one.")
@click.option("--unprotected", is_flag=True, help="Only those that no active policy selects.")
@click.option("--refresh", is_flag=True, help="Ask the hypervisors first.")
@options.url_option
@options.json_flag
def list_(
    where: str | None,
    hypervisor: str | None,
    unprotected: bool,
    refresh: bool,
    url: str | None,
    as_json: bool,
) -> int:
    """List virtual machines, by name, as their hypervisors said last."""
    from holdfast.faces.cli.api_client import open_api

    screen = Screen(as_json=as_json)
    with open_api(url) as api:
        known = api.get("/hypervisors")["items"]
        if refresh:
            known = [_refreshed(api, row) for row in known if hypervisor in (None, row["name"])]
        rows = list(
            api.pages(
                "/virtual-machines",
                where=where,
                hypervisor=hypervisor,
                unprotected=True if unprotected else None,
            )
        )
    if as_json:
        for row in rows:
            screen.json(row)
    elif rows:
        columns: list[Column] = [
            ("machine", "left"),
            ("state", "left"),
            ("host", "left"),
            ("size", "right"),
            ("guest", "left"),
            ("policies", "left"),
            ("last backup", "left"),
        ]
        screen.table(columns, [_cells(row) for row in rows], gives_way=(4, 5, 2, 0))
    elif not known:
        screen.say("no hypervisor is known yet: 'holdfast hypervisor add'")
    else:
        screen.say("no virtual machine is so")
    for one in known:
        tell_problem(screen, one)
    return EXIT_OK


@machines.command(
    arguments=[("NAME", "Its name, or its uuid.")],
    examples=["holdfast machines show web1"],
)
@click.argument("name")
@options.url_option
@options.json_flag
def show(name: str, url: str | None, as_json: bool) -> int:
    """Show a virtual machine: where it is, its disks, and what protects it."""
    from holdfast.faces.cli.api_client import at, open_api

    screen = Screen(as_json=as_json)
    with open_api(url) as api:
        row = api.get(at("virtual-machines", name))
    if as_json:
        screen.json(row)
        return EXIT_OK
    screen.facts([(key, printable(value)) for key, value in _facts(row)])
    for disk in row["disks"]:
        if disk["left_out"]:
            screen.warn(f"no image holds disk '{disk['name']}': {printable(disk['left_out'])}")
    if row["also_on"]:
        others = ", ".join(row["also_on"])
        screen.warn(f"a machine of the same uuid is on {others}: it is backed up where it runs")
    if not row["policies"]:
        screen.warn("no active policy selects it")
    return EXIT_OK


def _refreshed(api: Any, row: Plain) -> Plain:
    """A hypervisor after it was asked; one that does not answer is told of, and ends nothing."""
    from holdfast.base.errors import HoldfastError
    from holdfast.faces.cli.api_client import at

    try:
        found: Plain = api.post(at("hypervisors", row["name"], "discover"), {})
    except HoldfastError as error:
        return {**row, "problem": error.message}
    return found


def _cells(row: Plain) -> list[str]:
    backed_up = row["backed_up_at"]
    return [
        row["name"],
        row["state"],
        row["host"] if row["host"] == row["hypervisor"] else f"{row['host']} ({row['hypervisor']})",
        format_size(row["size_bytes"]),
        row["guest"] or "-",
        ", ".join(row["policies"]) or "none",
        "never" if backed_up is None else local_time(backed_up),
    ]


def _facts(row: Plain) -> list[tuple[str, str]]:
    where = f"{row['host']}, of hypervisor {row['hypervisor']}"
    gone = "" if row["present"] else f"; gone since {local_time(row['last_seen_at'])}"
    backed_up = row["backed_up_at"]
    found = [
        ("machine", row["name"]),
        ("uuid", row["uuid"]),
        ("client", row["client"]),
        ("state", row["state"] + gone),
        ("host", where),
        ("guest", row["guest"] or "not known"),
        ("folder", row["folder"] or "none"),
        ("tags", ", ".join(row["tags"]) or "none"),
        ("memory", format_size(row["memory_bytes"])),
        ("processors", str(row["cpus"])),
    ]
    found += [
        (
            "disk",
            f"{one['name']}: {format_size(one['size_bytes'])}, {one['format']}, {one['place']}",
        )
        for one in row["disks"]
    ]
    found += [
        ("network", f"{one['mac']} on {one['network'] or 'nothing'}") for one in row["networks"]
    ]
    return [
        *found,
        ("policies", ", ".join(row["policies"]) or "none"),
        ("last backup", "never" if backed_up is None else local_time(backed_up)),
        ("image", row["image"] or "none"),
    ]
