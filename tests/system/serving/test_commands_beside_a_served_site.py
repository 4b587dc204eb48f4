"""Commands that do their work themselves, while another process serves the same site."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from holdfast.base.ids import ClientName
from holdfast.control.policies import Selection
from holdfast.control.retention import Rules
from holdfast.control.schedule import BackupKind, Schedule
from tests.kit.policies import policy
from tests.kit.served import put_policies, served, until
from tests.kit.trees import assert_same_tree

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.command import Command, Ended


@pytest.fixture(params=["sqlite", "postgresql"])
def busy(site: Command, tree: Path, request: pytest.FixtureRequest) -> Command:
    """A site with a policy that backs a tree up every second, on each kind of database."""
    place: Path | str = site.home / "catalog" / "catalog.db"
    if request.param == "postgresql":
        place = request.getfixturevalue("postgres_url")
        site = replace(site, environ={"HOLDFAST_DATABASE_URL": str(place)})
    often = policy(
        clients=(ClientName(os.uname().nodename),),
        selections=(Selection("tree", (str(tree),)),),
        schedules=(Schedule("often", BackupKind.CONTINUOUS, every=timedelta(seconds=1)),),
        retention=Rules(last=1000),
    )
    put_policies(place, often)
    return site


def images(site: Command) -> list[str]:
    """Those that the policy made."""
    rows = site("images", "--json").assert_ok().json_lines()
    return [one["id"] for one in rows if one["policy"] != "adhoc"]


def test_every_command_works_beside_a_served_site(
    busy: Command, tree: Path, tmp_path: Path
) -> None:
    with served(busy) as running:
        first, second, third, *_ = until(lambda: images(busy)[4:] and images(busy), "some images")
        lines: list[list[str | Path]] = [
            ["backup", tree, "--json"],
            ["ls", first, "--recursive"],
            ["diff", first, third],
            ["find", "hole", "--json"],
            ["restore", first, "--to", tmp_path / "back", "--verify"],
            ["hold", first, "--reason", "case 17"],
            ["lock", second, "--until", "2099-01-01"],
            ["unhold", first],
            ["hold", second, "--reason", "case 18"],
            ["expire", third],
            ["retention", "preview"],
            ["retention", "apply", "--yes"],
            ["catalog", "update"],
            ["catalog", "protect"],
            ["catalog", "rebuild"],
            ["verify"],
            ["pool", "check"],
            ["pool", "rebuild-index"],
            ["pool", "stats"],
            ["gc", "--dry-run"],
            ["gc"],
        ]
        for line in lines:
            ended = busy(*line)
            assert (line, ended.status, "Traceback" in ended.err) == (line, 0, False), ended.err
        before = len(images(busy))
        try:
            until(lambda: len(images(busy)) > before + 1, "more images", patience_s=180)
        except AssertionError:
            told = busy("jobs", "list", "--open").text + running.log.read_text()
            pytest.fail(f"the site stopped backing up: {told}")
        running.stop()
    log = running.log.read_text()
    assert "error" not in log.lower(), log
    assert third not in images(busy)
    rows = {one["id"]: one for one in busy("images", "--json").assert_ok().json_lines()}
    assert rows[second]["holds"] == ["case 18"]
    assert rows[first]["holds"] == []
    busy("verify").assert_ok()
    assert_same_tree(tree, os.fsencode(tmp_path / "back") + os.fsencode(tree))


def test_many_at_once_neither_fail_nor_lose_anything(busy: Command, tree: Path) -> None:
    """Whoever writes waits for whoever writes."""
    with served(busy) as running:
        chosen = until(lambda: images(busy)[2:] and images(busy), "some images")[:3]

        def work(number: int) -> list[Ended]:
            image = chosen[number]
            return [
                busy("hold", image, "--reason", f"case {number}"),
                busy("backup", tree),
                busy("retention", "apply", "--last", "1000", "--yes"),
                busy("unhold", image),
                busy("expire", image),
            ]

        with ThreadPoolExecutor(len(chosen)) as pool:
            for ended in pool.map(work, range(len(chosen))):
                for one in ended:
                    assert one.status == 0, one.err
        running.stop()
    log = running.log.read_text()
    assert "error" not in log.lower(), log
    assert not set(chosen) & set(images(busy))
    busy("verify").assert_ok()


def test_a_catalog_that_is_served_is_not_taken_away(site: Command, tree: Path) -> None:
    """Whoever serves it would go on writing to the one that was set aside."""
    site("backup", tree).assert_ok()
    with served(site) as running:
        (site.home / "catalog" / "catalog.db").write_bytes(b"this is no database " * 1000)
        site("catalog", "rebuild").assert_failed(2, "damaged", "serves the site", "stop that")
        running.kill()
    site("catalog", "rebuild").assert_ok()
    assert len(site("images", "--json").assert_ok().json_lines()) == 1
