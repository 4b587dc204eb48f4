"""Policies as a file that people read, write and keep under version control.

Must not judge what was read (see `validation`) nor open files. Invariants: what is rendered is
parsed as the same policies, in TOML and in YAML; everything that can't be read is told at once.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.base.errors import UsageError
from holdfast.control.policies.findings import Finding, error, errors_of
from holdfast.control.policies.plain import from_plain, to_plain
from holdfast.control.policies.reading import table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdfast.control.policies.policy import Policy

KEY = "policy"
"""The one key of a document: the list of policies."""

LONGEST = 16 << 20
"""Characters; ten thousand policies are a fifth of this."""


class Format(enum.StrEnum):
    """How a document is written."""

    TOML = "toml"
    YAML = "yaml"

    @classmethod
    def of(cls, file_name: str) -> Format:
        """The format that the end of a file's name tells.

        Raises:
            UsageError: It tells none.
        """
        ending = file_name.rpartition(".")[2].lower()
        found = _ENDINGS.get(ending)
        if found is None:
            raise UsageError(
                f"'{file_name}' does not end in .toml, .yaml or .yml",
                "say which it is with --format",
            )
        return found


_ENDINGS = {"toml": Format.TOML, "yaml": Format.YAML, "yml": Format.YAML}


@dataclass(frozen=True, slots=True)
class Document:
    """What was read of a document.

    Attributes:
        policies: With a default for each part that could not be read, and ``#3`` for a name.
        findings: What could not be read. With errors among them, the policies are good for
            looking for more of them, and for nothing else.
    """

    policies: tuple[Policy, ...]
    findings: tuple[Finding, ...]

    @property
    def is_whole(self) -> bool:
        """Whether all of it could be read."""
        return not errors_of(self.findings)


def render(policies: Iterable[Policy], form: Format) -> str:
    """Write policies as a document; what is as it is by default is left out."""
    plain = [to_plain(one) for one in policies]
    # The libraries are loaded where a file is written or read, and nowhere else.
    if form is Format.TOML:
        from holdfast.control.policies.toml_text import write_toml

        return write_toml(plain)
    from holdfast.control.policies.yaml_text import write_yaml

    return write_yaml({KEY: plain})


def parse(text: str, form: Format) -> Document:
    """Read a document."""
    if len(text) > LONGEST:
        message = f"it has {len(text):,} characters; {LONGEST:,} is the most"
        return Document((), (error("", message, "write several files"),))
    value, findings = _read(text, form)
    if value is None and findings:
        return Document((), tuple(findings))
    document = from_data(value)
    return Document(document.policies, (*findings, *document.findings))


def _read(text: str, form: Format) -> tuple[object, list[Finding]]:
    if form is Format.TOML:
        from holdfast.control.policies.toml_text import read_toml

        return read_toml(text)
    from holdfast.control.policies.yaml_text import read_yaml

    return read_yaml(text)


def from_data(value: object) -> Document:
    """Read a document that is plain data already, as the API has it."""
    findings: list[Finding] = []
    read = table(value if value is not None else {}, "", findings)
    if read is None:
        return Document((), tuple(findings))
    found: list[Policy] = []
    for number, (_, one) in enumerate(read.items(KEY, f"[[{KEY}]] above each"), start=1):
        policy, wrong = from_plain(one, number)
        findings.extend(wrong)
        if policy is not None:
            found.append(policy)
    read.end()
    return Document(tuple(found), tuple(findings))
