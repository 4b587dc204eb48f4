"""What a guided dialogue asks of a policy, and how an answer is written into it.

Must not ask nor print. A policy is plain data here. Invariants: what a question shows as its
default is read back as the same; an answer to one question changes nothing of another.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.base.errors import Invalid
from holdfast.base.ids import client_name, policy_name
from holdfast.control.hypervisors import parse
from holdfast.control.policies import (
    ALL_LOCAL_DRIVES,
    MACHINES,
    read_span,
    read_window,
    write_span,
    write_window,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    Plain = dict[str, Any]

NOTHING = "-"
"""The answer that empties what may be empty."""

KEPT = ("last", "within", "hourly", "daily", "weekly", "monthly", "yearly")

_WILD = re.compile(r"[*?\[]")
_KEEP_HINT = "write for example 'daily 14, weekly 8, monthly 12' or 'within 30d'"


@dataclass(frozen=True, slots=True)
class Question:
    """One thing that is asked.

    Attributes:
        key: The option that answers it beforehand, without its dashes.
        text: What is asked.
        places: Where findings are that another answer may put right, or inside of them.
        exactly: The same, but not inside of them.
        read: What the policy says so far, as one would answer.
        write: Write an answer into the policy; raises `Invalid`.
        wanted: Whether it is asked of this policy at all.
    """

    key: str
    text: str
    places: tuple[str, ...]
    read: Callable[[Plain], str]
    write: Callable[[Plain, str], None]
    wanted: Callable[[Plain], bool] = lambda _: True
    exactly: tuple[str, ...] = ()

    def is_about(self, place: str) -> bool:
        """Whether a finding's place is one of ours."""
        return place in self.exactly or any(
            place == one or place.startswith((f"{one}.", f"{one}[")) for one in self.places
        )


def write_clients(policy: Plain, answer: str) -> None:
    """``web1 web2`` names clients; with a ``*``, ``?`` or ``[`` it is a query.

    Raises:
        Invalid: A name can't be one.
    """
    words = answer.replace(",", " ").split()
    for word in words:
        client_name(word)
    policy.pop("clients", None)
    policy.pop("client_query", None)
    if any(_WILD.search(word) or word.startswith("!") for word in words):
        policy["client_query"] = ",".join(words)
    else:
        policy["clients"] = words


def read_clients(policy: Plain) -> str:
    """The same, as it is."""
    return str(policy.get("client_query") or " ".join(policy.get("clients", ())))


def write_paths(policy: Plain, answer: str) -> None:
    """Paths with blanks between, quoted as in a shell; or ``ALL_LOCAL_DRIVES``."""
    words = split(answer)
    selection = policy["selections"][0]
    if words == [ALL_LOCAL_DRIVES.value]:
        selection["paths"] = ALL_LOCAL_DRIVES.value
        return
    if selection["paths"] == ALL_LOCAL_DRIVES.value:
        # Rules for the root of a machine would mean something else below other paths.
        selection["name"] = "paths"
        selection["exclude"] = [one for one in selection.get("exclude", ()) if one[:1] != "/"]
    selection["paths"] = words


def read_paths(policy: Plain) -> str:
    """The same, as it is."""
    paths = policy["selections"][0]["paths"]
    return paths if isinstance(paths, str) else shlex.join(paths)


def write_exclude(policy: Plain, answer: str) -> None:
    """Rules with blanks between, quoted as in a shell."""
    policy["selections"][0]["exclude"] = [] if answer == NOTHING else split(answer)


def read_exclude(policy: Plain) -> str:
    """The same, as it is."""
    return shlex.join(policy["selections"][0].get("exclude", ())) or NOTHING


def write_every(policy: Plain, answer: str) -> None:
    """A duration.

    Raises:
        Invalid: It is none.
    """
    policy["schedules"][0]["every"] = write_span(read_span(answer))


def write_windows(policy: Plain, answer: str) -> None:
    """Windows with semicolons between.

    Raises:
        Invalid: One is none.
    """
    parts = [] if answer.strip() == NOTHING else answer.split(";")
    policy["schedules"][0]["windows"] = [write_window(read_window(part)) for part in parts]


def read_windows(policy: Plain) -> str:
    """The same, as it is."""
    return "; ".join(policy["schedules"][0].get("windows", ())) or NOTHING


