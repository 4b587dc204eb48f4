"""``holdfast verify-boot``: boot a virtual machine from its backup, and see whether it comes up."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from holdfast.base.errors import EXIT_FAILED, EXIT_OK, InputOutput, Invalid
from holdfast.base.units import format_duration, parse_duration
from holdfast.faces.cli import opening, options
from holdfast.faces.cli.screen import Screen
from holdfast.faces.cli.words import Command

if TYPE_CHECKING:
    from holdfast.base.ids import ImageId
    from holdfast.movers.machines.boot_check import BootVerdict
    from holdfast.site.site import Site


@click.command(
    cls=Command,
    arguments=[("IMAGE", "An id, a unique prefix, or 'latest'.")],
    examples=[
        "holdfast verify-boot latest --serial 'login:' --screenshot web1.png",
        "holdfast verify-boot 4f2a --port 22 --agent --within 5m",
        "holdfast verify-boot 4f2a --command 'systemctl is-system-running'",
    ],
)
@click.argument("image")
@click.option("--serial", metavar="REGEX", help="Wait for a text on its serial console.")
@click.option("--port", type=int, metavar="N", help="Wait until something answers at a TCP port.")
@click.option("--agent", is_flag=True, help="Wait until its guest agent answers.")
@click.option("--command", metavar="WORDS", help="Have its guest agent run this, with success.")
@click.option("--within", default="10m", show_default=True, help="How long all of that may take.")
@click.option("--screenshot", type=options.FILE, metavar="FILE", help="Write the screen, as PNG.")
@options.json_flag
def verify_boot(
    image: str,
    serial: str | None,
    port: int | None,
    agent: bool,
    command: str | None,
    within: str,
    screenshot: Path | None,
    as_json: bool,
) -> int:
    """Boot a machine from its image, cut off from every network, and judge it.

    What it writes is thrown away. The verdict is kept with the image. Exit status 2 if the machine
    did not do in time what was waited for.
    """
    from holdfast.movers.machines.boot_check import BootChecks, run_boot_check
    from holdfast.movers.machines.serving import served

    screen = Screen(as_json=as_json)
    checks = BootChecks(
        serial=serial,
        port=port,
        agent=agent,
        command=_words(command or ""),
        within_s=parse_duration(within),
    )
    with opening.open_site() as site:
        chosen = site.resolve(image)
        pool = site.pools.holding(chosen)
        screen.say(f"booting image {chosen[:12]}, for {format_duration(checks.within_s)} at most")
        with tempfile.TemporaryDirectory(prefix="holdfast-boot-") as scratch:
            verdict = run_boot_check(
                lambda path: pool.open_file(chosen, path), checks, served, Path(scratch)
            )
        number = _keep(site, chosen, verdict)
    if screenshot is not None and verdict.screenshot is not None:
        try:
            screenshot.write_bytes(verdict.screenshot)
        except OSError as error:
            raise InputOutput(f"can't write '{screenshot}': {error.strerror}") from error
    _tell(screen, chosen, number, verdict)
    return EXIT_OK if verdict.passed else EXIT_FAILED


def _words(command: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(command))
    except ValueError as error:
        raise Invalid(f"'{command}' is no command: {error}", "close what is quoted") from error


def _keep(site: Site, image: ImageId, verdict: BootVerdict) -> int:
    from holdfast.control.boot_checks import BootCheckBook, NewBootCheck

    check = NewBootCheck(
        image=image,
        at=site.clock.now(),
        passed=verdict.passed,
        took_s=verdict.took_s,
        met=verdict.met,
        missed=verdict.missed,
        said=verdict.said,
        screenshot=verdict.screenshot,
    )
    site.catalog.image(image)
    return BootCheckBook(site.database).add(check).id


def _tell(screen: Screen, image: ImageId, number: int, verdict: BootVerdict) -> None:
    if screen.as_json:
        told: dict[str, Any] = {
            "image": image,
            "boot_check": number,
            "passed": verdict.passed,
            "took_s": round(verdict.took_s, 3),
            "met": {name: round(after_s, 3) for name, after_s in verdict.met.items()},
            "missed": list(verdict.missed),
            "said": verdict.said,
            "has_screenshot": verdict.screenshot is not None,
        }
        screen.json(told)
        return
    for name, after_s in verdict.met.items():
        screen.line(f"came after {format_duration(after_s)}: {name}")
    for words in verdict.missed:
        screen.line(f"did not come: {words}")
    if not verdict.passed and verdict.said.strip():
        screen.say("its serial console said at last:")
        for line in verdict.said.strip().splitlines()[-10:]:
            screen.say(f"  {''.join(one if one.isprintable() else ' ' for one in line)[:76]}")
    screen.line(f"verdict: {'it boots' if verdict.passed else 'it does not boot as it should'}")
