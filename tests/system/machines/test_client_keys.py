"""Backups that the site stores and can't read: sealed and opened by machines that have the key."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest

from holdfast.vault import recovery_kit
from tests.formats.test_read_pool import read_pool
from tests.kit.agents import MachineSite, machine_site
from tests.kit.trees import assert_same_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.agents import Machine
    from tests.kit.command import Command
    from tests.kit.hosts import Hosts

SECRET_NAME = "a name that nobody is to know"
SECRET = b"words that stand in one file alone, and nowhere else at all"


@pytest.fixture
def network(site: Command, tmp_path: Path, own_hosts: Hosts | None) -> Iterator[MachineSite]:
    with machine_site(site, tmp_path / "machines", hosts=own_hosts) as made:
        (tmp_path / "machines").mkdir()
        yield made


@pytest.fixture
def secret_tree(tree: Path) -> Path:
    (tree / SECRET_NAME).mkdir()
    (tree / SECRET_NAME / "the plan").write_bytes(SECRET * 40)
    (tree / "link to it").symlink_to(f"{SECRET_NAME}/the plan")
    (tree / "large").write_bytes(os.urandom(3_000_000))
    return tree


def protect(network: MachineSite, client: str, tree: Path, **more: str) -> None:
    file = network.directory / f"{client}.toml"
    told = "\n".join(f'{key} = "{value}"' for key, value in more.items())
    file.write_text(
        f"""
[[policy]]
name = "{client}"
clients = ["{client}"]
{told}
[[policy.selections]]
name = "tree"
paths = ["{tree}"]
"""
    )
    network.site("policy", "apply", file, "--yes").assert_ok()


def create_key(machine: Machine) -> str:
    made = machine.command("client-key", "create", "office", "--json").assert_ok().json()
    return str(made["id"])


def carry_key(source: Machine, target: Machine, tmp_path: Path) -> Path:
    page = tmp_path / "office.txt"
    source.command("client-key", "export", "office", "--output", page).assert_ok()
    target.command("client-key", "import", "from-web1", page).assert_ok()
    return page


def everything_of(site: Command, image: str) -> bytes:
    """All that the site can read of an image: listings, contents of the catalog, database files."""
    seen = [
        site("ls", f"{image}:/", "--recursive").assert_ok().out,
        site("images", "--json").assert_ok().out,
        site("jobs", "list", "--json").assert_ok().out,
        site("activity", "--json").out,
    ]
    seen += [
        file.read_bytes()
        for file in site.home.rglob("*")
        if file.is_file() and "pool" not in file.relative_to(site.home).parts
    ]
    return b"\n".join(seen)


def all_chunks(network: MachineSite) -> bytes:
    """Every chunk of the pool, opened with the pool's own key by a program of its own."""
    kit = network.site("pool", "recovery-kit").assert_ok().text
    pool = read_pool.Pool(network.site.home / "pool", recovery_kit.read(kit))
    return b"\n".join(pool.stored_chunks())


