"""Storage units: images in several pools, found and restored as if there were one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.control.policies import Selection
from holdfast.control.retention import Rules
from holdfast.faces.cli.api_client import ApiClient, at
from holdfast.site import local_socket
from holdfast.site.probing import this_client
from tests.kit.policies import policy
from tests.kit.served import put_policies, served, until
from tests.kit.trees import assert_same_tree

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.command import Command


def protect(site: Command, tree: Path, unit: str) -> None:
    put_policies(
        site.home / "catalog" / "catalog.db",
        policy(
            clients=(this_client(),),
            selections=(Selection("files", (str(tree),)),),
            schedules=(),
            retention=Rules(last=9),
            storage_unit=unit,
        ),
    )


def back_up(api: ApiClient) -> dict[str, Any]:
    """Run the policy, and wait; the image."""
    api.post("/policies/servers/runs", {})

    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = api.get("/jobs")["items"][0]
        return found if found["state"] == "ended" else None

    job = until(look, "the backup to end")
    assert job is not None
    assert job["outcome"] == "completed", job
    image: dict[str, Any] = api.get(at("images", job["image_id"]))
    return image


def pools(site: Command) -> dict[str, str]:
    """The pool of each storage unit."""
    rows = site("storage", "list", "--json").assert_ok().json_lines()
    return {row["name"]: row["pool_id"] for row in rows}


@pytest.fixture
def second(site: Command, tmp_path: Path) -> Command:
    """A site with another storage unit beside its pool."""
    site("storage", "create", "second", "--pool", tmp_path / "second").assert_ok()
    return site


def test_a_policy_backs_up_to_its_unit(second: Command, tree: Path, tmp_path: Path) -> None:
    protect(second, tree, "second")
    with served(second), ApiClient.of_socket(second.home / local_socket.NAME) as api:
        image = back_up(api)
        (tree / "new").write_bytes(b"new")
        again = back_up(api)
        assert again["parent"] == image["id"]
        until(lambda: api.get("/catalog")["states"]["indexed"] == 2, "the files of both")
        found = [one["path"] for one in api.get("/find", pattern="new")["items"]]
        assert str(tree / "new") in found
        changes = api.get(at("images", again["id"], "changes"), since=image["id"])["items"]
        assert str(tree / "new") in [one["path"] for one in changes]
    where = pools(second)
    assert [one["pool"] for one in again["copies"]] == [where["second"]]
    second("ls", f"latest:{tree}").assert_ok()
    second("diff", image["id"], again["id"]).assert_ok()
    second("verify", again["id"], "--read-data").assert_ok()
    second("restore", again["id"], "--to", tmp_path / "back").assert_ok()
    assert_same_tree(tree, tmp_path / "back" / str(tree).lstrip("/"))
    stats = second("pool", "stats", "--unit", "second", "--json").assert_ok().json()
    assert (stats["images"], stats["pool_id"]) == (2, where["second"])


def test_a_backup_by_hand_leaves_out_the_pools_of_all_units(
    second: Command, tree: Path, tmp_path: Path
) -> None:
    image = second("backup", tmp_path, "--json").assert_ok().json()["id"]
    listed = second("ls", f"{image}:{tmp_path}", "--recursive").assert_ok().text.splitlines()
    assert any(str(tree) in one for one in listed)
    assert not [one for one in listed if f"{tmp_path}/second" in one]
    # What is no unit any more is a directory like others.
    second("storage", "remove", "second").assert_ok()
    image = second("backup", tmp_path, "--json").assert_ok().json()["id"]
    second("ls", f"{image}:{tmp_path}/second/pool").assert_ok()


def test_images_of_a_source_follow_each_other_through_units(
    second: Command, tree: Path, tmp_path: Path
) -> None:
    made = []
    for unit in ("default", "second", "default"):
        protect(second, tree, unit)
        (tree / "which").write_text(unit)
        with served(second), ApiClient.of_socket(second.home / local_socket.NAME) as api:
            made.append(back_up(api))
    assert sorted(one["number"] for one in made) == [one["number"] for one in made]
    assert len({one["number"] for one in made}) == 3
    # A unit knows its own images alone.
    assert [one["parent"] for one in made] == [None, None, made[0]["id"]]
    listed = [one["id"] for one in second("images", "--json").assert_ok().json_lines()]
    assert listed == [one["id"] for one in made]
    second("restore", made[1]["id"], f"{tree}/which", "--to", tmp_path / "back").assert_ok()
    assert (tmp_path / "back" / str(tree).lstrip("/") / "which").read_text() == "second"
    # Compared within a pool and across pools.
    for later in made[1:]:
        assert f"M {tree}/which" in second("diff", made[0]["id"], later["id"]).assert_ok().text
    # The catalog is brought back from both.
    before = second("find", "which", "--json").assert_ok().json_lines()
    second("catalog", "rebuild").assert_ok()
    assert second("find", "which", "--json").assert_ok().json_lines() == before


def test_what_goes_goes_from_its_unit(second: Command, tree: Path) -> None:
    protect(second, tree, "second")
    with served(second), ApiClient.of_socket(second.home / local_socket.NAME) as api:
        image = back_up(api)
    protect(second, tree, "default")
    second("storage", "remove", "second").assert_failed(2, "copies of 1 image")
    second("expire", image["id"]).assert_ok()
    freed = second("gc", "--unit", "second", "--json").assert_ok().json()
    assert (freed["bytes_live"], freed["packs_before"] > 0) == (0, True)
    second("storage", "remove", "second").assert_ok()
    assert set(pools(second)) == {"default"}


def test_a_unit_of_a_policy_stays(second: Command, tree: Path) -> None:
    protect(second, tree, "second")
    second("storage", "remove", "second").assert_failed(2, "1 policies", "servers")


def test_a_unit_opens_by_its_own_kit(second: Command, tree: Path, tmp_path: Path) -> None:
    protect(second, tree, "second")
    with served(second), ApiClient.of_socket(second.home / local_socket.NAME) as api:
        back_up(api)
    kit = tmp_path / "kit.txt"
    second("pool", "recovery-kit", "--unit", "second", "--text", kit).assert_ok()
    shutil.rmtree(second.home)
    place = tmp_path / "second"
    bare = replace(second, home=tmp_path / "bare")
    bare("init", "--existing", "--pool", place, "--recovery-kit", kit).assert_ok()
    bare("catalog", "rebuild").assert_ok()
    bare("restore", "latest", "--to", tmp_path / "back").assert_ok()
    assert_same_tree(tree, tmp_path / "back" / str(tree).lstrip("/"))


def test_wrong_words_are_told(second: Command, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "file").touch()
    second("storage", "create", "third", "--pool", taken).assert_failed(64, "other files")
    second("storage", "create", "second", "--pool", tmp_path / "x").assert_failed(2, "already")
    second("storage", "create", "third", "--pool", tmp_path / "second").assert_failed(2, "pool")
    second("storage", "create", "third", "--on", "nobody", "--pool", "/x").assert_failed(
        2, "nobody"
    )
    second("storage", "create", "third", "--on", "m", "--pool", "x").assert_failed(64, "absolute")
    second("storage", "remove", "default").assert_failed(2, "own pool")
    second("storage", "set", "second", "--slots", "0").assert_failed(64, "--slots")
    second("gc", "--unit", "nowhere").assert_failed(2, "nowhere")
    assert set(pools(second)) == {"default", "second"}
    shutil.rmtree(tmp_path / "second")
    second("gc", "--unit", "second").assert_failed(2, "second")
