"""Streams of what a client seals, names too: divided, kept and shown by who can't read it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit.agents import MachineSite, machine_site
from tests.kit.shown import shown
from tests.kit.trees import assert_same_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.agents import Machine
    from tests.kit.command import Command

SECRETS = ("payroll of ann", "lawsuit [draft]", "merger")


@pytest.fixture
def network(site: Command, tmp_path: Path) -> Iterator[MachineSite]:
    (tmp_path / "machines").mkdir()
    with machine_site(site, tmp_path / "machines") as made:
        yield made


@pytest.fixture
def secret_tree(tree: Path) -> Path:
    for at, name in enumerate(SECRETS):
        for below in ("inner secret", "other"):
            (tree / name / below).mkdir(parents=True)
            for number in range(3):
                (tree / name / below / f"{number}").write_bytes(os.urandom(150_000 + at))
    return tree


def protect(network: MachineSite, tree: Path) -> None:
    file = network.directory / "sealed.toml"
    file.write_text(
        f"""
[[policy]]
name = "sealed"
clients = ["web1"]
streams = 3
limits = {{streams_per_client = 3}}
encryption = "client"
client_key = "office"
names = "sealed"
[[policy.selections]]
name = "tree"
paths = ["{tree}"]
exclude = ["*.tmp"]
"""
    )
    network.site("policy", "apply", file, "--yes").assert_ok()


def backed_up(network: MachineSite) -> list[dict[str, Any]]:
    before = {one["id"] for one in network.listed("images")}
    done = network.ended(network.run("sealed"))
    assert done["outcome"] == "completed", done
    return [one for one in network.listed("images") if one["id"] not in before]


def exported(machine: Machine, tmp_path: Path) -> Path:
    page = tmp_path / "office.txt"
    machine.command("client-key", "export", "office", "--output", page).assert_ok()
    return page


def told_anywhere(network: MachineSite) -> list[str]:
    """Secret names in anything that the site has in the open."""
    home = network.site.home
    files = [one for one in home.rglob("*") if one.is_file() and "pool" not in one.parts]
    kept = b"\n".join(one.read_bytes() for one in files) + network.running.log.read_bytes()
    return [one for one in (*SECRETS, "inner secret") if one.encode() in kept]


def test_streams_of_sealed_names_come_back_where_the_key_is(
    network: MachineSite, secret_tree: Path, tmp_path: Path
) -> None:
    tree, site = secret_tree, network.site
    (tree / "left out.tmp").write_bytes(b"x")
    with network.machine("web1") as web1, network.machine("web2") as web2:
        web1.command("client-key", "create", "office").assert_ok()
        protect(network, tree)
        first = backed_up(network)
        assert len(first) == 3, [one["source"] for one in first]
        assert all(one["sealed_names"] and one["files"] for one in first)
        (tree / "merger" / "inner secret" / "0").unlink()
        (tree / "later").mkdir()
        (tree / "later" / "file").write_bytes(os.urandom(50_000))
        (tree / "left out.tmp").unlink()
        time.sleep(0.2)
        images = backed_up(network)
        by_source = {one["source"]: one["id"] for one in first}
        assert {one["source"]: one["parent"] for one in images} == by_source
        assert sum(one["transmitted_bytes"] for one in images) < 200_000

        # The site has it as one tree, and no name in the open, nor what it says of the work.
        listed = site("ls", images[0]["id"], "--recursive", "--json").assert_ok()
        names = [one["path"] for one in listed.json_lines()]
        assert len(names) == len(set(names))
        assert all(part.startswith("sealed:") for one in names for part in one[1:].split("/"))
        jobs = site("jobs", "list", "--json").assert_ok().text
        assert not any(one in jobs for one in SECRETS)
        manifests = site("policy", "show", "sealed", "--json").assert_ok().text
        assert not any(one in manifests for one in SECRETS)
        assert told_anywhere(network) == []

        # All streams, whichever is named, on another machine that has the key.
        page = exported(web1, tmp_path)
        web2.command("client-key", "import", "theirs", page).assert_ok()
        back = tmp_path / "on web2"
        words = ("restore", images[1]["id"], "--client", "web2", "--to", back, "--json")
        done = network.ended(site(*words).assert_ok().json()["job"])
        assert done["outcome"] == "completed", done
        assert_same_tree(tree, os.fsencode(back) + os.fsencode(tree))

        # On the site, for whoever brings the key there.
        key = ("--client-key-file", page)
        here = tmp_path / "here"
        site("restore", images[2]["id"], "--to", here, *key).assert_ok()
        assert_same_tree(tree, os.fsencode(here) + os.fsencode(tree))
        plain = site("ls", f"latest:{tree}", "--recursive", "--json", *key).assert_ok()
        assert {one["path"] for one in plain.json_lines()} == {str(one) for one in tree.rglob("*")}
        with shown(site, tmp_path / "at", "latest", *map(str, key)) as at:
            assert_same_tree(tree, os.fsencode(at) + os.fsencode(tree))
        differ = site("diff", first[0]["id"], images[2]["id"], "--json", *key).assert_ok()
        rows = {(one["change"], one["path"]) for one in differ.json_lines()}
        assert ("removed", f"{tree}/merger/inner secret/0") in rows
        assert ("added", f"{tree}/later/file") in rows
        empty = tmp_path / "no key"
        empty.mkdir()
        site("mount", "latest", empty).assert_failed(2, "client key")
        wrong = tmp_path / "wrong.txt"
        web2.command("client-key", "create", "another").assert_ok()
        web2.command("client-key", "export", "another", "--output", wrong).assert_ok()
        site("ls", "latest", "--client-key-file", wrong).assert_failed(2, "client key")
        site("verify", "--read-data").assert_ok()
        assert told_anywhere(network) == []


def test_a_key_of_the_same_name_is_not_taken_for_the_one_that_divided(
    network: MachineSite, secret_tree: Path
) -> None:
    with network.machine("web1") as web1:
        web1.command("client-key", "create", "office").assert_ok()
        protect(network, secret_tree)
        assert len(backed_up(network)) == 3
        (web1.command.home / "client-keys" / "office.key").unlink()
        web1.command("client-key", "create", "office").assert_ok()
        job = network.run("sealed")
        done = network.ended(job)
        assert done["outcome"] == "failed", done
        parts = network.listed("jobs", "list", "--parts-of", str(job))
        said = " ".join(str(one["error"]) for one in parts)
        assert "under another key of the same name" in said
        assert not any(one in said for one in SECRETS)
        assert len(network.listed("images")) == 3
