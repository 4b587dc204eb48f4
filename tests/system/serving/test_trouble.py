"""A site that is served outlives what it depends on: its database, and room on its disk."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.base.errors import EXIT_FAILED
from tests.kit import postgres
from tests.kit.served import put_policies, served, until
from tests.kit.trees import assert_same_tree
from tests.system.serving.test_serve import another_image, database, images, often

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.command import Command


@pytest.fixture
def server() -> Iterator[postgres.Server]:
    """A server of its own, as it is going to be stopped."""
    binaries = postgres.programs()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (Debian's package postgresql)")
    with postgres.server(binaries) as running:
        yield running


def ended(site: Command) -> list[dict[str, Any]]:
    rows = site("jobs", "--json", "--limit", "1000", "--policy", "servers").assert_ok()
    return [one for one in rows.json_lines() if one["outcome"]]


def test_a_database_that_vanishes_is_named_and_waited_for(
    site: Command, tree: Path, tmp_path: Path, server: postgres.Server
) -> None:
    _, url = server.database()
    site = replace(site, environ={"HOLDFAST_DATABASE_URL": url})
    put_policies(url, often(tree))
    with served(site) as running:
        until(lambda: images(site), "an image")
        for _ in range(3):
            server.stop()
            site("jobs", "list").assert_failed(EXIT_FAILED, "database")
            site("hold", "latest", "--reason", "an audit").assert_failed(EXIT_FAILED)
            assert running.process.poll() is None, running.log.read_text()
            server.start()
            until(lambda: images(site), "the images")
            another_image(site)
        put_policies(url, replace(often(tree), active=False))
        open_jobs = ("jobs", "--json", "--open", "--policy", "servers")
        until(lambda: not site(*open_jobs).assert_ok().out, "every job to end")
        running.stop()
    labels = [one["job"] for one in images(site)]
    assert len(labels) == len(set(labels))
    assert {one["outcome"] for one in ended(site)} <= {"completed", "completed_with_warnings"}
    site("restore", "latest", "--to", tmp_path / "back", "--verify").assert_ok()
    assert_same_tree(tree, os.fsencode(tmp_path / "back") + os.fsencode(tree))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with little room."""
    at = tmp_path / "small disk"
    at.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", at], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("this user may mount nothing")
    yield at
    subprocess.run(["umount", "--lazy", at], check=True)


def test_a_full_disk_under_the_home_is_named_and_outlived(
    holdfast: Command, tree: Path, tmp_path: Path, small_disk: Path
) -> None:
    pool = tmp_path / "pool"
    site = replace(holdfast, home=small_disk / "home")
    site("init", "--pool", pool).assert_ok()
    put_policies(database(site), often(tree))
    filler = small_disk / "filler"
    with served(site) as running:
        until(lambda: images(site), "an image")
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"x" * 4096):
                pass
        refused = until(lambda: _refusal(site), "the disk to be too full for a user")
        assert "Traceback" not in refused
        assert "error: " in refused
        assert "space" in refused
        assert running.process.poll() is None, running.log.read_text()
        filler.unlink()
        another_image(site)
        running.stop()
    site("pool", "check").assert_ok()
    site("restore", "latest", "--to", tmp_path / "back", "--verify").assert_ok()
    assert_same_tree(tree, os.fsencode(tmp_path / "back") + os.fsencode(tree))


def _refusal(site: Command) -> str:
    """What the site says when it has no room for what is asked; nothing where it still has."""
    done = site("hold", "latest", "--reason", f"an audit of {time.monotonic_ns()} " + "x" * 4000)
    if done.status == 0:
        return ""
    assert done.status == EXIT_FAILED, done.err
    return done.err
