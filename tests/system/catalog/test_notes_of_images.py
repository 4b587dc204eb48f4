"""What a backup leaves for the catalog, and which image is the latest."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from holdfast.base.clock import SystemClock
from holdfast.control.jobs import JobBook, Outcome
from holdfast.site.secrets import SecretSource
from holdfast.site.site import Site
from tests.kit.command import Command
from tests.kit.trees import assert_same_tree

if TYPE_CHECKING:
    from pathlib import Path


def ids(site: Command) -> list[str]:
    return [row["id"] for row in site("images", "--json").assert_ok().json_lines()]


def test_an_image_is_said_to_be_safe_where_its_note_can_not_be_left(
    site: Command, tree: Path, tmp_path: Path
) -> None:
    inbox = site.home / "catalog" / "inbox"
    inbox.write_text("in the way")
    ended = site("backup", tree)
    ended.assert_failed(2, "is safe in the pool", str(inbox), "holdfast catalog rebuild")
    inbox.unlink()
    assert ids(site) == []
    site("catalog", "rebuild").assert_ok()
    (image,) = ids(site)
    assert f"image {image} is safe in the pool" in ended.err
    site("restore", "latest", "--to", tmp_path / "back").assert_ok()
    assert_same_tree(tree, os.fsencode(tmp_path / "back") + os.fsencode(tree))


def test_the_latest_is_the_latest_of_this_site_whoever_else_writes_to_the_pool(
    holdfast: Command, tree: Path, tmp_path: Path
) -> None:
    pool, ours, theirs = tmp_path / "pool", tmp_path / "ours", tmp_path / "theirs"
    for place in (ours, theirs):
        place.mkdir()
        (place / place.name).write_text(place.name)
    holdfast("init", "--pool", pool).assert_ok()
    other = Command(tmp_path / "other")
    other.home.mkdir()
    shutil.copy(holdfast.home / "pool.key", other.home / "pool.key")
    other("init", "--existing", "--pool", pool).assert_ok()
    other("restore", "latest", "--to", tmp_path / "none").assert_failed(2, "catalog rebuild")

    mine = holdfast("backup", ours, "--json").assert_ok().json()["id"]
    foreign = other("backup", theirs, "--json").assert_ok().json()["id"]
    for site, image in ((holdfast, mine), (other, foreign)):
        assert ids(site) == [image]
        assert site("verify", "latest", "--json").assert_ok().json_lines()
        site("restore", "latest", "--to", tmp_path / f"back {image}").assert_ok()
    assert not list((tmp_path / f"back {mine}").rglob("theirs"))
    assert not list((tmp_path / f"back {foreign}").rglob("ours"))

    # By its id, each has what the pool has; and after hearing of it, it may be the latest.
    holdfast("restore", foreign, "--to", tmp_path / "by id").assert_ok()
    holdfast("catalog", "rebuild").assert_ok()
    assert ids(holdfast) == [mine, foreign]
    listed = holdfast("ls", f"latest:{theirs}").assert_ok().text
    assert "theirs" in listed
    holdfast("expire", "latest").assert_ok()
    assert ids(holdfast) == [mine]


def test_a_rebuild_that_is_interrupted_forgets_no_image(site: Command, tree: Path) -> None:
    site("backup", tree).assert_ok()
    site("backup", tree / "many").assert_ok()
    inbox = site.home / "catalog" / "inbox"
    noted = sorted(inbox.iterdir())
    assert len(noted) == 2

    def interrupted(_rows: int) -> None:
        raise KeyboardInterrupt

    opened = Site.open(site.home, SecretSource(), SystemClock())
    with opened, pytest.raises(KeyboardInterrupt):
        opened.rebuild_catalog(interrupted)
    assert sorted(inbox.iterdir()) == noted
    assert len(ids(site)) == 2


def test_a_damaged_note_is_no_obstacle_to_a_rebuild(site: Command, tree: Path) -> None:
    image = site("backup", tree, "--json").assert_ok().json()["id"]
    (note,) = (site.home / "catalog" / "inbox").iterdir()
    note.write_bytes(b"{")
    site("images").assert_failed(2, note.name, "holdfast catalog rebuild")
    site("restore", image, "--to", site.home / "back").assert_ok()
    site("catalog", "rebuild").assert_ok()
    assert ids(site) == [image]
    assert not note.exists()


def test_a_backup_by_hand_is_a_job_that_has_ended(site: Command, tree: Path) -> None:
    unreadable = tree / "unreadable"
    unreadable.mkdir(mode=0)
    poor = site.without_privileges()
    made = poor("backup", tree, "--full", "--json").json()
    for _ in range(2):
        assert [one["policy"] for one in site("images", "--json").json_lines()] == ["adhoc"]
    with Site.open(site.home, SecretSource.from_environment({}), SystemClock()) as opened:
        book = JobBook(opened.database, opened.clock)
        (job,) = book.each()
        events = book.events(job.id)
    assert (job.policy, job.backup_kind, job.image_id) == ("adhoc", "full", made["id"])
    assert job.outcome is Outcome.COMPLETED_WITH_ERRORS
    assert job.counters["size_bytes"] == made["stats"]["bytes_found"]
    assert job.duration is not None
    assert os.fsencode(unreadable) in {one.path for one in events}
    # A catalog that is made anew keeps the jobs that it has.
    site("catalog", "rebuild").assert_ok()
