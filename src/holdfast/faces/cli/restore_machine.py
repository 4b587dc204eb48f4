"""``holdfast restore-machine``: a virtual machine made of an image."""

from __future__ import annotations

import os
from typing import Any

import click

from holdfast.base.errors import UsageError
from holdfast.base.ids import parse_image_path
from holdfast.faces.cli import made_again, options
from holdfast.faces.cli.restore import queue_restore, whole_id
from holdfast.faces.cli.screen import Screen
from holdfast.faces.cli.words import Command

FORMATS = ("qcow2", "raw", "vmdk", "vhdx", "vdi")


@click.command(
    name="restore-machine",
    cls=Command,
    arguments=[made_again.IMAGE],
    examples=[
        "holdfast restore-machine 3f2a --to kvm1 --start",
        "holdfast restore-machine 3f2a --to kvm2 --new-identity --name web1-test --no-network",
        "holdfast restore-machine 3f2a --to-dir /srv/restored --format qcow2",
    ],
)
@click.argument("image", metavar="IMAGE")
@click.option("--to", "hypervisor", metavar="HYPERVISOR", help="Make it there.")
@click.option(
    "--to-dir", metavar="DIR", type=options.PLACE, help="Write its disks and definitions there."
)
@click.option("--client", metavar="NAME", help="With --to-dir: on this machine, which has joined.")
@made_again.identity_options
@click.option(
    "--format",
    "format_",
    type=click.Choice(FORMATS),
    help="Of its disks, if not said: qcow2; vmdk on VMware, which takes no other; raw with "
    "--to-dir. libvirt takes all but vhdx.",
)
@click.option("--storage", metavar="PLACE", help="Where the hypervisor is to put its disks.")
@click.option("--disk", "disks", metavar="NAME", multiple=True, help="Only these disks.")
@click.option("--start", is_flag=True, help="Start it when it is whole.")
@click.option("--verify", is_flag=True, help="Read back what was written and compare.")
@made_again.beside_original_option
@click.option("--restart", is_flag=True, help="Begin anew where one like it was interrupted.")
@click.option("--discard", is_flag=True, help="Throw away what one like it left; restore nothing.")
@options.url_option
@options.json_flag
def restore_machine(
    image: str,
    hypervisor: str | None,
    to_dir: str | None,
    client: str | None,
    networks: tuple[str, ...],
    no_network: bool,
    new_identity: bool,
    format_: str | None,
    disks: tuple[str, ...],
    restart: bool,
    discard: bool,
    url: str | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Make a virtual machine of an image, on a hypervisor, or as files in a directory.

    It is a job, which 'holdfast serve' gives out to whoever reaches the hypervisor. The machine is
    made off, and connected to what it was connected to. An original that runs is not doubled with
    its identity unless --beside-original is said. The same command after an interruption goes on
    with the disks that are there.
    """
    screen = Screen(as_json=as_json)
    if (hypervisor is None) == (to_dir is None):
        raise UsageError(
            "a machine is restored to a hypervisor, or to a directory", "--to NAME, or --to-dir DIR"
        )
    if restart and discard:
        raise UsageError("--restart and --discard contradict each other")
    same = made_again.identity(networks, no_network=no_network, new_identity=new_identity)
    wanted = parse_image_path(image)
    if wanted.path != b"/":
        raise UsageError("a machine is restored whole", "'holdfast restore' brings back files")
    if to_dir is not None and client is None and url is None:
        # Said of this machine's working directory, and carried out in another process.
        to_dir = os.path.abspath(to_dir)
    body: dict[str, Any] = {
        "hypervisor": hypervisor,
        "to_dir": to_dir,
        "client": client,
        **same,
        "format": format_,
        "disks": list(disks),
        "unfinished": "restart" if restart else "discard" if discard else "continue",
        **given,
    }
    return queue_restore(screen, whole_id(wanted.image, url), "machine-restores", body, url)
