"""``verify-boot``: a backup is booted by the real command, and judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("lxml", reason="lxml is not installed: see the extra 'vm'")

from tests.kit.asking import job_of
from tests.kit.boot_sector import boot_disk
from tests.kit.qemu import needs_qemu
from tests.kit.served import served, until
from tests.system.virtual_machines.test_policy_to_restore import run_and_wait

if TYPE_CHECKING:
    from tests.kit.command import Command

pytestmark = needs_qemu

POLICY = """
[[policy]]
name = "estate"
type = "machines"
active = false
machines = {query = "*"}

[[policy.schedules]]
name = "nightly"
kind = "differential"
every = "20h"
"""


@pytest.fixture
def image(site: Command, tmp_path: Path) -> str:
    """The id of an image of a machine that says ``web1 login:`` when it is booted."""
    shelf = tmp_path / "machines"
    shelf.mkdir()
    (shelf / "web1.raw").write_bytes(boot_disk("web1 login: "))
    (tmp_path / "policy.toml").write_text(POLICY)
    with served(site) as running:
        site("hypervisor", "add", "shelf", "--kind", "diskfiles", "--at", shelf).assert_ok()
        site("policy", "apply", tmp_path / "policy.toml", "--yes").assert_ok()
        (done,) = run_and_wait(site, "policy", "run", "estate")
        assert done["outcome"].startswith("completed"), done
        running.stop()
    return str(done["image_id"])


def test_an_image_is_booted_and_its_screen_kept(site: Command, image: str, tmp_path: Path) -> None:
    picture = tmp_path / "web1.png"
    words = ("verify-boot", image, "--serial", "login:", "--within", "2m", "--screenshot", picture)
    done = site(*words).assert_ok()
    assert "verdict: it boots" in done.text
    assert all(len(line) <= 80 for line in done.text.splitlines())
    assert picture.read_bytes().startswith(b"\x89PNG")
    told = site("verify-boot", image[:8], "--serial", "web1", "--json").assert_ok().json()
    assert (told["image"], told["passed"], told["missed"]) == (image, True, [])
    assert "web1 login:" in told["said"]
    assert told["has_screenshot"]


def test_one_that_does_not_come_up_is_told_and_fails(site: Command, image: str) -> None:
    words = ("verify-boot", image, "--serial", "graphical", "--port", "22", "--within", "20")
    done = site(*words)
    assert done.status == 2
    assert "did not come: 'graphical' on the serial console" in done.text
    assert "did not come: an answer at TCP port 22" in done.text
    assert "web1 login:" in done.err


def test_one_that_is_killed_leaves_no_machine_that_runs(site: Command, image: str) -> None:
    command = site.start("verify-boot", image, "--serial", "never", "--within", "5m")
    try:
        (machine,) = until(lambda: emulators_below(command.pid), "the machine to run", 60)
    finally:
        command.kill()
        command.communicate()
    until(lambda: not machine.exists(), "the machine to be gone", 20)


def emulators_below(pid: int) -> list[Path]:
    """Where ``/proc`` tells of the emulators that a process, or one that it began, has begun."""
    found = []
    for text in Path(f"/proc/{pid}").glob("task/*/children"):
        for child in text.read_text().split():
            place = Path(f"/proc/{child}")
            if "qemu-system" in (place / "cmdline").read_text(errors="replace").split("\0")[0]:
                found.append(place)
            found += emulators_below(int(child))
    return found


def test_what_can_not_be_is_refused(site: Command, image: str, tree: Path) -> None:
    site("verify-boot", image).assert_failed(64, "nobody said")
    site("verify-boot", image, "--command", "echo 'a").assert_failed(64, "is no command")
    site("verify-boot", image, "--serial", "(").assert_failed(64, "regular expression")
    site("verify-boot", "abcdef00", "--agent").assert_failed(2, "abcdef00")
    site("backup", tree).assert_ok()
    site("verify-boot", "latest", "--agent").assert_failed(2, "machine")


BOOTED = """
[[policy]]
name = "{name}"
type = "machines"
active = false
machines = {{query = "name={name}"}}
verify_boot = {{serial = "{name} login:", within = "{within}"}}

