"""From a vCenter to an image and back by the real commands: a simulator with real bytes."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit.disk_images import MIB, needs_qemu
from tests.kit.served import served, until
from tests.kit.vcsim import PASSWORD, Certificate, Vcsim, wait, why_no_vcsim
from tests.system.virtual_machines.test_policy_to_restore import images, run_and_wait

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.command import Command

pytestmark = [needs_qemu, pytest.mark.skipif(bool(why_no_vcsim()), reason=str(why_no_vcsim()))]

POLICY = """
[[policy]]
name = "estate"
type = "machines"
active = false
machines = {query = "hypervisor=vc and name=web*"}
retention = {daily = 7}

[[policy.schedules]]
name = "nightly"
kind = "differential"
every = "20h"
"""


@pytest.fixture
def vcsim(tmp_path: Path) -> Iterator[Vcsim]:
    made = Vcsim(tmp_path)
    yield made
    made.close()


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """Files with the right password, and a wrong one."""
    (tmp_path / "right").write_text(PASSWORD)
    (tmp_path / "wrong").write_text("nonsense")
    (tmp_path / "policy.toml").write_text(POLICY)
    return tmp_path


def add(site: Command, vcsim: Vcsim, secrets: Path, **others: str) -> Any:
    given = {"at": vcsim.url, "user": "backup", "password-file": str(secrets / "right"), **others}
    words = [word for name, value in given.items() for word in (f"--{name}", value)]
    return site("hypervisor", "add", "vc", "--kind", "vmware", *words)


def grown(path: Path, seed: int) -> None:
    """Write what no other disk has, and nothing compresses."""
    with path.open("r+b") as disk:
        disk.seek((5 + 3 * seed) * MIB)
        disk.write(random.Random(seed).randbytes(2 * MIB))


def one(rows: list[Any]) -> Any:
    """The only one."""
    (found,) = rows
    return found


def read_bytes(job: dict[str, Any]) -> int:
    """How much of its source a job read."""
    return int(job["counters"]["bytes_read"])


def test_a_policy_backs_machines_up_and_they_come_back_to_the_byte(
    site: Command, vcsim: Vcsim, secrets: Path
) -> None:
    web, _ = vcsim.make("web1", 24 * MIB, 8 * MIB), vcsim.make("db1", 8 * MIB)
    first_disk = vcsim.flats(web)["scsi0-0"]
    grown(first_disk, 0)
    with served(site) as running:
        added = add(site, vcsim, secrets).assert_ok()
        assert "2 virtual machines" in added.text + added.err
        known = site("machines", "--json").assert_ok().json_lines()
        assert sorted(row["name"] for row in known) == ["db1", "web1"]
        policy = str(secrets / "policy.toml")
        site("policy", "validate", policy).assert_ok()
        site("policy", "apply", policy, "--yes").assert_ok()
        contents = []
        for seed in (1, 2):
            contents.append({name: path.read_bytes() for name, path in vcsim.flats(web).items()})
            done = one(run_and_wait(site, "policy", "run", "estate"))
            assert (done["client"], done["outcome"]) == ("web1", "completed"), done
            assert vcsim.snapshots() == []
            grown(first_disk, seed)
        newest, oldest = images(site)["web1"]
        for number, image in enumerate((oldest, newest)):
            name = f"again{number}"
            words = ("--to", "vc", "--new-identity", "--name", name, "--no-network")
            made = one(run_and_wait(site, "restore-machine", image, *words))
            assert made["outcome"].startswith("completed"), made
            site("machines", "--refresh").assert_ok()
            rows = site("machines", "--json").assert_ok().json_lines()
            known_as = one([row["uuid"] for row in rows if row["name"] == name])
            found = {name: path.read_bytes() for name, path in vcsim.flats(known_as).items()}
            assert found == contents[number]
        # The original is there, so a second of its identity is refused.
        site("restore-machine", newest, "--to", "vc").assert_failed(2, "has a machine 'web1'")
        machine = vcsim.find(web)
        wait(machine.PowerOffVM_Task())
        machine.UnregisterVM()
        site("machines", "--refresh").assert_ok()
        back = one(
            run_and_wait(site, "restore-machine", newest, "--to", "vc", "--name", "web2", "--start")
        )
        assert back["outcome"].startswith("completed"), back
        assert str(vcsim.find(web).runtime.powerState) == "poweredOn"
        running.stop()


def test_the_second_backup_reads_what_changed(site: Command, vcsim: Vcsim, secrets: Path) -> None:
    web = vcsim.make("web1", 48 * MIB)
    flat = vcsim.flats(web)["scsi0-0"]
    with flat.open("r+b") as disk:
        disk.write(random.Random(9).randbytes(40 * MIB))
    with served(site) as running:
        add(site, vcsim, secrets).assert_ok()
        site("policy", "apply", str(secrets / "policy.toml"), "--yes").assert_ok()
        full = one(run_and_wait(site, "policy", "run", "estate"))
        grown(flat, 1)
        less = one(run_and_wait(site, "policy", "run", "estate"))
        assert 40 * MIB <= read_bytes(full) < 42 * MIB
        assert 2 * MIB <= read_bytes(less) < 3 * MIB
        vcsim.say("reset")
        again = one(run_and_wait(site, "policy", "run", "estate"))
        assert read_bytes(again) >= 40 * MIB
        assert "began to mark changes anew" in site("events", str(again["id"])).assert_ok().text
        running.stop()


def test_what_is_in_the_way_is_told_before_the_window(
    site: Command, vcsim: Vcsim, secrets: Path
) -> None:
    vcsim.make("web1", 8 * MIB)
    wrong = add(site, vcsim, secrets, **{"password-file": str(secrets / "wrong")})
    assert "does not let user 'backup' in" in wrong.err
    assert "nonsense" not in wrong.err + wrong.text
    at = f"https://{vcsim.host}"
    looked = site("hypervisor", "set", "vc", "--at", at)
    looked = site("hypervisor", "discover", "vc")
    looked.assert_failed(2, "certificate")
    pinned = f"{at}/?thumbprint={Certificate.new().thumbprint}"
    site("hypervisor", "set", "vc", "--at", pinned, "--user", "backup")
    site("hypervisor", "remove", "vc", "--yes")


def test_a_user_without_the_rights_is_told_at_validation(
    site: Command, vcsim: Vcsim, secrets: Path
) -> None:
    vcsim.make("web1", 8 * MIB)
    with served(site) as running:
        add(site, vcsim, secrets, user="reader").assert_ok()
        (secrets / "active.toml").write_text(POLICY.replace("active = false\n", ""))
        told = site("policy", "validate", str(secrets / "active.toml"))
        assert told.status == 64
        assert "VirtualMachine.State.CreateSnapshot" in told.text + told.err
        running.stop()


def test_a_vcenter_that_is_killed_in_the_middle_fails_the_job_with_the_cause(
    site: Command, vcsim: Vcsim, secrets: Path
) -> None:
    web = vcsim.make("web1", 64 * MIB)
    with vcsim.flats(web)["scsi0-0"].open("r+b") as disk:
        disk.write(random.Random(9).randbytes(64 * MIB))
    with served(site) as running:
        add(site, vcsim, secrets).assert_ok()
        site("policy", "apply", str(secrets / "policy.toml"), "--yes").assert_ok()
        vcsim.say("slow")
        job = site("policy", "run", "estate", "--json").assert_ok().json()["job"]
        until(vcsim.snapshots, "the snapshot")
        vcsim.close()

        def told() -> bool:
            return "127.0.0.1" in site("events", str(job)).text

        until(told, "the cause in the events of the job")
        assert images(site) == {}
        running.stop()
