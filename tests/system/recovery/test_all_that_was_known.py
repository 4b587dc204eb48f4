"""A lost site comes back with all that it knew, on either kind of database, and goes on."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.base.clock import SystemClock
from holdfast.base.ids import ClientName
from holdfast.control.database import Database
from holdfast.control.hypervisors import HypervisorBook
from holdfast.control.policies import Policy, Selection
from holdfast.control.retention import Rules
from holdfast.control.schedule import BackupKind, Schedule
from holdfast.site.secrets import SecretSource
from holdfast.site.site import Site
from tests.kit.agents import Machine, MachineSite, free_place, machine_site
from tests.kit.control_rows import columns_of, contents
from tests.kit.policies import policy
from tests.kit.served import put_policies
from tests.kit.trees import assert_same_tree

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.command import Command

PASSWORD = "four words nobody guesses"

DERIVED = {("sources", "generation"), ("images", "catalog_state"), ("images", "catalog_detail")}
"""What comes back from the images themselves: which of their files are in the catalog."""

LOGS = {"audit", "audit_head", "acts"}
"""They go on."""


def protecting(tree: Path) -> Policy:
    """A policy that writes to the second storage unit; its schedule does nothing for a while."""
    return policy(
        clients=(ClientName("web1"),),
        selections=(Selection("tree", (str(tree),)),),
        schedules=(Schedule("yearly", BackupKind.FULL, every=timedelta(days=365)),),
        retention=Rules(last=1000),
        storage_unit="second",
    )


def fill(network: MachineSite, tree: Path, tmp_path: Path) -> str:
    """Have a site know something of every kind; the secret of a token of bob's."""
    site = network.site
    password = tmp_path / "password"
    password.write_text(PASSWORD + "\n")
    site("user", "add", "alice", "--role", "administrator", "--password-file", password).assert_ok()
    site("user", "add", "bob", "--role", "operator", "--no-password", "--client", "web*")
    token = site("token", "create", "ci", "--user", "bob").assert_ok().text.strip()
    site("machine", "token", "--name", "web2").assert_ok()
    site("bandwidth", "set", "office", "--limit", "100M", "--network", "10.2.0.0/16").assert_ok()
    (tmp_path / "shelf").mkdir()
    shelf = ("--kind", "diskfiles", "--at", tmp_path / "shelf", "--no-discover")
    site("hypervisor", "add", "shelf", *shelf).assert_ok()
    vcenter = ("--kind", "vmware", "--at", "https://vcenter.example.com", "--no-discover")
    who = ("--user", "backup", "--password-file", password)
    site("hypervisor", "add", "vc", *vcenter, *who).assert_ok()
    job = network.ended(network.run("servers"))
    assert job["outcome"] == "completed", job
    image = job["image_id"]
    site("hold", image, "--reason", "a case").assert_ok()
    site("lock", image, "--until", "2100-01-01").assert_ok()
    return token


def known(place: Path | str) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table, but for what is derived, and notes on the protection itself."""
    database = Database(place)
    found = {}
    for table, rows in contents(database).items():
        names = columns_of(database, table)
        found[table] = [
            {name: value for name, value in named.items() if (table, name) not in DERIVED}
            for named in (dict(zip(names, row, strict=True)) for row in rows)
            if not str(named.get("name", "")).startswith("catalog-")
        ]
    database.close()
    return found


def placed(kind: str, request: pytest.FixtureRequest, site: Command) -> tuple[Command, Path | str]:
    """A site with its control database on one kind, and where that is."""
    if kind == "sqlite":
        return site, site.home / "catalog" / "catalog.db"
    url: str = request.getfixturevalue("postgres_url")
    return replace(site, environ={"HOLDFAST_DATABASE_URL": url}), url


@pytest.mark.parametrize("kinds", [("sqlite", "postgresql"), ("postgresql", "sqlite")])
def test_all_comes_back_on_the_other_database_and_work_goes_on(
    request: pytest.FixtureRequest,
    kinds: tuple[str, str],
    site: Command,
    tree: Path,
    tmp_path: Path,
) -> None:
    old, before = placed(kinds[0], request, site)
    place = free_place()
    machines = tmp_path / "machines"
    machines.mkdir()
    old("storage", "create", "second", "--pool", tmp_path / "second").assert_ok()
    put_policies(before, replace(protecting(tree), priority=7))
    put_policies(before, protecting(tree))
    with machine_site(old, machines, place) as network, network.machine("web1") as web1:
        token = fill(network, tree, tmp_path)
        web1.stop()
        network.running.stop()
    was = known(before)
    old("catalog", "protect").assert_ok()
    kit = tmp_path / "kit.txt"
    kit.write_text(old("pool", "recovery-kit").assert_ok().text)

    bare, after = placed(kinds[1], request, replace(site, home=tmp_path / "bare"))
    words = ("recover", "--pool", old.home / "pool", "--kit", kit, "--json")
    assert bare(*words).assert_ok().json()["failed"] == {}
    _same(was, known(after))
    _goes_on(bare, after, web1, token, place)
    (made,) = bare("images", "--limit", "1", "--json").assert_ok().json_lines()
    bare("restore", made["id"], "--to", tmp_path / "back", "--verify").assert_ok()
    assert_same_tree(tree, tmp_path / "back" / str(tree).lstrip("/"))


def _same(was: dict[str, list[dict[str, Any]]], now: dict[str, list[dict[str, Any]]]) -> None:
    filled = {name for name, rows in was.items() if rows}
    assert filled >= {
        *("users", "tokens", "enrollment_tokens", "authority", "machines", "machine_certificates"),
        *("policies", "policy_clients", "policy_revisions", "schedule_histories"),
        *("jobs", "job_work", "storage_units", "hypervisors", "bandwidth_rules"),
        *("images", "copies", "holds", "locks", "audit", "facts"),
    }
    assert was.keys() == now.keys()
    for table in was.keys() - LOGS:
        assert now[table] == was[table], table
    assert [row for row in now["audit"] if row in was["audit"]] == was["audit"]


def _goes_on(
    site: Command, database_place: Path | str, web1: Machine, token: str, place: str
) -> None:
    """Users are let in, secrets are opened, and a machine that had joined works on."""
    login = ("user", "login", "alice", "--password-file", site.home.parent / "password")
    site(*login).assert_ok()
    bob = replace(site, environ=site.environ | {"HOLDFAST_TOKEN": token})
    bob("user", "list").assert_failed(2, "bob may not do that")
    site("audit", "verify").assert_ok()
    database = Database(database_place)
    with Site.open(site.home, SecretSource(), SystemClock()) as opened:
        secret = HypervisorBook(database, SystemClock()).credentials("vc", opened.pool_key())
    database.close()
    assert (secret["user"], secret["password"]) == ("backup", PASSWORD)
    with machine_site(site, site.home.parent / "machines", place) as network:
        web1.start()
        network.await_connected("web1")
        numbers = [int(row["id"]) for row in network.listed("jobs", "list")]
        job = network.run("servers")
        assert job > max(numbers)
        ended = network.ended(job)
        assert ended["outcome"] == "completed", ended
        web1.stop()
        network.running.stop()