def write_keep(policy: Plain, answer: str) -> None:
    """``daily 14, weekly 8``.

    Raises:
        Invalid: It is not that.
    """
    found: Plain = {}
    for part in answer.replace("=", " ").split(","):
        words = part.split()
        if len(words) != 2 or words[0] not in KEPT or words[0] in found:
            raise Invalid(f"'{part.strip()}' does not say what to keep", _KEEP_HINT)
        rule, value = words
        if rule != "within" and not value.isdecimal():
            raise Invalid(f"'{value}' is not a number of images", _KEEP_HINT)
        found[rule] = value if rule == "within" else int(value)
    policy["retention"] = found


def read_keep(policy: Plain) -> str:
    """The same, as it is."""
    return ", ".join(f"{rule} {value}" for rule, value in policy.get("retention", {}).items())


def write_command(key: str) -> Callable[[Plain, str], None]:
    """A program and its arguments, quoted as in a shell."""

    def write(policy: Plain, answer: str) -> None:
        policy[key] = [] if answer == NOTHING else split(answer)

    return write


def read_command(key: str) -> Callable[[Plain], str]:
    """The same, as it is."""
    return lambda policy: shlex.join(policy.get(key, ())) or NOTHING


def split(answer: str) -> list[str]:
    """Take words apart as a shell would.

    Raises:
        Invalid: A quotation mark has no second.
    """
    try:
        return shlex.split(answer)
    except ValueError as error:
        raise Invalid(f"'{answer}' can't be taken apart: {error}", "quote as in a shell") from error


def write_machines(policy: Plain, answer: str) -> None:
    """A query for virtual machines.

    Raises:
        Invalid: It is none.
    """
    parse(answer)
    policy["machines"] = {**policy.get("machines", {}), "query": answer.strip()}


def _is_for_machines(policy: Plain) -> bool:
    return policy.get("type") == MACHINES


def _is_for_clients(policy: Plain) -> bool:
    return not _is_for_machines(policy)


def _write_name(policy: Plain, answer: str) -> None:
    policy["name"] = policy_name(answer.strip())


def _has_command(policy: Plain) -> bool:
    return "pre_command" in policy


QUESTIONS = (
    Question("name", "name of the policy", ("name",), lambda one: str(one["name"]), _write_name),
    Question(
        "client",
        "clients: names, or globs such as web*",
        ("clients", "client_query"),
        read_clients,
        write_clients,
        _is_for_clients,
    ),
    Question(
        "machines",
        "which virtual machines: a query such as tag=prod, or * for all",
        ("machines",),
        lambda one: str(one["machines"]["query"]),
        write_machines,
        _is_for_machines,
    ),
    Question(
        "path",
        f"paths to back up, or {ALL_LOCAL_DRIVES.value}",
        ("selections[0].paths",),
        read_paths,
        write_paths,
        _is_for_clients,
        exactly=("selections[0]",),
    ),
    Question(
        "exclude",
        f"rules that leave out, as in a .gitignore; {NOTHING} for none",
        ("selections[0].exclude",),
        read_exclude,
        write_exclude,
        _is_for_clients,
    ),
    Question(
        "pre-command",
        f"command before each backup; {NOTHING} for none",
        ("pre_command",),
        read_command("pre_command"),
        write_command("pre_command"),
        _has_command,
    ),
    Question(
        "post-command",
        f"command after it; {NOTHING} for none",
        ("post_command",),
        read_command("post_command"),
        write_command("post_command"),
        _has_command,
    ),
    Question(
        "every",
        "how often, such as 20h or 15m",
        ("schedules[0].every",),
        lambda one: str(one["schedules"][0].get("every", "")),
        write_every,
        lambda one: "every" in one["schedules"][0],
        exactly=("schedules[0]",),
    ),
    Question(
        "window",
        f"when it may start, such as 'Mon-Fri 22:00-06:00'; {NOTHING} for any time",
        ("schedules[0].windows",),
        read_windows,
        write_windows,
        exactly=("schedules[0]",),
    ),
    Question(
        "keep",
        "what is kept, such as 'daily 14, weekly 8'",
        ("retention",),
        read_keep,
        write_keep,
    ),
)
"""In the order in which they are asked."""
