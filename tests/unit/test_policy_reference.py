"""The page on files of policies says what there is."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from holdfast.base.ids import ClientName
from holdfast.control.hypervisors.query import FIELDS
from holdfast.control.policies import (
    Format,
    KnownClients,
    SiteFacts,
    from_plain,
    parse,
    review,
)
from holdfast.control.policies.machine_selection import QUIESCE_MODES
from holdfast.control.schedule import BackupKind
from tests.kit.virtual_machines import estate, machine

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "policy-file.md").read_text()
SITE = SiteFacts(
    KnownClients([ClientName("web1"), ClientName("web2")]),
    frozenset({"default"}),
    datetime(2026, 1, 1, tzinfo=UTC),
    UTC,
    estate=estate(machine("web1")),
)


@pytest.mark.parametrize("form", Format)
def test_every_example_is_one_that_nothing_is_wrong_with(form: Format) -> None:
    examples = re.findall(rf"```{form}\n(.*?)```", PAGE, re.DOTALL)
    assert examples
    for text in examples:
        document = parse(text, form)
        assert document.policies
        assert review(document, SITE) == []


def known_keys(*path: str) -> set[str]:
    """The keys that are known at a place, as the finding of a strange one tells them."""
    strange: Any = {"?": 1}
    for key in reversed(path):
        strange = {key: [strange] if key in ("selections", "schedules") else strange}
    _, findings = from_plain({"name": "p", **strange})
    (told,) = [one for one in findings if one.place.endswith("?")]
    return set((told.hint or "").removeprefix("it may have ").split(", "))


@pytest.mark.parametrize(
    ("heading", "path"),
    [
        ("## `policy`", ()),
        ("### `limits`", ("limits",)),
        ("### `retention`", ("retention",)),
        ("## `policy.selections`", ("selections",)),
        ("## `machines`", ("machines",)),
        ("## `verify_boot`", ("verify_boot",)),
        ("## `policy.schedules`", ("schedules",)),
        ("### `calendar`", ("schedules", "calendar")),
    ],
)
def test_every_key_is_in_its_table(heading: str, path: tuple[str, ...]) -> None:
    section = re.split(r"^##+ ", PAGE.split(f"{heading}\n")[1], flags=re.MULTILINE)[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    listed = {key for row in rows for key in re.findall(r"`([a-z_]+)`", row)}
    assert listed == known_keys(*path)


def test_every_kind_of_backup_is_named() -> None:
    for kind in BackupKind:
        assert f"`{kind}`" in PAGE


def test_every_field_of_a_machine_query_is_named() -> None:
    section = PAGE.split("### Machine queries")[1].split("## `verify_boot`")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    assert {field for row in rows for field in re.findall(r"`([a-z]+)`", row)} == set(FIELDS)
    for mode in QUIESCE_MODES:
        assert f'`"{mode}"`' in PAGE
