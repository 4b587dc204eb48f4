"""``holdfast policy run`` and ``preview``: a policy at once, and what it will do by itself."""

from __future__ import annotations

import click

from holdfast.base.errors import EXIT_OK
from holdfast.faces.cli import options
from holdfast.faces.cli.schedule import hours_of, tell_upcoming
from holdfast.faces.cli.screen import Screen
from holdfast.faces.cli.words import Command

KINDS = ("full", "synthetic", "cumulative", "differential")
"""As the control floor has them; to load that for a help text would take long."""


@click.command(
    cls=Command,
    arguments=[("NAME", "The policy.")],
    examples=[
        "holdfast policy run servers",
        "holdfast policy run servers --schedule weekly --client web1",
        "holdfast policy run servers --kind full",
    ],
)
@click.argument("name")
@click.option("--schedule", metavar="S", help="As this schedule of the policy would.")
@click.option("--kind", type=click.Choice(KINDS), help="How; else as the schedule.")
@click.option("--client", "clients", metavar="NAME", multiple=True, help="Of these only.")
@options.url_option
@options.json_flag
def run(
    name: str,
    schedule: str | None,
    kind: str | None,
    clients: tuple[str, ...],
    url: str | None,
    as_json: bool,
) -> int:
    """Queue a backup of what a policy says, at once. Windows do not count, limits do.

    A site that is served begins it; 'holdfast jobs watch' shows how far it is.
    """
    from holdfast.faces.cli.api_client import at, open_api

    screen = Screen(as_json=as_json)
    body = {"schedule": schedule, "kind": kind, "clients": list(clients)}
    with open_api(url) as api:
        queued = api.post(at("policies", name, "runs"), body)
        begins = api.is_served
    if as_json:
        screen.json(queued)
        return EXIT_OK
    screen.line(str(queued["job"]))
    parts = f", in {queued['parts']} parts" if queued["parts"] else ""
    job = queued["job"]
    then = f"'holdfast jobs watch {job}' follows it" if begins else "'holdfast serve' begins it"
    screen.say(f"job {job} is queued{parts}; {then}")
    return EXIT_OK


@click.command(
    cls=Command,
    arguments=[("NAME", "The policy.")],
    examples=["holdfast policy preview servers", "holdfast policy preview servers --days 7"],
)
@click.argument("name")
@click.option(
    "--days", type=click.FloatRange(0, 400, min_open=True), default=30.0, show_default=True
)
@options.url_option
@options.json_flag
def preview(name: str, days: float, url: str | None, as_json: bool) -> int:
    """Show when a policy will start what, and what that will wait for. Nothing is changed.

    All other policies are in its way as they will be. A backup is taken to last as long as the
    last one of the same source, and ten minutes if there was none.
    """
    from holdfast.faces.cli.api_client import at, open_api

    screen = Screen(as_json=as_json)
    with open_api(url) as api:
        found = api.get(at("policies", name, "forecast"), hours=hours_of(days))
    return tell_upcoming(screen, found)
