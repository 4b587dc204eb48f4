"""A person has a policy run at once, and asks what it will do by itself."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from tests.kit.served import served, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.command import Command


def make_policy(site: Command, tree: Path) -> None:
    # Not now, whenever that is: nothing is to begin by itself.
    hour = datetime.now().astimezone().hour
    window = f"{(hour + 8) % 24:02}:00-{(hour + 13) % 24:02}:00"
    words = ("policy", "new", "docs", "--path", tree, "--every", "1d", "--window", window)
    site(*words, "--keep", "daily 7", "--yes").assert_ok()


def test_a_run_waits_for_a_site_that_is_served(site: Command, tree: Path) -> None:
    make_policy(site, tree)
    queued = site("policy", "run", "docs", "--json").assert_ok().json()
    assert site("images", "--json").json_lines() == []
    with served(site) as running:
        (made,) = until(lambda: site("images", "--json").json_lines(), "the image")
        again = site("policy", "run", "docs", "--kind", "full", "--json").assert_ok().json()
        until(lambda: site("images", "--json").json_lines()[1:], "the other image")
        running.stop()
    assert again["job"] > queued["job"]
    assert (made["policy"], made["schedule"]) == ("docs", None)


def test_wrong_runs_are_explained(site: Command, tree: Path) -> None:
    make_policy(site, tree)
    site("policy", "run", "nothing").assert_failed(2, "nothing")
    site("policy", "run", "docs", "--schedule", "hourly").assert_failed(2, "no schedule 'hourly'")
    site("policy", "run", "docs", "--client", "web9").assert_failed(64, "not for client 'web9'")
    site("policy", "run", "docs", "--kind", "some").assert_failed(64, "some")
    site("policy", "preview", "docs", "--days", "0").assert_failed(64, "days")


def test_a_preview_and_what_is_due_agree(site: Command, tree: Path) -> None:
    site("schedule", "due").assert_ok()
    make_policy(site, tree)
    previewed = site("policy", "preview", "docs", "--days", "3", "--json").assert_ok().json_lines()
    due = site("schedule", "due", "--days", "3", "--json").assert_ok().json_lines()
    assert [one["due_at"] for one in due] == [one["due_at"] for one in previewed]
    starts = [datetime.fromisoformat(one["starts_at"]) for one in previewed]
    assert len(starts) >= 2
    assert starts == sorted(starts)
