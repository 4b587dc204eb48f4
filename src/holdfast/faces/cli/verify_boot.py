"""``holdfast verify-boot``: boot a virtual machine from its backup, and see whether it comes up."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from holdfast.base.errors import EXIT_FAILED, EXIT_OK, InputOutput, Invalid, NotFound, UsageError
from holdfast.base.units import format_duration, parse_duration
from holdfast.faces.cli import acting, describe, opening, options
from holdfast.faces.cli.screen import Screen
from holdfast.faces.cli.words import Command

if TYPE_CHECKING:
    from holdfast.base.ids import ImageId
    from holdfast.control.boot_checks import NewBootCheck
    from holdfast.movers.machines.boot_check import BootVerdict


@click.command(
    cls=Command,
    arguments=[("IMAGE", "An id, a unique prefix, or 'latest'.")],
    examples=[
        "holdfast verify-boot latest --serial 'login:' --screenshot web1.png",
        "holdfast verify-boot 4f2a --port 22 --agent --within 5m",
        "holdfast verify-boot 4f2a --command 'systemctl is-system-running'",
        "holdfast verify-boot 4f2a --last --screenshot web1.png",
    ],
)
@click.argument("image")
@click.option("--serial", metavar="REGEX", help="Wait for a text on its serial console.")
@click.option("--port", type=int, metavar="N", help="Wait until something answers at a TCP port.")
@click.option("--agent", is_flag=True, help="Wait until its guest agent answers.")
@click.option("--command", metavar="WORDS", help="Have its guest agent run this, with success.")
@click.option("--within", default="10m", show_default=True, help="How long all of that may take.")
@click.option("--screenshot", type=options.FILE, metavar="FILE", help="Write the screen, as PNG.")
@click.option("--last", is_flag=True, help="Boot nothing: tell how that went the last time.")
@options.json_flag
def verify_boot(
    image: str,
    serial: str | None,
    port: int | None,
    agent: bool,
    command: str | None,
    within: str,
    screenshot: Path | None,
    last: bool,
    as_json: bool,
) -> int:
    """Boot a machine from its image, cut off from every network, and judge it.

    What it writes is thrown away. The verdict is kept with the image. Exit status 2 if the machine
    did not do in time what was waited for. A policy may have its images booted after each backup:
    'verify_boot'.
    """
    from holdfast.movers.machines.boot_check import BootChecks, run_boot_check
    from holdfast.movers.machines.serving import served
    from holdfast.site.boot_checks import keep

    screen = Screen(as_json=as_json)
    if last:
        if serial is not None or port is not None or agent or command is not None:
            raise UsageError("with --last nothing is booted, so there is nothing to wait for")
        return _tell_last(screen, image, screenshot)
    checks = BootChecks(
        serial=serial,
        port=port,
        agent=agent,
        command=_words(command or ""),
        within_s=parse_duration(within),
    )
    with opening.open_site() as site:
        chosen = site.resolve(image)
        acting.about([chosen])
        pool = site.pools.holding(chosen)
        screen.say(f"booting image {chosen[:12]}, for {format_duration(checks.within_s)} at most")
        with tempfile.TemporaryDirectory(prefix="holdfast-boot-") as scratch:
            verdict = run_boot_check(
                lambda path: pool.open_file(chosen, path), checks, served, Path(scratch)
            )
        number = keep(site, chosen, verdict)
    _write(screenshot, verdict.screenshot)
    _tell(screen, chosen, number, verdict, verdict.screenshot is not None)
    return EXIT_OK if verdict.passed else EXIT_FAILED


def _tell_last(screen: Screen, image: str, screenshot: Path | None) -> int:
    from holdfast.control.boot_checks import BootCheckBook

    with opening.open_site() as site:
        chosen = site.resolve(image)
        book = BootCheckBook(site.database)
        kept = book.newest_of([chosen]).get(chosen)
        if kept is None:
            raise NotFound(
                f"image {chosen[:12]} was never booted",
                "leave --last out, and say what to wait for",
            )
        picture = book.screenshot(kept.id)[1] if kept.has_screenshot else None
    if screenshot is not None and picture is None:
        raise NotFound(f"image {chosen[:12]} showed nothing when it was booted last")
    _write(screenshot, picture)
    check = kept.check
    screen.say(f"image {chosen[:12]} was booted last at {describe.local_time(check.at)}")
    _tell(screen, chosen, kept.id, check, kept.has_screenshot)
    return EXIT_OK if check.passed else EXIT_FAILED


def _write(place: Path | None, picture: bytes | None) -> None:
    if place is None or picture is None:
        return
    try:
        place.write_bytes(picture)
    except OSError as error:
        raise InputOutput(f"can't write '{place}': {error.strerror}") from error


def _words(command: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(command))
    except ValueError as error:
        raise Invalid(f"'{command}' is no command: {error}", "close what is quoted") from error


def _tell(
    screen: Screen,
    image: ImageId,
    number: int,
    verdict: BootVerdict | NewBootCheck,
    has_screenshot: bool,
) -> None:
    if screen.as_json:
        told: dict[str, Any] = {
            "image": image,
            "boot_check": number,
            "passed": verdict.passed,
            "took_s": round(verdict.took_s, 3),
            "met": {name: round(after_s, 3) for name, after_s in verdict.met.items()},
            "missed": list(verdict.missed),
            "said": verdict.said,
            "has_screenshot": has_screenshot,
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
