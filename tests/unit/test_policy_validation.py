"""What is found wrong with policies that could be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from holdfast.base.errors import InternalError
from holdfast.base.ids import ClientName
from holdfast.control.policies import (
    ALL_LOCAL_DRIVES,
    FilesType,
    Finding,
    Format,
    KnownClients,
    Limits,
    Policy,
    PolicyTypes,
    Selection,
    Severity,
    SiteFacts,
    parse,
    review,
    validate,
)
from holdfast.control.policies.findings import error, touch
from holdfast.control.policies.retained import images_kept, usual_distance
from holdfast.control.retention import Rules
from holdfast.control.schedule import BackupKind, Calendar, Schedule
from tests.kit.policies import NIGHTLY, policy

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SITE = SiteFacts(
    clients=KnownClients(ClientName(name) for name in ("web1", "web2", "db1")),
    storage_units=frozenset({"default", "vault"}),
    now=NOW,
    zone=UTC,
)
WEEKLY = Schedule("weekly", BackupKind.FULL, calendar=Calendar(("FREQ=WEEKLY;BYDAY=SA",)))


def found(*policies: Policy, site: SiteFacts = SITE) -> dict[str, str]:
    """Places and severities; a place that is told of twice fails."""
    findings = validate(policies, site)
    places = [one.where.removeprefix("policy 'servers', ") for one in findings]
    assert len(set(places)) == len(places), [one.text for one in findings]
    return dict(zip(places, (one.severity.value for one in findings), strict=True))


def selected(*paths: str, exclude: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"selections": (Selection("system", paths, exclude),)}


def test_nothing_is_wrong_with_a_plain_policy() -> None:
    assert found(policy()) == {}
    assert found(policy(clients=(), client_query="web*,!web2")) == {}
    assert found(policy(selections=(Selection("all", ALL_LOCAL_DRIVES),))) == {}


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ({"storage_unit": "defualt"}, {"storage_unit": "error"}),
        ({"encryption": "none"}, {"encryption": "error"}),
        ({"encryption": "client"}, {"client_key": "error"}),
        ({"encryption": "client", "client_key": "office"}, {}),
        ({"encryption": "client", "client_key": "office", "names": "sealed"}, {}),
        (
            {"encryption": "client", "client_key": "office", "names": "hidden"},
            {"names": "error"},
        ),
        (
            {"encryption": "client", "client_key": "k", "names": "sealed", "streams": 2,
             "limits": Limits(None, 2)},
            {},
        ),
        (
            {"encryption": "client", "client_key": "k", "streams": 2, "limits": Limits(None, 2)},
            {},
        ),
        ({"client_key": "office"}, {"client_key": "error"}),
        ({"names": "sealed"}, {"names": "error"}),
        ({"type": "tapes"}, {"type": "error"}),
        ({"clients": ()}, {"clients": "error"}),
        ({"clients": (ClientName("web3"),)}, {"clients[0]": "error"}),
        ({"clients": (ClientName("web3"),), "active": False}, {"clients[0]": "warning"}),
        ({"clients": (ClientName("web1"),) * 2}, {"clients[1]": "warning"}),
        ({"client_query": "web*"}, {"client_query": "error"}),
        ({"clients": (), "client_query": "mail*"}, {"client_query": "warning"}),
        ({"clients": (), "client_query": ""}, {"client_query": "error"}),
        ({"clients": (), "client_query": "web*,"}, {"client_query": "error"}),
        ({"clients": (), "client_query": "!web1"}, {"client_query": "error"}),
        ({"selections": ()}, {"selections": "error"}),
        ({"schedules": ()}, {"schedules": "warning"}),
        ({"schedules": (NIGHTLY, NIGHTLY)}, {"schedules[1].name": "error"}),
        (selected(), {"selections[0].paths": "error"}),
        (selected("etc"), {"selections[0].paths[0]": "error"}),
        (selected("/x", "~/x"), {"selections[0].paths[1]": "error"}),
        (selected(""), {"selections[0].paths[0]": "error"}),
        (selected("/srv/../etc"), {"selections[0].paths[0]": "error"}),
        (selected("/etc/ssh", "/etc"), {"selections[0].paths[0]": "warning"}),
        (selected("/etc", "/"), {"selections[0].paths[0]": "warning"}),
        (
            {"selections": (Selection("own", ("/", "/home"), one_file_system=True),)},
            {},
        ),
        (selected("/etc/", "/srv", "/etc"), {"selections[0].paths[0]": "warning"}),
        (selected("/etc", "/etcetera", "/etc..x"), {}),
        (selected("/etc", exclude=("a{b",)), {"selections[0].exclude[0]": "error"}),
        (selected("/etc", exclude=("a\nb",)), {"selections[0].exclude[0]": "error"}),
        (selected("/etc", exclude=("*",)), {"selections[0].exclude[0]": "warning"}),
        (selected("/etc", exclude=("*", "!*.conf")), {}),
        ({"retention": Rules()}, {"retention": "warning"}),
        ({"retention": Rules(within=timedelta())}, {"retention.within": "error"}),
        ({"retention": Rules(within=timedelta(hours=5))}, {"retention.within": "warning"}),
        ({"retention": Rules(within=timedelta(hours=5), last=2)}, {}),
        ({"retention": Rules(within=timedelta(days=1))}, {}),
        (
            {"schedules": (replace(NIGHTLY, retention=Rules(daily=3)),), "retention": Rules()},
            {},
        ),
        (
            {"schedules": (NIGHTLY, replace(WEEKLY, retention=Rules(within=timedelta(days=2))))},
            {"schedules[1].retention.within": "warning"},
        ),
        ({"limits": Limits(2, 3)}, {"limits.streams_per_client": "warning"}),
        ({"limits": Limits(None, 3)}, {}),
        ({"pre_command": ("/bin/dump", "-a")}, {}),
        ({"pre_command": ("dump",)}, {"pre_command[0]": "warning"}),
        ({"post_command": ("/bin/dump --all",)}, {}),
        ({"post_command": ("dump --all",)}, {"post_command[0]": "warning"}),
        ({"pre_command": ("/bin/dump", ">", "/x")}, {"pre_command[1]": "warning"}),
        (
            {"schedules": (replace(WEEKLY, calendar=Calendar(dates=(date(2026, 1, 1),))),)},
            {"schedules[0].calendar": "warning"},
        ),
        (
            {"schedules": (replace(WEEKLY, calendar=Calendar(("FREQ=DAILY;UNTIL=20261101",))),)},
            {"schedules[0].calendar": "warning"},
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found_where_it_is(
    others: dict[str, Any], expected: dict[str, str]
) -> None:
    assert found(policy(**others)) == expected


def test_a_near_name_is_suggested() -> None:
    wrong = policy(storage_unit="valt", clients=(ClientName("wbe1"),), encryption="pol")
    hints = {one.place: one.hint for one in validate([wrong], SITE)}
    assert hints == {
        "storage_unit": "did you mean 'vault'?",
        "clients[0]": "did you mean 'web1'?",
        "encryption": "did you mean 'pool'?",
    }


def test_only_clients_with_a_machine_of_their_own_can_seal() -> None:
    site = replace(SITE, agents=frozenset({ClientName("web1")}))
    sealing = {"encryption": "client", "client_key": "office"}
    assert found(policy(clients=(ClientName("web1"),), **sealing), site=site) == {}
    both = policy(clients=(ClientName("web1"), ClientName("web2")), **sealing)
    assert found(both, site=site) == {"clients[1]": "error"}
    assert found(policy(clients=(ClientName("web2"),)), site=site) == {}


def test_reserved_and_repeated_names_are_refused() -> None:
    assert found(policy("adhoc")) == {"policy 'adhoc', name": "error"}
    assert found(policy(), policy()) == {"name": "error"}


def two(inner: str, *, exclude: tuple[str, ...] = ()) -> dict[str, str]:
    """A selection of ``/srv``, and one of another path."""
    return found(
        policy(selections=(Selection("srv", ("/srv",), exclude), Selection("other", (inner,))))
    )


def test_selections_that_take_the_same_are_told() -> None:
    assert two("/srv") == {"selections[1].paths": "error"}
    assert two("/srv/") == {"selections[1].paths": "error"}
    assert two("/srv/db") == {"selections[1].paths": "warning"}
    assert two("/srv2") == {}
    assert two("/srv/db", exclude=("/srv/db",)) == {}
    assert two("/srv/db/data", exclude=("/db/",)) == {}
    assert two("/srv/db", exclude=("*.tmp",)) == {"selections[1].paths": "warning"}
    both = (Selection("both", ("/etc", "/srv")), Selection("one", ("/srv",)))
    assert found(policy(selections=both)) == {"selections[1].paths": "warning"}
    drives = (Selection("one", ALL_LOCAL_DRIVES), Selection("two", ALL_LOCAL_DRIVES))
    assert found(policy(selections=drives)) == {"selections[1].paths": "error"}


def test_a_review_tells_what_could_not_be_read_and_what_is_wrong_but_not_what_only_seems_so() -> (
    None
):
    text = """
