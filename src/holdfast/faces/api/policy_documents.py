"""Policies as code: documents that are validated, planned, applied, exported; templates."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query
from fastapi.responses import PlainTextResponse
from pydantic import Field

from holdfast.base.errors import PolicyMissing
from holdfast.base.ids import PolicyName, client_name, policy_name
from holdfast.control import policies
from holdfast.control.access import Principal, Verb
from holdfast.control.policies import Format, render
from holdfast.faces.api import document
from holdfast.faces.api.door import TheMaster, TheNote, make_router, may
from holdfast.faces.api.models import Page
from holdfast.faces.api.policy_models import (
    NAME,
    AppliedOut,
    DataIn,
    FindingRow,
    FindingsOut,
    PlanOut,
    TemplateOut,
    TemplateRow,
    TextIn,
    document_of,
)
from holdfast.site import policies as site_policies

router = make_router("Policies as code")

Viewer = Annotated[Principal, may(Verb.SEE)]
Planner = Annotated[Principal, may(Verb.EDIT_POLICIES, act=False)]
Editor = Annotated[Principal, may(Verb.EDIT_POLICIES)]

Client = Annotated[str, Field(pattern="^[!-+.-9;-~-]+$")]

_MOST_NOTED = 100
_TEXT = r"^[^\x00]+$"


@router.get(
    "/policy-document",
    response_class=PlainTextResponse,
    responses={
        200: {
            "description": "The file.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
        404: document.response(404),
    },
)
def export_policies(
    who: Viewer,
    master: TheMaster,
    format: Annotated[Format, Query(description="How it is written.")] = Format.TOML,  # noqa: A002
    name: Annotated[
        list[str] | None, Query(description="Only these.", examples=[["servers"]])
    ] = None,
) -> PlainTextResponse:
    """Policies as a file that `apply` takes: all those of whose clients you see each."""
    stored = master.policies.snapshot().policies
    own = {
        found: one.policy
        for found, one in stored.items()
        if who.sees_all_clients
        or (one.policy.client_query is None and all(who.sees(c) for c in one.policy.clients))
    }
    wanted = list(own) if name is None else [PolicyName(one) for one in name]
    for one in wanted:
        if one not in own:
            raise PolicyMissing(f"there is no policy '{one}'")
    text = render((own[one] for one in wanted), format)
    return PlainTextResponse(text)


@router.post("/policy-document/validate")
def validate_policies(who: Planner, master: TheMaster, body: TextIn | DataIn) -> FindingsOut:
    """Say all that is wrong with a document, and change nothing."""
    prepared = site_policies.prepare(master, document_of(body), who, live=body.live, again=True)
    findings = [FindingRow.of(one) for one in prepared.findings]
    return FindingsOut(valid=prepared.is_valid, findings=findings)


@router.post("/policy-document/plan")
def plan_policies(who: Planner, master: TheMaster, body: TextIn | DataIn) -> PlanOut:
    """Say what a document would change, and change nothing."""
    prepared = site_policies.prepare(
        master, document_of(body), who, prune=body.prune, live=body.live
    )
    return PlanOut.of(prepared, who)


@router.post("/policy-document/apply")
def apply_policies(
    who: Editor, master: TheMaster, body: TextIn | DataIn, note: TheNote
) -> AppliedOut:
    """Make, change and, with `prune`, remove policies, so that they are as a document says.

    All of it is done, or nothing. What is wrong is refused, all of it at once.
    """
    prepared = site_policies.prepare(
        master, document_of(body), who, prune=body.prune, live=body.live
    )
    done = site_policies.apply(master, prepared, who, body.revisions)
    note.details |= {
        "created": _noted(done.created),
        "changed": _noted(done.changed),
        "removed": _noted(done.removed),
    }
    return AppliedOut(
        created=list(done.created),
        changed=list(done.changed),
        removed=list(done.removed),
        findings=[FindingRow.of(one) for one in prepared.findings],
    )


def _noted(names: tuple[PolicyName, ...]) -> object:
    """What the audit log has of policies: their names, or how many they are."""
    return list(names) if len(names) <= _MOST_NOTED else len(names)


@router.get("/policy-templates")
def list_templates(_: Viewer) -> Page[TemplateRow]:
    """Policies to begin with."""
    rows = [TemplateRow(name=one.name, summary=one.summary) for one in policies.templates()]
    return Page(items=rows, next_cursor=None)


@router.get("/policy-templates/{name}")
def read_template(
    _: Viewer,
    name: Annotated[str, Path(pattern=_TEXT, description="Of a template.", examples=["server"])],
    policy: Annotated[
        str | None, Query(pattern=f"^{NAME}$", description="What the policy is to be called.")
    ] = None,
    client: Annotated[
        list[Client] | None, Query(description="Whom it is to be for.", examples=[["web1"]])
    ] = None,
    client_query: Annotated[
        str | None, Query(pattern=_TEXT, description="The same as a query.", examples=["web*"])
    ] = None,
) -> TemplateOut:
    """A template, filled in."""
    found = policies.template(name)
    text = found.filled(
        name=None if policy is None else policy_name(policy),
        clients=[client_name(one) for one in client or ()],
        client_query=client_query,
    )
    return TemplateOut(name=found.name, summary=found.summary, text=text)
