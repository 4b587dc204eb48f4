"""What the API says of policies.

Must not judge them. A policy itself is plain data here, with the keys of a policy's file: the
control floor reads it, and tells everything that is wrong with it at once, where a model of
Pydantic would tell it in other words.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

from fastapi import Path, Query
from pydantic import Field, JsonValue, StrictBool, StrictInt

from holdfast.control import policies
from holdfast.control.policies import Act, Document, Format, Severity, from_data, parse, to_plain
from holdfast.faces.api.models import Model

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdfast.control.access import Principal
    from holdfast.control.policies import Policy, StoredPolicy
    from holdfast.site.policies import Prepared

NAME = "[a-z0-9][a-z0-9._-]{0,62}"

EXAMPLE = {
    "name": "servers",
    "type": "files",
    "clients": ["web1", "web2"],
    "retention": {"daily": 14, "weekly": 8, "monthly": 12},
    "selections": [{"name": "system", "paths": ["/etc", "/srv"], "exclude": ["*.tmp"]}],
    "schedules": [
        {
            "name": "nightly",
            "kind": "differential",
            "every": "20h",
            "windows": ["Mon-Fri 22:00-06:00"],
        }
    ],
}

PlainPolicy = Annotated[
    dict[str, JsonValue],
    Field(
        description="A policy with the keys of a policy's file, such as name, clients, selections, "
        "schedules, retention; see the reference of that file.",
        examples=[EXAMPLE],
    ),
]
NamedPolicy = Annotated[
    str,
    Path(
        alias="name", pattern=r"^[^\x00]+$", description="Name of a policy.", examples=["servers"]
    ),
]
LookedAt = Annotated[
    int | None,
    Query(
        ge=1,
        le=2**31 - 1,
        description="The revision that was looked at; refused if there is a newer one.",
    ),
]


class ScheduleRow(Model):
    """A schedule in a list of policies."""

    name: str = Field(examples=["nightly"])
    kind: str = Field(examples=["differential"])


class PolicyRow(Model):
    """A policy in a list."""

    name: str = Field(examples=["servers"])
    type: str = Field(examples=["files"])
    active: bool = Field(description="It starts backups by itself.")
    priority: int = Field(description="0 to 100, higher goes first.")
    storage_unit: str = Field(examples=["default"])
    clients: list[str] = Field(description="Named clients, of those that you see.")
    client_query: str | None = Field(description="A query for clients.", examples=["web*"])
    machine_query: str | None = Field(
        description="A query for virtual machines.", examples=["tag=prod"]
    )
    selections: list[str] = Field(description="Names.", examples=[["system"]])
    schedules: list[ScheduleRow]
    revision: int = Field(description="Counts the changes, from 1.")
    changed_at: datetime
    changed_by: str = Field(examples=["alice"])
    unreadable: str | None = Field(
        description="Why it can't be read by this Holdfast, and starts nothing; give it anew."
    )

    @classmethod
    def of(cls, stored: StoredPolicy, who: Principal) -> PolicyRow:
        """As the book has it."""
        policy = stored.policy
        return cls(
            name=policy.name,
            type=policy.type,
            active=policy.active,
            priority=policy.priority,
            storage_unit=policy.storage_unit,
            clients=[one for one in policy.clients if who.sees(one)],
            client_query=policy.client_query,
            machine_query=None if policy.machines is None else policy.machines.query,
            selections=[one.name for one in policy.selections],
            schedules=[ScheduleRow(name=one.name, kind=one.kind) for one in policy.schedules],
            revision=stored.revision,
            changed_at=stored.changed_at,
            changed_by=stored.changed_by,
            unreadable=stored.unreadable,
        )


class PolicyDetail(Model):
    """A policy, whole."""

    name: str = Field(examples=["servers"])
    policy: PlainPolicy
    clients: list[str] = Field(description="Whom it is for now, of those that you see.")
    revision: int = Field(description="Counts the changes, from 1.")
    changed_at: datetime
    changed_by: str = Field(examples=["alice"])

    @classmethod
    def of(cls, stored: StoredPolicy, clients: Iterable[str], who: Principal) -> PolicyDetail:
        """As the book has it, with the clients that it is for."""
        return cls(
            name=stored.policy.name,
            policy=_shown(stored.policy, who),
            clients=[one for one in clients if who.sees(one)],
            revision=stored.revision,
            changed_at=stored.changed_at,
            changed_by=stored.changed_by,
        )


def _shown(policy: Policy, who: Principal) -> dict[str, JsonValue]:
    """A policy, without names of clients that are none of somebody's business."""
    plain = to_plain(policy, whole=True)
    return plain | {"clients": [one for one in policy.clients if who.sees(one)]}


class RevisionRow(Model):
    """One change of a policy."""

    number: int = Field(description="From 1; it goes on when a name is given again.")
    act: Act
    at: datetime
    who: str = Field(examples=["alice"])
    policy: PlainPolicy | None = Field(
        description="What it said from then on, or last; null if it can't be read any more."
    )

    @classmethod
    def of(cls, one: policies.Revision, who: Principal) -> RevisionRow:
        """As the book has it."""
        plain = None if one.policy is None else _shown(one.policy, who)
        return cls(number=one.number, act=one.act, at=one.at, who=one.who, policy=plain)


