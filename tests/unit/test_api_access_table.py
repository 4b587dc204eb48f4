"""Every route, and who may use it: everybody not named is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from holdfast.base import errors
from holdfast.control.access import PERMISSIONS, Outcome, Role, Scope, Verb
from holdfast.faces.api.app import make_app
from holdfast.faces.api.statuses import status_of
from holdfast.faces.cli import audit, user
from tests.kit.api import Api

if TYPE_CHECKING:
    from collections.abc import Mapping

ADM, OPE, RES, AUD = Role.ADMINISTRATOR, Role.OPERATOR, Role.RESTORE_OPERATOR, Role.AUDITOR
STRANGERS: frozenset[Role | None] = frozenset({ADM, OPE, RES, AUD, None})


class Expected(NamedTuple):
    """Who may use a route.

    Attributes:
        roles: None stands for a stranger.
        bounded: Whether somebody who is bounded to some clients may, with such a role.
    """

    roles: frozenset[Role | None] | set[Role]
    bounded: bool = True


KNOWN = frozenset({ADM, OPE, RES, AUD})

TABLE: Mapping[str, Expected] = {
    "GET /api/v1/jobs": Expected(KNOWN),
    "GET /api/v1/jobs/{id}": Expected(KNOWN),
    "POST /api/v1/jobs/{id}/cancel": Expected({ADM, OPE}),
    "POST /api/v1/jobs/{id}/suspend": Expected({ADM, OPE}),
    "POST /api/v1/jobs/{id}/resume": Expected({ADM, OPE}),
    "POST /api/v1/jobs/{id}/restart": Expected({ADM, OPE}),
    "GET /api/v1/jobs/{id}/progress": Expected(KNOWN),
    "GET /api/v1/jobs/{id}/events": Expected(KNOWN),
    "GET /api/v1/jobs/{id}/events/export": Expected(KNOWN),
    "GET /api/v1/activity": Expected(KNOWN),
    "GET /api/v1/activity/export": Expected(KNOWN),
    "GET /api/v1/activity/numbers": Expected(KNOWN),
    "POST /api/v1/sessions": Expected(STRANGERS),
    "POST /api/v1/sessions/provider": Expected(STRANGERS),
    "POST /api/v1/sessions/provider/code": Expected(STRANGERS),
    "POST /api/v1/sessions/provider/device": Expected(STRANGERS),
    "POST /api/v1/sessions/provider/device/session": Expected(STRANGERS),
    "GET /api/v1/me": Expected(KNOWN),
    "PUT /api/v1/me/password": Expected(KNOWN),
    "DELETE /api/v1/me/session": Expected(KNOWN),
    "GET /api/v1/policies": Expected(KNOWN),
    "GET /api/v1/policies/{name}": Expected(KNOWN),
    "GET /api/v1/policies/{name}/revisions": Expected(KNOWN),
    "POST /api/v1/policies/{name}/activate": Expected({ADM}),
    "POST /api/v1/policies/{name}/deactivate": Expected({ADM}),
    "DELETE /api/v1/policies/{name}": Expected({ADM}),
    "GET /api/v1/policy-document": Expected(KNOWN),
    "POST /api/v1/policy-document/validate": Expected({ADM}),
    "POST /api/v1/policy-document/plan": Expected({ADM}),
    "POST /api/v1/policy-document/apply": Expected({ADM}),
    "GET /api/v1/policy-templates": Expected(KNOWN),
    "GET /api/v1/policy-templates/{name}": Expected(KNOWN),
    "GET /api/v1/settings": Expected(KNOWN),
    "GET /api/v1/schedule": Expected(KNOWN),
    "GET /api/v1/policies/{name}/forecast": Expected(KNOWN),
    "POST /api/v1/policies/{name}/runs": Expected({ADM, OPE}),
    "GET /api/v1/machines": Expected(KNOWN),
    "GET /api/v1/machines/{name}": Expected(KNOWN),
    "POST /api/v1/machines/{name}/revoke": Expected({ADM}, bounded=False),
    "GET /api/v1/bandwidth-rules": Expected(KNOWN),
    "PUT /api/v1/bandwidth-rules/{name}": Expected({ADM}, bounded=False),
    "DELETE /api/v1/bandwidth-rules/{name}": Expected({ADM}, bounded=False),
    "GET /api/v1/storage-units": Expected(KNOWN),
    "POST /api/v1/storage-units": Expected({ADM}, bounded=False),
    "POST /api/v1/replications": Expected({ADM}, bounded=False),
    "PATCH /api/v1/storage-units/{name}": Expected({ADM}, bounded=False),
    "DELETE /api/v1/storage-units/{name}": Expected({ADM}, bounded=False),
    "GET /api/v1/images/{id}/boot-checks": Expected(KNOWN),
    "GET /api/v1/images/{id}/boot-checks/{number}/screenshot": Expected({ADM, RES}),
    "GET /api/v1/hypervisors": Expected(KNOWN),
    "GET /api/v1/hypervisors/{name}": Expected(KNOWN),
    "POST /api/v1/hypervisors": Expected({ADM}, bounded=False),
    "PATCH /api/v1/hypervisors/{name}": Expected({ADM}, bounded=False),
    "DELETE /api/v1/hypervisors/{name}": Expected({ADM}, bounded=False),
    "POST /api/v1/hypervisors/{name}/discover": Expected({ADM, OPE}),
    "GET /api/v1/virtual-machines": Expected(KNOWN),
    "GET /api/v1/virtual-machines/{machine}": Expected(KNOWN),
    "POST /api/v1/machine-tokens": Expected({ADM}, bounded=False),
    "GET /api/v1/images": Expected(KNOWN),
    "GET /api/v1/images/{id}": Expected(KNOWN),
    "GET /api/v1/images/{id}/files": Expected({ADM, OPE, RES}),
    "GET /api/v1/images/{id}/content": Expected({ADM, RES}),
    "GET /api/v1/images/{id}/changes": Expected({ADM, OPE, RES}),
    "GET /api/v1/images/{id}/changes/export": Expected({ADM, OPE, RES}),
    "GET /api/v1/find": Expected({ADM, OPE, RES}),
    "GET /api/v1/versions": Expected({ADM, OPE, RES}),
    "GET /api/v1/clients": Expected(KNOWN),
    "POST /api/v1/backups": Expected({ADM, OPE}),
    "GET /api/v1/retention/preview": Expected(KNOWN),
    "POST /api/v1/retention/applications": Expected({ADM}),
    "POST /api/v1/expirations": Expected({ADM}),
    "GET /api/v1/pool/keys": Expected({ADM}, bounded=False),
    "POST /api/v1/pool/checks": Expected({ADM}, bounded=False),
    "POST /api/v1/pool/index": Expected({ADM}, bounded=False),
    "GET /api/v1/catalog": Expected({ADM, OPE, AUD}, bounded=False),
    "POST /api/v1/catalog/updates": Expected({ADM}, bounded=False),
    "POST /api/v1/catalog/rebuilds": Expected({ADM}, bounded=False),
    "GET /api/v1/pool": Expected({ADM, OPE, AUD}, bounded=False),
    "POST /api/v1/pool/collections": Expected({ADM}, bounded=False),
    "POST /api/v1/pool/verifications": Expected({ADM}, bounded=False),
    "POST /api/v1/catalog/protection": Expected({ADM}, bounded=False),
    "GET /api/v1/sources": Expected(KNOWN),
    "POST /api/v1/images/{id}/holds": Expected({ADM, OPE}),
    "DELETE /api/v1/images/{id}/holds": Expected({ADM}),
    "PUT /api/v1/images/{id}/lock": Expected({ADM, OPE}),
    "DELETE /api/v1/images/{id}": Expected({ADM}),
    "POST /api/v1/images/{id}/restores": Expected({ADM, RES}),
    "POST /api/v1/images/{id}/machine-restores": Expected({ADM, RES}),
    "POST /api/v1/images/{id}/instant-recoveries": Expected({ADM, RES}),
    "GET /api/v1/instant-recoveries": Expected(KNOWN),
    "GET /api/v1/instant-recoveries/{id}": Expected(KNOWN),
    "POST /api/v1/instant-recoveries/{id}/migrate": Expected({ADM, RES}),
    "POST /api/v1/instant-recoveries/{id}/resume": Expected({ADM, RES}),
    "POST /api/v1/instant-recoveries/{id}/discard": Expected({ADM, RES}),
    "GET /api/v1/users": Expected({ADM}, bounded=False),
    "POST /api/v1/users": Expected({ADM}, bounded=False),
    "GET /api/v1/users/{name}": Expected({ADM}, bounded=False),
    "PATCH /api/v1/users/{name}": Expected({ADM}, bounded=False),
    "PUT /api/v1/users/{name}/password": Expected({ADM}, bounded=False),
    "PUT /api/v1/users/{name}/identity": Expected({ADM}, bounded=False),
    "DELETE /api/v1/users/{name}": Expected({ADM}, bounded=False),
    "GET /api/v1/tokens": Expected(KNOWN),
    "POST /api/v1/tokens": Expected(KNOWN),
    "GET /api/v1/tokens/{id}": Expected(KNOWN),
    "DELETE /api/v1/tokens/{id}": Expected(KNOWN),
    "GET /api/v1/audit": Expected({ADM, AUD}, bounded=False),
    "GET /api/v1/audit/head": Expected({ADM, AUD}, bounded=False),
    "GET /api/v1/audit/verification": Expected({ADM, AUD}, bounded=False),
    "GET /health": Expected(STRANGERS),
    "GET /ready": Expected(STRANGERS),
    "GET /metrics": Expected({ADM, OPE, AUD}, bounded=False),
}
"""Every route of the API. A new one has to be written down here."""


def routes(api: Api) -> dict[str, tuple[str, str]]:
    document = make_app(api.master).openapi()
    return {
        f"{method.upper()} {path}": (method.upper(), re.sub(r"\{[^}]*\}", "0", path))
        for path, operations in document["paths"].items()
        for method in operations
    }


def test_every_route_is_in_the_table(api: Api) -> None:
    assert set(routes(api)) == set(TABLE)


@pytest.mark.parametrize("role", [*Role, None], ids=lambda role: role or "stranger")
def test_every_route_lets_in_whom_the_table_names(api: Api, role: Role | None) -> None:
    """Whoever is let in gets whatever answer but these: bodies are left out."""
    refusal = 401 if role is None else 403
    for route, (method, path) in routes(api).items():
        # A new login for each: one of the routes ends it.
        http = api.http(api.token(role) if role else None)
        status = http.request(method, path).status_code
        if role in TABLE[route].roles:
            assert status not in {401, 403}, (route, role, status)
        else:
            assert status == refusal, (route, role, status)


@pytest.mark.parametrize("role", Role)
def test_who_is_bounded_to_some_clients_is_refused_what_concerns_all(api: Api, role: Role) -> None:
    for route, (method, path) in routes(api).items():
        http = api.http(api.token(role, Scope(("web*",))))
        expected = TABLE[route]
        refused = http.request(method, path).status_code == 403
        assert refused == (role not in expected.roles or not expected.bounded), (route, role)


def test_every_role_has_its_verbs_and_administrators_have_all() -> None:
    assert set(PERMISSIONS) == set(Role)
    assert PERMISSIONS[Role.ADMINISTRATOR] == set(Verb)


def test_the_page_on_access_has_the_table_as_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "concepts" / "access.md").read_text()
    header = re.search(r"^\| permission \| (.*) \|$", page, re.MULTILINE)
    assert header is not None
    roles = [Role(name) for name in header[1].split(" | ")]
    told = {
        Verb(row[1]): {
            role for role, cell in zip(roles, row[2].split("|"), strict=True) if "yes" in cell
        }
        for row in re.finditer(r"^\| `([\w-]+)`: [^|]* \|(.*)\|$", page, re.MULTILINE)
    }
    assert told == {verb: {role for role in Role if verb in PERMISSIONS[role]} for verb in Verb}


def test_the_page_on_the_api_has_the_statuses_as_they_are() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "api.md").read_text()
    for row in re.finditer(r"^\| (\d{3})(?:, (\d{3}))? \| (.*) \|$", page, re.MULTILINE):
        for code in set(re.findall(r"`([\w-]+)`", row[3])) & set(errors.BY_CODE):
            status = status_of(errors.BY_CODE[code]("it is so"))
            assert str(status) in {row[1], row[2]} or row[1] in {"400", "405"}, code


def test_the_command_line_knows_every_role_and_outcome() -> None:
    assert set(audit.OUTCOMES) == set(Outcome)
    assert set(user.ROLES) == set(Role)


def test_a_token_that_is_nobodys_is_refused_everywhere(api: Api) -> None:
    http = api.http("hf_nobodys")
    for route, (method, path) in routes(api).items():
        public = None in TABLE[route].roles
        assert (http.request(method, path).status_code == 401) != public, route
