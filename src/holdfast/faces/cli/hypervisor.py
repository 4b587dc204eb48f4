"""``holdfast hypervisor``: what runs virtual machines, and who reaches it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from holdfast.base.errors import EXIT_OK, HoldfastError, Invalid, UsageError
from holdfast.base.ids import PLAIN_NAME_HINT, is_plain_name
from holdfast.base.units import format_count
from holdfast.faces.cli import options
from holdfast.faces.cli.screen import Column, Screen, printable
from holdfast.faces.cli.user import local_time, read_password
from holdfast.faces.cli.words import Group

if TYPE_CHECKING:
    from pathlib import Path

    Plain = dict[str, Any]

NAME = ("NAME", "Of the hypervisor.")

proxy_option = click.option(
    "--proxy",
    metavar="CLIENT",
    help="Whose agent reaches it and does its backups; without it the master server does.",
)
user_option = click.option("--user", metavar="USER", help="Who it lets in.")
password_option = click.option(
    "--password-file",
    metavar="FILE",
    type=options.FILE,
    help="The password of that user; asked for, if it is not given.",
)
certificate_option = click.option(
    "--certificate-file",
    metavar="FILE",
    type=options.FILE,
    help="PEM of the authority that its certificate is to be of.",
)
per_host_option = click.option(
    "--per-host", metavar="N", type=click.IntRange(min=1), help="Backups at once on one host."
)
per_datastore_option = click.option(
    "--per-datastore",
    metavar="N",
    type=click.IntRange(min=1),
    help="Backups at once that read from one datastore.",
)


@click.group(cls=Group, no_args_is_help=False, default="list")
def hypervisor() -> None:
    """What runs virtual machines: make it known, look at it, ask it for its machines."""


@hypervisor.command(name="list", examples=["holdfast hypervisor list"])
@options.url_option
@options.json_flag
def list_(url: str | None, as_json: bool) -> int:
    """List hypervisors, by name."""
    from holdfast.faces.cli.api_client import open_api

    screen = Screen(as_json=as_json)
    with open_api(url) as api:
        rows = api.get("/hypervisors")["items"]
    if as_json:
        for row in rows:
            screen.json(row)
        return EXIT_OK
    if not rows:
        screen.say("no hypervisor is known yet: 'holdfast hypervisor add'")
        return EXIT_OK
    columns: list[Column] = [
        ("hypervisor", "left"),
        ("kind", "left"),
        ("url", "left"),
        ("reached by", "left"),
        ("machines", "right"),
        ("looked at", "left"),
    ]
    cells = [
        [
            row["name"],
            row["kind"],
            row["url"],
            row["proxy"] or "master",
            format_count(row["virtual_machines"]),
            "never" if row["looked_at"] is None else local_time(row["looked_at"]),
        ]
        for row in rows
    ]
    screen.table(columns, cells, gives_way=(2,))
    for row in rows:
        tell_problem(screen, row)
    return EXIT_OK


@hypervisor.command(
    arguments=[("NAME", "What policies will name it by.")],
    examples=[
        "holdfast hypervisor add kvm1 --kind libvirt --at qemu:///system --proxy kvm1",
        "holdfast hypervisor add vc --kind vmware --at https://vcenter.example.com --user backup",
        "holdfast hypervisor add lab --kind diskfiles --at /srv/machines",
    ],
)
@click.argument("name")
@click.option("--kind", metavar="KIND", required=True, help="libvirt, qmp, vmware or diskfiles.")
@click.option("--at", "place", metavar="PLACE", required=True, help="Where it is: a URL or path.")
@proxy_option
@user_option
@password_option
@certificate_option
@per_host_option
@per_datastore_option
@click.option("--no-discover", is_flag=True, help="Do not ask it for its machines yet.")
@options.url_option
@options.json_flag
def add(
    name: str,
    kind: str,
    place: str,
    no_discover: bool,
    url: str | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Make a hypervisor known, and ask it for its machines.

    A password is asked for where a user is named. It is kept sealed, and shown to nobody.
    """
    from holdfast.faces.cli.api_client import at, open_api

    screen = Screen(as_json=as_json)
    if not is_plain_name(name):
        raise Invalid(f"'{name}' can't be the name of a hypervisor", PLAIN_NAME_HINT)
    body = {"name": name, "kind": kind, "url": place, **_limits(given)}
    if given["proxy"] is not None:
        body["proxy"] = given["proxy"]
    with open_api(url) as api:
        credentials = _credentials(name, given)
        if credentials is not None:
            body["credentials"] = credentials
        made = api.post("/hypervisors", body)
        if not no_discover:
            try:
                made = api.post(at("hypervisors", name, "discover"), {})
            except HoldfastError:
                again = f"holdfast hypervisor discover {name}"
                screen.say(
                    f"hypervisor '{name}' is known, and did not tell its machines: '{again}'"
                )
                raise
    _tell(screen, made, "is known")
    return EXIT_OK