@pytest.mark.parametrize("names", ["sealed", "open"])
def test_the_site_stores_what_it_cannot_read_and_another_machine_with_the_key_restores_it(
    network: MachineSite, secret_tree: Path, tmp_path: Path, names: str
) -> None:
    tree = secret_tree
    with network.machine("web1") as web1, network.machine("web2") as web2:
        key = create_key(web1)
        protect(network, "web1", tree, encryption="client", client_key="office", names=names)
        first = network.ended(network.run("web1"))
        assert first["outcome"] == "completed", first
        image = first["image_id"]
        [row] = network.listed("images")
        assert (row["client_key"], row["sealed_names"]) == (key, names == "sealed")
        shown = network.site("images").assert_ok().text
        assert ("names sealed" if names == "sealed" else ", sealed") in shown

        # What the site has, in the open and opened with all keys that it has.
        has = everything_of(network.site, image)
        assert SECRET not in has
        assert (SECRET_NAME.encode() in has) == (names == "open")
        assert (b"sealed:" in has) == (names == "sealed")
        plain = all_chunks(network)
        assert SECRET not in plain
        assert (SECRET_NAME.encode() in plain) == (names == "open")

        # What the site does with it.
        network.site("verify", "--read-data").assert_ok()
        network.site("pool", "check", "--read-data").assert_ok()
        network.site("gc").assert_ok()
        back = tmp_path / "on the master"
        network.site("restore", image, "--to", back).assert_failed(2, key)
        at = tmp_path / "mounted"
        at.mkdir()
        network.site("mount", image, at).assert_failed(2, key)

        # Only what changed is sent.
        (tree / "new").write_bytes(os.urandom(300_000))
        time.sleep(0.2)
        second = network.ended(network.run("web1"))
        assert second["outcome"] == "completed", second
        oldest, newest = network.listed("images")
        assert newest["parent"] == oldest["id"]
        assert newest["transmitted_bytes"] < 400_000

        # Elsewhere, without the key and with it.
        image = second["image_id"]
        to = tmp_path / "back"
        words = ("restore", image, "--client", "web2", "--json", "--to")
        without = network.site(*words, tmp_path / "nothing").assert_ok()
        refused = network.ended(without.json()["job"])
        assert refused["outcome"] == "failed", refused
        assert refused["error"]["code"] == "client-key-needed", refused
        assert key in refused["error"]["message"]
        page = carry_key(web1, web2, tmp_path)
        done = network.ended(network.site(*words, to).assert_ok().json()["job"])
        assert done["outcome"] == "completed", done["error"]
        assert_same_tree(tree, to / str(tree).lstrip("/"))

        # Part of it, by its plain name, and on the site itself for whoever brings the key there.
        part = tree / SECRET_NAME
        some = ("restore", image, str(part), "--client", "web2", "--json", "--to")
        chosen = network.site(*some, tmp_path / "part").assert_ok()
        done = network.ended(chosen.json()["job"])
        assert done["outcome"] == "completed", done["error"]
        found = (tmp_path / "part" / str(part).lstrip("/") / "the plan").read_bytes()
        assert found == SECRET * 40
        here = ("restore", image, "--to", back, "--verify", "--client-key-file", page)
        network.site(*here).assert_ok()
        assert_same_tree(tree, back / str(tree).lstrip("/"))


def test_names_that_the_site_shows_are_told_by_the_key(
    network: MachineSite, secret_tree: Path
) -> None:
    with network.machine("web1") as web1:
        create_key(web1)
        sealed = {"encryption": "client", "client_key": "office", "names": "sealed"}
        protect(network, "web1", secret_tree, **sealed)
        image = network.ended(network.run("web1"))["image_id"]
        listed = network.site("ls", f"{image}:/", "--recursive", "--json").assert_ok().json_lines()
        paths = [one["path"] for one in listed]
        plain = web1.command("client-key", "reveal", "office", *paths).assert_ok().text
        assert str(secret_tree / SECRET_NAME / "the plan") in plain.splitlines()


def test_what_is_told_of_a_job_names_no_sealed_file(
    network: MachineSite, secret_tree: Path, tmp_path: Path
) -> None:
    with network.machine("web1") as web1:
        create_key(web1)
        sealed = {"encryption": "client", "client_key": "office", "names": "sealed"}
        protect(network, "web1", secret_tree, **sealed)
        image = network.ended(network.run("web1"))["image_id"]
        # What is in the way is told.
        to = tmp_path / "back"
        there = to / str(secret_tree / SECRET_NAME).lstrip("/")
        there.mkdir(parents=True)
        (there / "the plan").mkdir()
        (there / "the plan" / "in the way").touch()
        words = ("restore", image, "--client", "web1", "--overwrite", "always", "--to", to)
        job = network.site(*words, "--json").assert_ok().json()["job"]
        done = network.ended(job)
        events = network.site("events", str(job), "--json").assert_ok().text
        assert SECRET_NAME not in json.dumps(done) + events
        assert "sealed:" in events


def test_a_key_that_is_not_there_is_told_before_anything_is_sent(
    network: MachineSite, secret_tree: Path
) -> None:
    file = network.directory / "p.toml"
    policy = f"""
[[policy]]
name = "p"
clients = ["CLIENT"]
encryption = "client"
client_key = "office"
[[policy.selections]]
name = "tree"
paths = ["{secret_tree}"]
"""
    with network.machine("web1") as web1:
        file.write_text(policy.replace("CLIENT", "web1"))
        refused = network.site("policy", "apply", file, "--yes")
        assert refused.status != 0
        assert "this machine has no client key 'office'" in refused.err
        create_key(web1)
        network.site("policy", "apply", file, "--yes").assert_ok()
        (web1.command.home / "client-keys" / "office.key").unlink()
        done = network.ended(network.run("p"))
        assert (done["outcome"], done["error"]["code"]) == ("failed", "client-key-needed"), done
        assert network.listed("images") == []
        # The site's own files can't be kept from it.
        file.write_text(policy.replace("CLIENT", network.itself))
        refused = network.site("policy", "apply", file, "--yes")
        assert refused.status != 0
        assert "backed up by the site itself" in refused.err
