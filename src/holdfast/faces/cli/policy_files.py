"""Policies as code: ``holdfast policy template``, ``validate``, ``export`` and ``apply``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from holdfast.base.errors import (
    EXIT_FINDINGS,
    EXIT_OK,
    Cancelled,
    Invalid,
    PathMissing,
    PolicyInvalid,
    UsageError,
    storage_error,
)
from holdfast.faces.cli import opening, options, policy_words
from holdfast.faces.cli.screen import Column, Screen
from holdfast.faces.cli.words import Command

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from holdfast.faces.cli.api_client import ApiClient

FORMATS = ("toml", "yaml")

_FROM_STDIN = "-"

format_option = click.option(
    "--format", "form", metavar="FORMAT", type=click.Choice(FORMATS), help="toml or yaml."
)
offline_option = click.option(
    "--offline", is_flag=True, help="Do not look at clients and storage, only at what is written."
)
file_argument = click.argument("file", metavar="FILE", type=options.FILE)


@click.command(
    cls=Command,
    arguments=[("NAME", "A template; without it, all are listed.")],
    examples=[
        "holdfast policy template",
        "holdfast policy template server --name servers --client web1 > servers.toml",
    ],
)
@click.argument("name", required=False)
@click.option("--name", "policy", metavar="POLICY", help="What the policy is to be called.")
@click.option("--client", "clients", metavar="NAME", multiple=True, help="Whom it is for; may be "
              "repeated. Without it, this machine.")  # fmt: skip
@click.option("--client-query", metavar="GLOBS", help="The same as a query, such as 'web*'.")
@options.url_option
@options.json_flag
def template(
    name: str | None,
    policy: str | None,
    clients: tuple[str, ...],
    client_query: str | None,
    url: str | None,
    as_json: bool,
) -> int:
    """Write a policy to begin with, as a file with comments."""
    from holdfast.faces.cli.api_client import at, open_api

    screen = Screen(as_json=as_json)
    if name is None:
        with open_api(url) as api:
            _tell_templates(screen, list(api.pages("/policy-templates")))
        return EXIT_OK
    if clients and client_query is not None:
        raise UsageError("--client and --client-query contradict each other")
    whom = list(clients) or ([] if client_query is not None else [this_machine()])
    with open_api(url) as api:
        found = api.get(
            at("policy-templates", name), policy=policy, client=whom, client_query=client_query
        )
    if as_json:
        screen.json(found)
    else:
        screen.line(found["text"].removesuffix("\n"))
    return EXIT_OK


@click.command(
    cls=Command,
    arguments=[("FILE", "TOML or YAML; - for stdin. Without it, the policies of the site.")],
    examples=["holdfast policy validate policies.toml", "holdfast policy validate --offline"],
)
@click.argument("file", metavar="[FILE]", type=options.FILE, required=False)
@format_option
@offline_option
@options.url_option
@options.json_flag
def validate(
    file: Path | None, form: str | None, offline: bool, url: str | None, as_json: bool
) -> int:
    """Say all that is wrong with policies: what is written, and what clients and storage say.

    Nothing is changed. Exit status: 0 all well, 1 warnings alone, 64 errors.
    """
    from holdfast.faces.cli.api_client import open_api

    screen = Screen(as_json=as_json)
    given = None if file is None else document(file, form)
    with open_api(url) as api:
        if given is None:
            given = {"text": _exported(api, "toml", ()), "format": "toml"}
        answer = api.post("/policy-document/validate", {**given, "live": not offline})
    findings: list[dict[str, Any]] = answer["findings"]
    if as_json:
        screen.json(answer)
    for one in findings if not as_json else ():
        for line in policy_words.finding_lines(one):
            screen.line(line)
    refuse_errors(findings, "they would be refused")
    if any(one["severity"] == "warning" for one in findings):
        return EXIT_FINDINGS
    if not as_json:
        screen.say("nothing is wrong")
    return EXIT_OK


@click.command(
    cls=Command,
    arguments=[("NAME", "Policies; without any, all.")],
    examples=[
        "holdfast policy export > policies.toml",
        "holdfast policy export servers --format yaml",
    ],
)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@format_option
@options.url_option
@options.json_flag
def export(names: tuple[str, ...], form: str | None, url: str | None, as_json: bool) -> int:
    """Write policies as a file that 'holdfast policy apply' takes."""
    from holdfast.faces.cli.api_client import open_api

    screen = Screen(as_json=as_json)
    chosen = form or FORMATS[0]
    with open_api(url) as api:
        text = _exported(api, chosen, names)
    if as_json:
        screen.json({"format": chosen, "text": text})
    elif text:
        screen.line(text.removesuffix("\n"))
    return EXIT_OK


@click.command(
    cls=Command,
    arguments=[("FILE", "TOML or YAML; - for stdin.")],
    examples=[
        "holdfast policy apply policies.toml --plan",
        "holdfast policy apply policies.toml --prune --yes",
    ],
)
@file_argument
@click.option("--plan", "plan_only", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--prune", is_flag=True, help="Remove the policies that the file does not name.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@format_option
@offline_option
@options.url_option
@options.json_flag
def apply(
    file: Path,
    plan_only: bool,
    prune: bool,
    yes: bool,
    form: str | None,
    offline: bool,
    url: str | None,
    as_json: bool,
) -> int:
    """Make the policies of the site be as a file says, all of them or none."""
    from holdfast.faces.cli.api_client import open_api

    screen = Screen(as_json=as_json)
    given = {**document(file, form), "prune": prune, "live": not offline}
    with open_api(url) as api:
        plan = api.post("/policy-document/plan", given)
        policy_words.tell_findings(screen, plan["findings"])
        refuse_errors(plan["findings"], "nothing was changed")
        asks = bool(plan["revisions"]) and not yes and not plan_only
        if asks:
            _require_somebody(plan)
        if plan_only or not as_json:
            _tell_plan(screen, plan)
        if plan_only:
            return EXIT_OK
        if not plan["revisions"]:
            done = {"created": [], "changed": [], "removed": [], "findings": plan["findings"]}
        else:
            if asks and not click.confirm("do that?", default=False, err=True):
                raise Cancelled("nothing was changed")
            # What was looked at above has been looked at.
            given |= {"live": False, "revisions": plan["revisions"]}
            done = api.post("/policy-document/apply", given)
    if as_json:
        screen.json(done)
    elif plan["revisions"]:
        screen.say("done")
    return EXIT_OK


def document(file: Path, form: str | None) -> dict[str, str]:
    """A file of policies, as the API takes it.

    Raises:
        UsageError: Its name does not tell the format, and nobody said it.
        PathMissing: It is not there.
        StorageError: It can't be read.
        Invalid: It is not text.
    """
    from holdfast.control.policies import Format

    if str(file) == _FROM_STDIN:
        return {"text": _decoded(sys.stdin.buffer.read(), "what came in"), "format": form or "toml"}
    chosen = form or Format.of(str(file)).value
    try:
        content = file.read_bytes()
    except FileNotFoundError as error:
        raise PathMissing(f"there is no file {file}") from error
    except OSError as error:
        raise storage_error(error)(f"can't read {file}: {error.strerror}") from error
    return {"text": _decoded(content, str(file)), "format": chosen}


def refuse_errors(findings: Sequence[dict[str, Any]], therefore: str) -> None:
    """End the command if there are errors, which were told one by one.

    Raises:
        PolicyInvalid: There are.
    """
    count = sum(one["severity"] == "error" for one in findings)
    if count:
        errors = "1 error" if count == 1 else f"{count:,} errors"
        raise PolicyInvalid(
            f"{errors} in these policies: {therefore}", "correct what is named above"
        )


def this_machine() -> str:
    """The name of this machine as a client."""
    import os

    return os.uname().nodename


def _exported(api: ApiClient, form: str, names: Sequence[str]) -> str:
    return b"".join(api.text("/policy-document", format=form, name=list(names))).decode()


def _decoded(content: bytes, what: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise Invalid(f"{what} is not UTF-8 text: line {line}", "save it as UTF-8") from error


def _tell_templates(screen: Screen, rows: Sequence[dict[str, Any]]) -> None:
    if screen.as_json:
        for row in rows:
            screen.json(row)
        return
    columns: list[Column] = [("name", "left"), ("what it is for", "left")]
    screen.table(columns, [[row["name"], row["summary"]] for row in rows])


def _tell_plan(screen: Screen, plan: dict[str, Any]) -> None:
    if screen.as_json:
        screen.json(plan)
        return
    for line in policy_words.plan_lines(plan):
        screen.line(line)


def _require_somebody(plan: dict[str, Any]) -> None:
    if not opening.can_ask():
        raise UsageError(
            f"{policy_words.plan_total(plan)}, and nobody is here to ask",
            "look at it with --plan, then add --yes",
        )