@hypervisor.command(arguments=[NAME], examples=["holdfast hypervisor show kvm1"])
@click.argument("name")
@options.url_option
@options.json_flag
def show(name: str, url: str | None, as_json: bool) -> int:
    """Show a hypervisor."""
    from holdfast.faces.cli.api_client import at, open_api

    screen = Screen(as_json=as_json)
    with open_api(url) as api:
        row = api.get(at("hypervisors", name))
    if as_json:
        screen.json(row)
        return EXIT_OK
    known = row["looked_at"]
    screen.facts(
        [
            ("hypervisor", row["name"]),
            ("kind", row["kind"]),
            ("url", row["url"]),
            ("reached by", row["proxy"] or "the master server"),
            ("credentials", "kept, sealed" if row["has_credentials"] else "none"),
            ("at once", f"{row['per_host']} on a host, {row['per_datastore']} on a datastore"),
            ("machines", format_count(row["virtual_machines"])),
            ("looked at", "never" if known is None else local_time(known)),
        ]
    )
    tell_problem(screen, row)
    return EXIT_OK


@hypervisor.command(
    name="set",
    arguments=[NAME],
    examples=[
        "holdfast hypervisor set kvm1 --per-host 4",
        "holdfast hypervisor set kvm1 --proxy -",
        "holdfast hypervisor set vc --user backup2 --password-file new.txt",
    ],
)
@click.argument("name")
@click.option("--at", "place", metavar="PLACE", help="Where it is.")
@click.option(
    "--proxy", metavar="CLIENT", help="Whose agent reaches it; '-' for the master server itself."
)
@user_option
@password_option
@certificate_option
@click.option("--no-credentials", is_flag=True, help="It lets in without any.")
@per_host_option
@per_datastore_option
@options.url_option
@options.json_flag
def change(
    name: str,
    place: str | None,
    no_credentials: bool,
    url: str | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Have a hypervisor be reached in another way, or asked for more or less at once."""
    from holdfast.faces.cli.api_client import at, open_api

    screen = Screen(as_json=as_json)
    body: Plain = _limits(given)
    if place is not None:
        body["url"] = place
    if given["proxy"] is not None:
        body["proxy"] = given["proxy"]
    with open_api(url) as api:
        credentials = {} if no_credentials else _credentials(name, given)
        if credentials is not None:
            body["credentials"] = credentials
        if not body:
            raise UsageError("nothing is to be changed", "say what, such as --per-host 4")
        made = api.patch(at("hypervisors", name), body)
    _tell(screen, made, "is changed")
    return EXIT_OK


@hypervisor.command(arguments=[NAME], examples=["holdfast hypervisor remove kvm1"])
@click.argument("name")
@options.url_option
@options.json_flag
def remove(name: str, url: str | None, as_json: bool) -> int:
    """Forget a hypervisor that no policy names, and its machines. Their images stay."""
    from holdfast.faces.cli.api_client import at, open_api

    screen = Screen(as_json=as_json)
    with open_api(url) as api:
        api.delete(at("hypervisors", name))
    if as_json:
        screen.json({"removed": name})
    else:
        screen.say(f"hypervisor '{name}' is forgotten; images of its machines stay")
    return EXIT_OK


@hypervisor.command(
    arguments=[("NAME", "Of the hypervisor; all of them, if none is named.")],
    examples=["holdfast hypervisor discover", "holdfast hypervisor discover kvm1"],
)
@click.argument("name", required=False)
@options.url_option
@options.json_flag
def discover(name: str | None, url: str | None, as_json: bool) -> int:
    """Ask hypervisors which machines they have now. The site also does so by itself."""
    from holdfast.faces.cli.api_client import at, open_api

    screen = Screen(as_json=as_json)
    with open_api(url) as api:
        names = [row["name"] for row in api.get("/hypervisors")["items"]] if not name else [name]
        for one in names:
            _tell(screen, api.post(at("hypervisors", one, "discover"), {}), "was asked")
    return EXIT_OK


def _limits(given: Plain) -> Plain:
    wanted = {key: given[key] for key in ("per_host", "per_datastore")}
    return {key: value for key, value in wanted.items() if value is not None}


def _credentials(name: str, given: Plain) -> Plain | None:
    user, file, certificate = given["user"], given["password_file"], given["certificate_file"]
    if user is None and file is not None:
        raise UsageError("a password is given, and no user", "add --user USER")
    found: Plain = {}
    if user is not None:
        found["user"] = user
        found["password"] = read_password(file, f"password of {user} on hypervisor {name}")
    if certificate is not None:
        found["certificate"] = _text(certificate)
    return found or None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"can't read {file}: {error}", "name a file with a PEM in it") from error


def _tell(screen: Screen, row: Plain, what: str) -> None:
    if screen.as_json:
        screen.json(row)
        return
    count = format_count(row["virtual_machines"])
    screen.line(f"hypervisor '{row['name']}' {what}: {count} virtual machines")
    tell_problem(screen, row)


def tell_problem(screen: Screen, row: Plain) -> None:
    """Tell that a hypervisor did not answer, and as of when it is known."""
    if row["problem"] is None:
        return
    known = row["looked_at"]
    as_of = "nothing is known" if known is None else f"known is what it had {local_time(known)}"
    screen.warn(f"hypervisor '{row['name']}': {printable(row['problem'])}; {as_of}")
