"""``holdfast policy new``: a policy by question and answer, or all by options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from holdfast.base.errors import EXIT_OK, AlreadyExists, Cancelled, Invalid, UsageError
from holdfast.faces.cli import opening, options, policy_words
from holdfast.faces.cli.policy_files import offline_option, refuse_errors, this_machine
from holdfast.faces.cli.screen import Screen
from holdfast.faces.cli.words import Command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.faces.cli.api_client import ApiClient
    from holdfast.faces.cli.policy_questions import Question

    Plain = dict[str, Any]

DEFAULT_TEMPLATE = "server"
MACHINES_TEMPLATE = "machines"


@click.command(
    cls=Command,
    arguments=[("NAME", "What it is to be called; asked for, if it is not given.")],
    examples=[
        "holdfast policy new",
        "holdfast policy new homes --template workstation --path /home",
        "holdfast policy new web --client 'web*' --path /srv --keep 'daily 14'",
        "holdfast policy new prod --machines 'tag=prod and not name=*-test'",
    ],
)
@click.argument("name", required=False)
@click.option(
    "--template", metavar="NAME", help="What to begin with: see 'holdfast policy template'."
)
@click.option(
    "--client",
    metavar="NAME",
    multiple=True,
    help="Whom it is for; a glob such as 'web*' is a query. May be repeated.",
)
@click.option(
    "--machines",
    metavar="QUERY",
    help="Which virtual machines it is for, such as 'tag=prod'; see 'holdfast machines --where'.",
)
@click.option(
    "--path",
    metavar="PATH",
    multiple=True,
    help="What to back up, or ALL_LOCAL_DRIVES; may be repeated.",
)
@click.option(
    "--exclude",
    metavar="RULE",
    multiple=True,
    help="Leave out, in gitignore syntax; may be repeated.",
)
@click.option("--pre-command", metavar="WORDS", help="Run before each backup, without a shell.")
@click.option("--post-command", metavar="WORDS", help="Run after each backup, without a shell.")
@click.option("--every", metavar="TIME", help="How often, such as 20h or 15m.")
@click.option(
    "--window",
    metavar="W",
    multiple=True,
    help="When it may start, such as 'Mon-Fri 22:00-06:00'; may be repeated.",
)
@click.option("--keep", metavar="RULES", help="How long, such as 'daily 14, weekly 8, within 30d'.")
@click.option("--inactive", is_flag=True, help="Let it start nothing by itself yet.")
@click.option("--plan", "plan_only", is_flag=True, help="Show it and what is wrong; make nothing.")
@click.option("--yes", is_flag=True, help="Ask nothing: take what the template says.")
@offline_option
@options.url_option
@options.json_flag
def new(url: str | None, as_json: bool, offline: bool, **given: Any) -> int:
    """Make a policy. What is not given is asked for, with what the template says as default.

    Nothing is made before clients and storage have been looked at, and you have agreed.
    """
    from holdfast.faces.cli.api_client import open_api

    screen = Screen(as_json=as_json)
    with open_api(url) as api:
        dialogue = Dialogue(screen, api, given, offline=offline)
        policy = dialogue.policy()
        plan = dialogue.plan(policy)
        if not plan["creates"]:
            name = policy["name"]
            raise AlreadyExists(
                f"there is a policy '{name}' already",
                "choose another name, or edit it: holdfast policy export, then apply",
            )
        _show(screen, policy, as_data=given["plan_only"])
        if given["plan_only"]:
            return EXIT_OK
        if dialogue.asks and not click.confirm("make it?", default=True, err=True):
            raise Cancelled("nothing was made")
        done = api.post(
            "/policy-document/apply",
            {"policies": [policy], "live": False, "revisions": plan["revisions"]},
        )
    if as_json:
        screen.json(done)
    else:
        screen.line(f"made policy '{policy['name']}'")
    return EXIT_OK


class Dialogue:
    """Comes to a policy with which nothing is wrong.

    Attributes:
        asks: Whether there is somebody to ask.
    """

    def __init__(self, screen: Screen, api: ApiClient, given: Plain, *, offline: bool) -> None:
        self._screen = screen
        self._api = api
        self._given = given
        self._offline = offline
        self.asks = opening.can_ask() and not given["yes"]

    def policy(self) -> Plain:
        """The policy as it was answered."""
        from holdfast.faces.cli.policy_questions import QUESTIONS

        if not self.asks and not self._given["name"]:
            raise UsageError(
                "the policy needs a name, and nobody is here to ask",
                "holdfast policy new NAME --template server",
            )
        policy = self._template()
        policy.pop("clients", None)
        if "machines" not in policy:
            policy["clients"] = [this_machine()]
        if self._given["inactive"]:
            policy["active"] = False
        for question in QUESTIONS:
            answer = self._answer(question)
            if answer is not None:
                question.write(policy, answer)
            elif self.asks and question.wanted(policy):
                self._ask(question, policy)
        return policy

    def plan(self, policy: Plain) -> Plain:
        """Have the policy looked at until nothing is wrong with it.

        Raises:
            PolicyInvalid: Something is, and nobody can be asked.
        """
        from holdfast.faces.cli.policy_questions import QUESTIONS

        while True:
            if not self._offline:
                self._screen.say("looking at clients and storage")
            body = {"policies": [policy], "live": not self._offline}
            plan: Plain = self._api.post("/policy-document/plan", body)
            policy_words.tell_findings(self._screen, plan["findings"])
            wrong = [one["place"] for one in plan["findings"] if one["severity"] == "error"]
            again = [one for one in QUESTIONS if any(one.is_about(place) for place in wrong)]
            if not wrong or not self.asks or not again:
                refuse_errors(plan["findings"], "nothing was made")
                return plan
            for question in again:
                self._ask(question, policy)

    def _template(self) -> Plain:
        from holdfast.control.policies import Format, parse, to_plain
        from holdfast.faces.cli.api_client import at

        name = self._given["template"]
        if name is None:
            self._require_path()
            name = self._usual_template()
        text = self._api.get(at("policy-templates", name))["text"]
        return to_plain(parse(text, Format.TOML).policies[0])

    def _usual_template(self) -> str:
        if self._given["machines"] is not None:
            return MACHINES_TEMPLATE
        return self._choose_template() if self.asks else DEFAULT_TEMPLATE

    def _require_path(self) -> None:
        if not self.asks and not self._given["path"] and self._given["machines"] is None:
            raise UsageError(
                "nothing says what to back up, and nobody is here to ask",
                "add --template NAME, --path PATH or --machines QUERY",
            )

    def _choose_template(self) -> str:
        rows = list(self._api.pages("/policy-templates"))
        width = max(len(row["name"]) for row in rows)
        for row in rows:
            self._screen.say(f"  {row['name']:<{width}}  {row['summary']}")
        choice = click.Choice([row["name"] for row in rows])
        self._screen.say("which of these to begin with")
        found: str = click.prompt(
            " ",
            default=DEFAULT_TEMPLATE,
            type=choice,
            show_choices=False,
            prompt_suffix=": ",
            err=True,
        )
        return found

    def _answer(self, question: Question) -> str | None:
        """What an option says, as one would answer."""
        value = self._given[question.key.replace("-", "_")]
        if value is None or value == ():
            return None
        if isinstance(value, str):
            return value
        return _joined(question.key, value)

    def _ask(self, question: Question, policy: Plain) -> None:
        self._screen.say(question.text)
        while True:
            default = question.read(policy)
            answer: str = click.prompt(" ", default=default, prompt_suffix=": ", err=True)
            try:
                question.write(policy, answer)
            except Invalid as refused:
                self._screen.say(refused.message)
                self._screen.say(f"  hint: {refused.hint}")
            else:
                return


def _joined(key: str, values: Sequence[str]) -> str:
    """Options that may be repeated, as one answer."""
    import shlex

    if key in ("path", "exclude"):
        return shlex.join(values)
    return (";" if key == "window" else " ").join(values)


def _show(screen: Screen, policy: Plain, *, as_data: bool) -> None:
    """Show the policy as a file: as data if that is what was asked for, else as talk."""
    from holdfast.control.policies import Format, from_plain, render

    read, _ = from_plain(policy)
    text = render([read], Format.TOML) if read is not None else ""
    if screen.as_json:
        if as_data:
            screen.json(policy)
    elif as_data:
        screen.line(text.removesuffix("\n"))
    else:
        screen.say(f"\n{text}")
