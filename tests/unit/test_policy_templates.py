"""Policies to begin with."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from holdfast.base.errors import NotFound
from holdfast.base.ids import ClientName, PolicyName
from holdfast.control.policies import (
    MACHINES,
    Format,
    KnownClients,
    SiteFacts,
    parse,
    review,
    template,
    templates,
)
from holdfast.control.schedule import BackupKind
from tests.kit.virtual_machines import estate, machine

SITE = SiteFacts(
    KnownClients([ClientName("web1")]),
    frozenset({"default"}),
    datetime(2026, 11, 21, tzinfo=UTC),
    UTC,
)
NAMES = ["continuous-documents", "database-dump", "server", "workstation"]
FOR_MACHINES = "machines"


def test_there_are_templates_for_what_most_sites_have() -> None:
    assert [one.name for one in templates()] == sorted([*NAMES, FOR_MACHINES])
    assert all(len(one.summary) < 90 and one.summary.endswith(".") for one in templates())


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_wrong_with_a_template_that_was_given_a_client(name: str) -> None:
    text = template(name).filled(name=PolicyName("mine"), clients=[ClientName("web1")])
    document = parse(text, Format.TOML)
    assert review(document, SITE) == []
    (policy,) = document.policies
    assert (policy.name, policy.clients) == ("mine", ("web1",))
    assert text.count("#") == template(name).text.count("#")


@pytest.mark.parametrize("name", NAMES)
def test_a_template_can_be_for_a_query(name: str) -> None:
    text = template(name).filled(client_query="web*")
    (policy,) = parse(text, Format.TOML).policies
    assert (policy.name, policy.clients, policy.client_query) == (name, (), "web*")


def test_nothing_is_wrong_with_the_template_for_virtual_machines() -> None:
    given = [ClientName("web1")]
    text = template(FOR_MACHINES).filled(name=PolicyName("mine"), clients=given)
    site = replace(SITE, estate=estate(machine("web1")))
    document = parse(text, Format.TOML)
    assert review(document, site) == []
    (policy,) = document.policies
    assert (policy.name, policy.type, policy.clients) == ("mine", MACHINES, ())
    (told,) = review(document, SITE)
    assert (told.place, told.hint) == ("machines", "make one known: holdfast hypervisor add")


def test_templates_are_what_their_names_say() -> None:
    found = {}
    for one in templates():
        (found[one.name],) = parse(one.text, Format.TOML).policies
    assert found["database-dump"].pre_command
    assert found["continuous-documents"].schedules[0].kind is BackupKind.CONTINUOUS


def test_a_template_that_is_not_there_is_told_with_what_was_meant() -> None:
    with pytest.raises(NotFound) as refused:
        template("worksation")
    assert refused.value.hint == "did you mean 'workstation'?"
    with pytest.raises(NotFound) as refused:
        template("zzz")
    assert "server" in (refused.value.hint or "")