[[policy]]
name = "servers"
clients = [5]
storage_unit = "nowhere"
[[policy.selections]]
name = "system"
paths = ["etc"]
[[policy.schedules]]
name = "nightly"
kind = "differentail"
every = "1d"
[[policy]]
clients = ["web1"]
selections = 5
[policy.retention]
daily = 7
"""
    findings = review(parse(text, Format.TOML), SITE)
    assert {(one.where, one.severity.value) for one in findings} == {
        ("policy 'servers', clients[0]", "error"),
        ("policy 'servers', storage_unit", "error"),
        ("policy 'servers', selections[0].paths[0]", "error"),
        ("policy 'servers', schedules[0].kind", "error"),
        ("policy 'servers', retention", "warning"),
        ("policy #2, name", "error"),
        ("policy #2, selections", "error"),
        ("policy #2, schedules", "warning"),
    }


@dataclass(frozen=True)
class Tapes:
    """A type as a later package may bring it."""

    name: str = "tapes"
    summary: str = "tapes"
    kinds: frozenset[BackupKind] = frozenset({BackupKind.FULL})

    def check(self, policy: Policy, site: SiteFacts) -> Iterator[Finding]:
        if policy.selections[0].paths != ("vm1",):
            yield error("selections[0].paths[0]", "no such machine")


def test_another_type_of_policies_is_known_once_it_is_registered() -> None:
    types = PolicyTypes()
    types.register(FilesType())
    types.register(Tapes())
    site = replace(SITE, types=types)
    machine = policy(type="tapes", schedules=(WEEKLY,), **selected("vm1"))
    assert found(machine, site=site) == {}
    assert found(replace(machine, schedules=(NIGHTLY,)), site=site) == {
        "schedules[0].kind": "error"
    }
    assert found(replace(machine, **selected("vm2")), site=site) == {
        "selections[0].paths[0]": "error"
    }
    assert [one.name for one in types] == ["files", "tapes"]
    with pytest.raises(InternalError, match="tapes"):
        types.register(Tapes("tapes", "others"))


def test_places_touch_where_one_lies_in_the_other() -> None:
    assert touch("a", "a")
    assert touch("a[1].b", "a[1]")
    assert touch("", "a")
    assert not touch("a[1]", "a[10]")
    assert not touch("ab", "a")


def test_a_finding_says_where_it_is() -> None:
    assert Finding(Severity.ERROR, "line 3", "bad").text == "line 3: bad"
    assert Finding(Severity.ERROR, "", "bad").text == "bad"
    assert Finding(Severity.ERROR, "", "bad", policy="web").text == "policy 'web': bad"
    assert Finding(Severity.ERROR, "name", "bad", policy="#2").text == "policy #2, name: bad"


def test_how_many_images_stay_is_bounded() -> None:
    day = timedelta(days=1)
    assert images_kept(Rules(), day) is None
    assert images_kept(Rules(within=30 * day), day) == 31
    assert images_kept(Rules(last=3, daily=7), day) == 10
    assert images_kept(Rules(within=timedelta(hours=1)), day) == 1


def test_how_far_apart_backups_are() -> None:
    assert usual_distance(NIGHTLY) == timedelta(days=1)
    assert usual_distance(WEEKLY) == timedelta(days=7)
    once = replace(WEEKLY, calendar=Calendar(dates=(date(2026, 1, 1),)))
    assert usual_distance(once) is None