class FindingRow(Model):
    """Something that is wrong with a policy."""

    severity: Severity = Field(description="Only errors are refused.")
    policy: str | None = Field(description="Its name; `#2` for one that has none.")
    place: str = Field(description="Where in it.", examples=["schedules[1].windows[0]"])
    message: str = Field(examples=["there is no storage unit 'defualt'"])
    hint: str | None = Field(examples=["did you mean 'default'?"])

    @classmethod
    def of(cls, one: policies.Finding) -> FindingRow:
        """As it was found."""
        return cls(
            severity=one.severity,
            policy=one.policy,
            place=one.place,
            message=one.message,
            hint=one.hint,
        )


class DocumentIn(Model):
    """Policies that are to be looked at, or carried out."""

    live: StrictBool = Field(
        default=True, description="Look at clients and storage as well, which takes its time."
    )
    prune: StrictBool = Field(
        default=False, description="Remove policies that are not among these."
    )
    revisions: dict[str, StrictInt] | None = Field(
        default=None,
        description="For `apply`: those of the plan that was looked at; refused if a policy of it "
        "has changed since.",
        examples=[{"servers": 3, "new": 0}],
    )


class TextIn(DocumentIn):
    """A file of policies."""

    text: str = Field(description="What is in it.", examples=['[[policy]]\nname = "servers"\n…'])
    format: Format = Field(default=Format.TOML, description="How it is written.")


class DataIn(DocumentIn):
    """Policies as data."""

    policies: list[PlainPolicy]


def document_of(body: TextIn | DataIn) -> Document:
    """What a request says."""
    if isinstance(body, TextIn):
        return parse(body.text, body.format)
    return from_data({"policy": body.policies})


class PlannedFieldChange(Model):
    """One field that changes."""

    place: str = Field(examples=["schedules[nightly].windows"])
    old: JsonValue = Field(description="Null if it was not there.", examples=[7])
    new: JsonValue = Field(description="Null if it will not be there.", examples=[14])


class PlannedChange(Model):
    """A policy that becomes another."""

    name: str = Field(examples=["servers"])
    revision: int = Field(description="The one that is there now.")
    changed_at: datetime
    changed_by: str = Field(examples=["alice"])
    fields: list[PlannedFieldChange]

    @classmethod
    def of(cls, change: policies.Change) -> PlannedChange:
        """As it was planned."""
        old = change.old
        return cls(
            name=change.new.name,
            revision=old.revision,
            changed_at=old.changed_at,
            changed_by=old.changed_by,
            fields=[
                PlannedFieldChange.model_validate(
                    {"place": one.place, "old": one.old, "new": one.new}
                )
                for one in change.fields
            ],
        )


class PlannedRemoval(Model):
    """A policy that goes; its images stay, and go by the rules that it had."""

    name: str = Field(examples=["servers"])
    revision: int = Field(description="The one that is there now.")


class PlanOut(Model):
    """What a document would do."""

    valid: bool = Field(description="It may be carried out.")
    findings: list[FindingRow] = Field(description="All that is wrong, and what is good to know.")
    creates: list[PlainPolicy] = Field(description="Policies that are new.")
    changes: list[PlannedChange]
    removals: list[PlannedRemoval]
    unchanged: list[str] = Field(description="Policies that are as they should be.")
    others: list[str] = Field(
        description="Policies that the document does not name, and stay, of those that you see."
    )
    revisions: dict[str, int] = Field(
        description="Give it back with `apply`, so that what is done is what was planned.",
        examples=[{"servers": 3, "new": 0}],
    )

    @classmethod
    def of(cls, prepared: Prepared, who: Principal) -> PlanOut:
        """As it was prepared."""
        plan = prepared.plan or policies.Plan()
        revisions = dict.fromkeys((one.name for one in plan.creates), 0)
        revisions |= {one.new.name: one.old.revision for one in plan.changes}
        revisions |= {one.policy.name: one.revision for one in plan.removals}
        return cls(
            valid=prepared.is_valid,
            findings=[FindingRow.of(one) for one in prepared.findings],
            creates=[to_plain(one) for one in plan.creates],
            changes=[PlannedChange.of(one) for one in plan.changes],
            removals=[
                PlannedRemoval(name=one.policy.name, revision=one.revision) for one in plan.removals
            ],
            unchanged=list(plan.unchanged),
            others=list(plan.others) if who.sees_all_clients else [],
            revisions={str(name): revision for name, revision in revisions.items()},
        )


class AppliedOut(Model):
    """What was done."""

    created: list[str]
    changed: list[str]
    removed: list[str]
    findings: list[FindingRow] = Field(description="What is not as it should be, and taken.")


class FindingsOut(Model):
    """What is wrong with a document."""

    valid: bool = Field(description="It would be taken.")
    findings: list[FindingRow]


class TemplateRow(Model):
    """A policy to begin with."""

    name: str = Field(examples=["server"])
    summary: str = Field(examples=["A whole server: every local drive, by night."])


class TemplateOut(TemplateRow):
    """The same, with its text."""

    text: str = Field(
        description="A document of one policy in TOML, with comments.",
        examples=['[[policy]]\nname = "servers"\n…'],
    )
