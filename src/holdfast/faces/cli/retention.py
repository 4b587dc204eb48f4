"""``holdfast retention``: which images rules keep, and letting go of the others."""

from __future__ import annotations

import sys
from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from holdfast.base.errors import EXIT_FINDINGS, EXIT_OK, Cancelled, Invalid, UsageError
from holdfast.base.units import format_count, parse_duration
from holdfast.control.retention import PERIODS, Rules
from holdfast.faces.cli import describe, opening, options
from holdfast.faces.cli.screen import Column, Screen
from holdfast.faces.cli.words import Group

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.base.ids import ImageId
    from holdfast.control.retention import Candidate, Judgement, Verdict

_KEPT = click.IntRange(min=0)


def _rules(command: Callable[..., int]) -> Callable[..., int]:
    """The options that make up rules, and which images they are for."""
    given = [
        click.option("--last", type=_KEPT, metavar="N", help="Keep the newest N."),
        click.option("--within", metavar="AGE", help="Keep what is not older, such as 30d or 8w."),
        *(
            click.option(
                f"--{period}",
                type=_KEPT,
                metavar="N",
                help=f"Keep the newest of each of the last N {_NOUNS[period]} that have any.",
            )
            for period in PERIODS
        ),
        click.option(
            "--zone",
            metavar="Z",
            help="Whose calendar counts, such as Europe/Berlin; else the site's.",
        ),
        options.source_option,
        options.json_flag,
    ]
    for option in reversed(given):
        command = option(command)
    return command


_NOUNS = dict(zip(PERIODS, ("hours", "days", "weeks", "months", "years"), strict=True))


@click.group(cls=Group, no_args_is_help=False)
def retention() -> None:
    """Which images rules keep."""


@retention.command(
    examples=[
        "holdfast retention preview --last 3 --daily 7 --weekly 4 --monthly 12",
        "holdfast retention preview --within 30d --source web1:/srv",
    ]
)
@_rules
def preview(**given: Any) -> int:
    """Show what rules would keep of each source, and why, for every image. Nothing is changed.

    An image is kept if any rule keeps it, if it is held or locked, or if it is the newest of its
    source. Without rules, each image is judged by those of its policy.
    """
    from holdfast.site import retention as acts

    screen = Screen(as_json=given["as_json"])
    rules, zone = _read(given)
    sources = None if given["source"] is None else [given["source"]]
    stay = go = 0
    with opening.open_site() as site:
        for judgement in acts.judgements(site, rules, zone, sources=sources):
            _tell(screen, judgement)
            _warn(screen, judgement)
            go += len(judgement.leaving)
            stay += len(judgement.verdicts) - len(judgement.leaving)
        doubt = acts.clock_doubt(site)
    if stay or go:
        screen.say(f"stay: {format_count(stay)}, go: {format_count(go)}")
    else:
        screen.say("no images yet: 'holdfast backup PATH' makes one")
    if doubt is not None:
        screen.warn(f"nothing would go now: {doubt}; hint: {acts.TRUST}")
    return EXIT_OK


@retention.command(
    examples=["holdfast retention apply --daily 7 --weekly 4 --monthly 12 --yes", "holdfast gc"]
)
@_rules
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--trust-clock", is_flag=True, help="The clock was set, and is right: go on with it.")
def apply(yes: bool, trust_clock: bool, **given: Any) -> int:
    """Let go of every image that no rule keeps. Their space returns with 'holdfast gc'.

    Look at 'holdfast retention preview' with the same rules first. Without rules, each image is
    judged by those of its policy.
    """
    from holdfast.site import retention as acts

    screen = Screen(as_json=given["as_json"])
    rules, zone = _read(given)

    sources = None if given["source"] is None else [given["source"]]

    def gone(image: ImageId) -> None:
        if screen.as_json:
            screen.json({"expired": image})
        else:
            screen.line(f"expired {image}")

    with opening.open_site() as site:
        if not (acts.has_policies(site) if rules is None else rules.are_there):
            hint = "add for example --daily 7 --weekly 4, or make a policy: holdfast policy new"
            raise UsageError("no rule says what to keep", hint)
        _ = site.pool
        leaving: list[Candidate] = []
        judged, doubts = 0, False
        for judgement in acts.judgements(site, rules, zone, sources=sources):
            _warn(screen, judgement)
            leaving += judgement.leaving
            judged += len(judgement.verdicts)
            doubts = doubts or bool(judgement.doubts)
        if leaving and not yes:
            _confirm(len(leaving), judged)
        if trust_clock:
            acts.trust_clock(site)
        kept = acts.apply(site, leaving, gone)
    for image, why in kept.items():
        screen.warn(f"image {image} stays: {why}")
    count = len(leaving) - len(kept)
    if count:
        screen.say(f"images let go: {format_count(count)}; 'holdfast gc' gives the space back")
    else:
        screen.say("nothing to let go")
    return EXIT_FINDINGS if kept or doubts else EXIT_OK


def _read(given: dict[str, Any]) -> tuple[Rules | None, ZoneInfo | None]:
    within = given["within"]
    name = given["zone"]
    try:
        age = None if within is None else timedelta(seconds=parse_duration(within))
    except OverflowError as error:
        raise Invalid(f"'{within}' is longer than time itself", "write for example 30d") from error
    try:
        zone = None if name is None else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise Invalid(
            f"'{name}' is not a time zone", "write for example Europe/Berlin or UTC"
        ) from error
    counts = {name: given[name] for name in ("last", *PERIODS) if given[name] is not None}
    return Rules(within=age, **counts) if counts or age is not None else None, zone


def _confirm(going: int, all_of: int) -> None:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            f"{format_count(going)} of {format_count(all_of)} images would go, and nobody is here "
            "to ask",
            "look at 'holdfast retention preview', then add --yes",
        )
    question = f"let {format_count(going)} of {format_count(all_of)} images go?"
    if not click.confirm(question, default=False, err=True):
        raise Cancelled("nothing was let go")


def _tell(screen: Screen, judgement: Judgement) -> None:
    if screen.as_json:
        for one in judgement.verdicts:
            screen.json(_object(one))
        return
    columns: list[Column] = [("id", "left"), ("time", "left"), ("verdict", "left")]
    for source, verdicts in groupby(judgement.verdicts, key=lambda one: one.image.source):
        screen.line(source)
        screen.table(columns, [_cells(one) for one in verdicts], gives_way=2)


def _warn(screen: Screen, judgement: Judgement) -> None:
    for source, doubt in judgement.doubts.items():
        screen.warn(f"nothing of {source} goes: {doubt}")


def _cells(verdict: Verdict) -> list[str]:
    image = verdict.image
    return [
        image.id[: describe.SHORT_ID],
        describe.local_time(image.started_at),
        "; ".join(verdict.reasons) if verdict.stays else "goes",
    ]


def _object(verdict: Verdict) -> dict[str, object]:
    image = verdict.image
    return {
        "id": image.id,
        "source": image.source,
        "started_at": describe.iso_time(image.started_at),
        "stays": verdict.stays,
        "reasons": list(verdict.reasons),
    }