[[policy.schedules]]
name = "nightly"
kind = "differential"
every = "20h"
"""


def booted(**within: str) -> str:
    """A policy for each machine, that says for how long its prompt is waited for."""
    return "".join(BOOTED.format(name=name, within=given) for name, given in within.items())


def boot_checks(site: Command) -> list[dict[str, Any]]:
    return list(site("jobs", "list", "--kind", "boot-check", "--json").assert_ok().json_lines())


def test_a_policy_has_its_images_booted(site: Command, tmp_path: Path) -> None:
    shelf = tmp_path / "machines"
    shelf.mkdir()
    (shelf / "web1.raw").write_bytes(boot_disk("web1 login: "))
    (shelf / "db1.raw").write_bytes(boot_disk("no operating system"))
    (tmp_path / "policy.toml").write_text(booted(web1="5m", db1="10s"))
    with served(site) as running:
        site("hypervisor", "add", "shelf", "--kind", "diskfiles", "--at", shelf).assert_ok()
        site("policy", "apply", tmp_path / "policy.toml", "--yes").assert_ok()
        assert "within 10s: 'db1 login:' on the serial" in site("policy", "show", "db1").text
        for name in ("web1", "db1"):
            (done,) = run_and_wait(site, "policy", "run", name)
            assert done["outcome"] == "completed"

        def ended() -> list[dict[str, Any]]:
            found = boot_checks(site)
            return found if [one["state"] for one in found] == ["ended"] * 2 else []

        by_client = {one["client"]: one for one in until(ended, "both to be booted", 300)}
        good, bad = by_client["web1"], by_client["db1"]
        assert (good["outcome"], good["policy"]) == ("completed", "web1")
        assert (bad["outcome"], bad["error"]["code"]) == ("failed", "does-not-boot")
        # One after the other.
        first, second = sorted((good, bad), key=lambda one: one["started_at"])
        assert first["ended_at"] <= second["started_at"]
        images = {one["host"]: one for one in site("images", "--json").assert_ok().json_lines()}
        assert (images["web1"]["boots"], images["db1"]["boots"]) == (True, False)
        assert "does not boot" in site("images").text
        assert "serial console not within" in site("events", str(bad["id"])).assert_ok().text
        # It is there once more, as it was, by hand.
        again = site("jobs", "restart", str(good["id"]), "--json").assert_ok().json()["id"]
        until(lambda: job(site, again)["state"] == "ended", "it to be booted again", 300)
        assert job(site, again)["outcome"] == "completed"
        running.stop()
    picture = tmp_path / "db1.png"
    last = ("verify-boot", images["db1"]["id"], "--last")
    done_last = site(*last, "--screenshot", picture)
    assert done_last.status == 2
    assert "verdict: it does not boot as it should" in done_last.text
    assert picture.read_bytes().startswith(b"\x89PNG")
    told = site(*last, "--json")
    assert json.loads(told.out)["passed"] is False


def job(site: Command, number: int) -> dict[str, Any]:
    return job_of(site, number)


def test_one_that_boots_can_be_cancelled_and_the_site_stopped(
    site: Command, tmp_path: Path
) -> None:
    shelf = tmp_path / "machines"
    shelf.mkdir()
    (shelf / "web1.raw").write_bytes(boot_disk("it never comes up"))
    (tmp_path / "policy.toml").write_text(booted(web1="1h"))
    with served(site) as running:
        site("hypervisor", "add", "shelf", "--kind", "diskfiles", "--at", shelf).assert_ok()
        site("policy", "apply", tmp_path / "policy.toml", "--yes").assert_ok()
        run_and_wait(site, "policy", "run", "web1")

        def booting() -> dict[str, Any] | None:
            return next((one for one in boot_checks(site) if one["state"] == "active"), None)

        first = until(booting, "it to be booted", 60)
        assert first is not None
        # Whoever stops the site stops it, and it is booted anew after the next start.
        running.stop()
    with served(site) as running:
        again = until(booting, "it to be booted anew", 60)
        assert again is not None
        assert again["id"] == first["id"]
        site("jobs", "cancel", str(again["id"])).assert_ok()
        until(lambda: job(site, again["id"])["state"] == "ended", "it to end")
        assert job(site, again["id"])["outcome"] == "cancelled"
        running.stop()
    assert list((site.home / "scratch").iterdir()) == []
