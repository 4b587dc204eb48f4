"""Images of several sources go to another storage unit side by side; a kill costs one of them."""

from __future__ import annotations

import os
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.faces.cli.api_client import ApiClient, at
from holdfast.site import local_socket
from tests.kit.served import served, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.command import Command

LARGE = 40_000_000


def back_up(site: Command, tree: Path, name: str, size: int) -> str:
    """A source of its own, with data that no other one has, nor itself before."""
    own = tree / name
    own.mkdir(parents=True, exist_ok=True)
    for number in range(-(-size // LARGE)):
        (own / f"file {number}").write_bytes(os.urandom(min(size, LARGE)))
    return str(site("backup", own, "--json").assert_ok().json()["id"])


def replicate(site: Command, *images: str) -> int:
    return int(site("replicate", *images, "--to", "second").assert_ok().text)


def api_of(site: Command) -> ApiClient:
    return ApiClient.of_socket(site.home / local_socket.NAME)


def ended(api: ApiClient, job: int) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = api.get(at("jobs", job))
        return found if found["state"] == "ended" else None

    found = until(look, "the job to end")
    assert found is not None
    return found


def parts(api: ApiClient, job: int) -> list[dict[str, Any]]:
    return list(api.pages("/jobs", parent=job, sort="id", order="ascending"))


def most_at_once(rows: list[dict[str, Any]]) -> int:
    """How many of these jobs were at work at the same moment."""
    spans = [
        (datetime.fromisoformat(one["started_at"]), datetime.fromisoformat(one["ended_at"]))
        for one in rows
    ]
    return max(sum(begin <= moment < end for begin, end in spans) for moment, _ in spans)


def packed(place: Path) -> int:
    return sum(one.stat().st_size for one in (place / "packs").rglob("*") if one.is_file())


def bring_first(site: Command, tree: Path, *names: str) -> None:
    """An image of each of these sources, so that the unit has something of it."""
    job = replicate(site, *[back_up(site, tree, name, 1000) for name in names])
    with served(site), api_of(site) as api:
        done = ended(api, job)
    assert (done["outcome"], done["children"]) == ("completed", 0), done


@pytest.fixture
def place(site: Command, tmp_path: Path) -> Path:
    made = tmp_path / "second"
    site("storage", "create", "second", "--pool", made).assert_ok()
    return made


def test_parts_run_side_by_side_and_never_more_than_the_unit_has_slots(
    site: Command, place: Path, tmp_path: Path
) -> None:
    bring_first(site, tmp_path / "trees", *"abcd")
    images = [back_up(site, tmp_path / "trees", name, 1_000_000) for name in "abcd"]
    job = replicate(site, *images)
    site("storage", "set", "second", "--slots", "2").assert_ok()
    with served(site), api_of(site) as api:
        done = ended(api, job)
        rows = parts(api, job)
        shown = site("jobs", "show", str(job)).assert_ok().text
        log = site("activity", "--kind", "replicate", "--json").assert_ok().json_lines()
    log = [one for one in log if one["job"] > job]
    assert (done["outcome"], done["children"], len(rows)) == ("completed", 4, 4)
    assert most_at_once(rows) == 2
    assert {one["job"] for one in log} == {one["id"] for one in rows}
    for row, name in zip(sorted(rows, key=lambda one: one["source"]), "abcd", strict=True):
        assert row["source"].endswith(f"/{name}")
        assert f"/{name}" in shown
    listed = site("storage", "list", "--json").assert_ok().json_lines()
    assert {one["name"]: one["images"] for one in listed} == {"default": 8, "second": 8}
    site("verify", "--unit", "second", "--read-data").assert_ok()


def test_a_kill_costs_the_part_that_was_at_work(site: Command, place: Path, tmp_path: Path) -> None:
    bring_first(site, tmp_path / "trees", "a", "b", "large")
    small = [back_up(site, tmp_path / "trees", name, 1000) for name in "ab"]
    large = back_up(site, tmp_path / "trees", "large", 6 * LARGE)
    job = replicate(site, *small, large)
    with served(site) as running, api_of(site) as api:

        def begun() -> list[dict[str, Any]]:
            rows = parts(api, job)
            through = all(one["outcome"] == "completed" for one in rows[1:])
            return rows if through and packed(place) > LARGE else []

        # The part of the largest source is the first.
        killed, *before = until(begun, "data of the largest to be on its way")
        running.kill()
    assert (killed["source"].endswith("/large"), killed["state"]) == (True, "active")
    with served(site), api_of(site) as api:
        done = ended(api, job)
        again, *others = parts(api, job)
    assert done["outcome"] == "completed", done
    assert others == before
    assert again["started_at"] > killed["started_at"]
    site("verify", large, "--unit", "second", "--read-data").assert_ok()
    assert packed(place) < 6 * LARGE * 1.1, "nothing was sent twice"
