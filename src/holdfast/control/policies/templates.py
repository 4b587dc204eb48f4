"""Policies to begin with, each a file with comments that says what may be changed.

Must not be a policy by itself: a template has to be given a client. Invariant: with a client that
is known, nothing is wrong with any of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
from typing import TYPE_CHECKING, Any

from holdfast.base.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.base.ids import ClientName, PolicyName

_PLACE = resources.files("holdfast.control.policies") / "template_files"


@dataclass(frozen=True, slots=True)
class Template:
    """One of them.

    Attributes:
        name: What it is called, and the policy that is made of it unless that gets a name.
        summary: What it is for, one sentence.
        text: A document of one policy, in TOML, with comments.
    """

    name: str
    summary: str
    text: str

    def filled(
        self,
        *,
        name: PolicyName | None = None,
        clients: Sequence[ClientName] = (),
        client_query: str | None = None,
    ) -> str:
        """The text for some clients; its comments stay.

        Args:
            name: Of the policy.
            clients: Whom it is for, unless it is for virtual machines, or
            client_query: a query for them.
        """
        import tomlkit

        document = tomlkit.parse(self.text)
        policies: Any = document["policy"]
        if name is not None:
            policies[0]["name"] = name
        if "machines" in policies[0]:
            # It is for virtual machines, by a query of its own.
            return tomlkit.dumps(document)
        if client_query is not None:
            del policies[0]["clients"]
            policies[0]["client_query"] = client_query
        elif clients:
            policies[0]["clients"] = list(clients)
        return tomlkit.dumps(document)


def templates() -> list[Template]:
    """All templates, by name."""
    found = [_read(file.name, file.read_text(encoding="utf-8")) for file in _PLACE.iterdir()]
    return sorted(found, key=lambda one: one.name)


def template(name: str) -> Template:
    """One template.

    Raises:
        NotFound: There is none of this name.
    """
    known = {one.name: one for one in templates()}
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there is {', '.join(known)}"
        raise NotFound(f"there is no template '{name}'", hint)
    return known[name]


def _read(file_name: str, text: str) -> Template:
    summary = text.partition("\n")[0].removeprefix("# ")
    return Template(file_name.removesuffix(".toml"), summary, text)
